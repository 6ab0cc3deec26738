"""The page in a real browser: everything is drawn, nothing complains, nothing is fetched, nothing hostile runs."""

import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.worlds.records import full, hostile, many, minimal
from tests.worlds.text_records import hostile_text, text
from unrecall.report import write

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]
CASES = {"full": [full()], "minimal": [minimal()], "hostile": [hostile()], "many": many(3)}
CASES |= {"text": [text()], "hostile text": [hostile_text()]}
VALIDATE = """() => [...document.querySelectorAll('.plot')].flatMap(div => {
  const figure = JSON.parse(div.nextElementSibling.textContent);
  const about = div.getAttribute('aria-label');
  return (Plotly.validate(figure.data, figure.layout) || []).map(found => found.msg + ' of ' + about);
})"""


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
        self.tab.wait_for_function(
            "[...document.querySelectorAll('.plot')].every(div => div.querySelector('.main-svg'))", timeout=PATIENCE
        )

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
@pytest.mark.parametrize("width", [1200, 360])
def test_page_opens_quietly_and_fits(browser: Any, pages: Path, name: str, width: int) -> None:
    visit = Visit(browser, pages / f"{name}.html", width)
    assert visit.events == []
    assert all(url.startswith(("file://", "data:", "blob:")) for url in visit.requests)
    assert visit.tab.evaluate("document.documentElement.scrollWidth") <= width
    assert visit.tab.evaluate(VALIDATE) == []
    visit.tab.close()


def test_nothing_hostile_becomes_an_element(browser: Any, pages: Path) -> None:
    visit = Visit(browser, pages / "hostile.html")
    assert (
        visit.tab.locator("img[src='x'], [onerror], main b img, .plot img, .plot a, .plot foreignObject").count() == 0
    )
    # Plotly must show the markup as text: the escapes in the JSON are undone by its own reading of labels.
    assert "</script><img" in visit.tab.locator(".plot .xtitle").first.text_content()
    assert visit.tab.locator("img").count() == 0
    visit.tab.close()


def test_only_the_two_scripts_of_the_page_may_run(browser: Any, pages: Path) -> None:
    visit = Visit(browser, pages / "minimal.html")
    visit.tab.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.ran = 1\">')")
    visit.tab.wait_for_timeout(200)
    assert visit.tab.evaluate("window.ran") is None
    visit.tab.close()


def test_a_link_of_the_summary_opens_its_record(browser: Any, pages: Path) -> None:
    tab = browser.new_page()
    tab.set_default_timeout(PATIENCE)
    tab.goto((pages / "many.html").as_uri())
    assert tab.locator("#record-2 .main-svg").count() == 0
    tab.locator("a[href='#record-2']").click()
    tab.wait_for_selector("#record-2 .main-svg")
    assert tab.locator("#record-2[open]").count() == 1
    tab.close()


def test_no_label_of_the_plane_covers_another_or_is_cut(browser: Any, pages: Path) -> None:
    """Ten records, of which pairs coincide, all with an accuracy of nearly 1."""
    write(many(10) * 2, pages / "plane.html")
    for width in (1200, 360):
        visit = Visit(browser, pages / "plane.html", width)
        boxes = visit.tab.evaluate("""() => {
          const plane = document.querySelector('.plot[aria-label="Utility against forgetting"]');
          const edge = plane.getBoundingClientRect();
          return [...plane.querySelectorAll('.textpoint text')].filter(text => text.textContent).map(text => {
            const box = text.getBoundingClientRect();
            return [box.left - edge.left, edge.right - box.right, box.top - edge.top, box.bottom - edge.top];
          });
        }""")
        assert boxes
        assert all(left >= 0 and right >= 0 for left, right, _, _ in boxes)
        rows = sorted((top, bottom) for _, _, top, bottom in boxes)
        assert all(above[1] <= below[0] + 3 for above, below in pairwise(rows)), rows
        visit.tab.close()


def test_paper_shows_every_record_and_no_plot_is_cut(browser: Any, pages: Path) -> None:
    tab = browser.new_page()
    tab.set_default_timeout(PATIENCE)
    tab.goto((pages / "many.html").as_uri())
    tab.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert tab.locator("details.record:not([open])").count() == 0
    widths = tab.evaluate("[...document.querySelectorAll('.record .plot .main-svg')].map(svg => svg.clientWidth)")
    assert set(widths) == {660}
    tab.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert tab.locator("details.record[open]").count() == 0
    tab.close()
