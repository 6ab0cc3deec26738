"""The page in a real browser: everything is drawn, nothing complains, nothing is fetched, nothing hostile runs."""

import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.worlds.records import alone, full, hostile, many, minimal
from tests.worlds.text_records import hostile_text, text
from unrecall.report import write

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]
CASES = {"full": [full()], "alone": [alone()], "minimal": [minimal()], "hostile": [hostile()], "many": many(3)}
CASES |= {"text": [text()], "hostile text": [hostile_text()]}
PATIENCE = 120_000
"""Milliseconds: a busy machine is no reason to fail."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Visit:
    """A page that was opened, and all that happened meanwhile."""

    def __init__(self, browser: Any, path: Path, width: int = 1200) -> None:
        self.events: list[str] = []
        self.requests: list[str] = []
        self.tab = browser.new_page(viewport={"width": width, "height": 800})
        self.tab.set_default_timeout(PATIENCE)
        self.tab.on("console", lambda message: self.events.append(f"{message.type}: {message.text}"))
        self.tab.on("pageerror", lambda error: self.events.append(f"error: {error}"))
        self.tab.on("dialog", self.dismiss)
        self.tab.on("request", lambda request: self.requests.append(request.url))
        self.tab.goto(path.as_uri())
        self.tab.evaluate("document.querySelectorAll('details').forEach(box => { box.open = true; })")

    def dismiss(self, dialog: Any) -> None:
        self.events.append(f"dialog: {dialog.message}")
        dialog.dismiss()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    for name, records in CASES.items():
        write(records, folder / f"{name}.html")
    return folder


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("width", [1280, 390])
def test_page_opens_quietly_and_fits(browser: Any, pages: Path, name: str, width: int) -> None:
    visit = Visit(browser, pages / f"{name}.html", width)
    assert visit.events == []
    assert all(url.startswith(("file://", "data:")) for url in visit.requests)
    assert visit.tab.evaluate("document.documentElement.scrollWidth") <= width
    assert (pages / f"{name}.html").stat().st_size < 1_000_000
    visit.tab.close()


@pytest.mark.parametrize("width", [1280, 390])
def test_the_words_of_a_figure_stay_inside_and_are_large_enough(browser: Any, pages: Path, width: int) -> None:
    visit = Visit(browser, pages / "full.html", width)
    words = visit.tab.evaluate("""() => [...document.querySelectorAll('.plot')].flatMap(plot => {
      const frame = plot.getBoundingClientRect();
      return [...plot.querySelectorAll('text')].map(text => {
        const box = text.getBoundingClientRect();
        const inside = box.left >= frame.left - 2 && box.right <= frame.right + 2
          && box.top >= frame.top - 2 && box.bottom <= frame.bottom + 2;
        const scale = frame.width / plot.viewBox.baseVal.width;
        return [text.textContent, inside, parseFloat(getComputedStyle(text).fontSize) * scale];
      });
    })""")
    assert len(words) > 50
    assert [text for text, inside, _ in words if not inside] == []
    assert min(size for _, _, size in words) >= 10.5
    visit.tab.close()


def test_the_answers_stand_on_the_first_screen(browser: Any, pages: Path) -> None:
    for name in ("full", "alone", "minimal"):
        tab = browser.new_page(viewport={"width": 1280, "height": 900})
        tab.goto((pages / f"{name}.html").as_uri())
        bottoms = [box["y"] + box["height"] for box in (one.bounding_box() for one in tab.locator(".answer").all())]
        assert len(bottoms) == 3
        assert max(bottoms) <= 900
        tab.close()


def test_nothing_hostile_becomes_an_element(browser: Any, pages: Path) -> None:
    visit = Visit(browser, pages / "hostile.html")
    assert visit.tab.locator("img, [onerror], script, .plot a, .plot foreignObject").count() == 0
    assert "</script><img" in "".join(visit.tab.locator(".plot .name").all_text_contents())
    visit.tab.close()


def test_no_script_may_run(browser: Any, pages: Path) -> None:
    visit = Visit(browser, pages / "minimal.html")
    visit.tab.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.ran = 1\">')")
    visit.tab.wait_for_timeout(200)
    assert visit.tab.evaluate("window.ran") is None
    visit.tab.close()


def test_a_link_of_the_summary_opens_its_record(browser: Any, pages: Path) -> None:
    tab = browser.new_page()
    tab.set_default_timeout(PATIENCE)
    tab.goto((pages / "many.html").as_uri())
    assert not tab.locator("#record-2").is_visible()
    tab.locator("a[href='#record-2']").first.click()
    tab.wait_for_selector("#record-2", state="visible")
    tab.close()


def test_no_label_of_the_plane_covers_another_or_is_cut(browser: Any, pages: Path) -> None:
    """Ten records, of which pairs coincide, all with an accuracy of nearly 1."""
    write(many(10) * 2, pages / "plane.html")
    for width in (1280, 390):
        visit = Visit(browser, pages / "plane.html", width)
        boxes = visit.tab.evaluate("""() => {
          const plane = document.querySelector('.plot[aria-label="Utility against forgetting"]');
          const edge = plane.getBoundingClientRect();
          return [...plane.querySelectorAll('.point')].map(text => {
            const box = text.getBoundingClientRect();
            return [box.left - edge.left, edge.right - box.right, box.top - edge.top, box.bottom - edge.top];
          });
        }""")
        assert boxes
        assert all(left >= 0 and right >= 0 for left, right, _, _ in boxes)
        rows = sorted((top, bottom) for _, _, top, bottom in boxes)
        assert all(above[1] <= below[0] + 3 for above, below in pairwise(rows)), rows
        visit.tab.close()


PAPER = {"width": 688, "height": 1002}
"""A4 without its margins, in pixels."""


def test_paper_shows_the_answers_first_and_everything_open(browser: Any, pages: Path, tmp_path: Path) -> None:
    for name in ("full", "alone", "many"):
        tab = browser.new_page(viewport=PAPER)
        tab.set_default_timeout(PATIENCE)
        tab.goto((pages / f"{name}.html").as_uri())
        tab.emulate_media(media="print")
        assert tab.evaluate("document.documentElement.scrollWidth") <= PAPER["width"]
        first = tab.locator(".answer" if name != "many" else "table").first.bounding_box()
        assert first["y"] + first["height"] <= PAPER["height"]
        hidden = "[...document.querySelectorAll('.plot')].filter(p => !p.closest('.values') && !p.checkVisibility())"
        assert tab.evaluate(f"{hidden}.length") == 0
        cut = "[...document.querySelectorAll('.plot')].filter(p => p.getBoundingClientRect().right > innerWidth)"
        assert tab.evaluate(f"{cut}.length") == 0
        tab.pdf(path=tmp_path / f"{name}.pdf", format="A4", prefer_css_page_size=True)
        assert (tmp_path / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        tab.close()
