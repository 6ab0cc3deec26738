"""The page: verdict first, nothing vanishes, nothing is loaded, nothing in a record can become markup."""

import hashlib
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.worlds.records import HOSTILE, alone, estimate, full, hostile, many, matrix, measurement, minimal
from unrecall.errors import BadInput
from unrecall.harness.suites import judged_names
from unrecall.record.schema import NO_USE, Cost, Curve, Exhibit, Label, Measurement, Record, Series, Tuning, load
from unrecall.report import page, scales, write
from unrecall.report.curves import curve, undrawn, values
from unrecall.report.figures import forgetting, gathered, plane, window
from unrecall.report.matrices import heat
from unrecall.report.numbers import number, p, percent, percent_of, span
from unrecall.report.page import grouped, is_picture
from unrecall.report.plot import Axis, axis
from unrecall.report.roles import by_method, legend, style
from unrecall.report.sentences import how_it_forgot, last_points, limits, plain_reason, shares_together
from unrecall.report.strips import strip


class Reader(HTMLParser):
    """Collects what a browser would make elements and attributes of, and the text of all but scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.headings: list[str] = []
        self.inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.headings += [""] if tag in ("h1", "h2") else []
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag in ("script", "style", "h1", "h2"):
            self.inside = tag

    def handle_endtag(self, tag: str) -> None:
        if tag == self.inside:
            self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside in ("h1", "h2"):
            self.headings[-1] += data
        if self.inside not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


@pytest.fixture(scope="module")
def shown() -> Reader:
    return Reader(page([full()]))


def test_sections_come_in_order_and_the_answers_first(shown: Reader) -> None:
    assert shown.headings == [
        "RURK on digits: did it forget?", "Does it still know?", "Can anyone tell they were in?",
        "What else was damaged?", "What was looked at", "Warnings", "How it forgot: by weights or by statistics",
        "Measurements", "Changes class by class", "Attacks", "Utility and forgetting", "Exhibits",
        "Tuning", "Cost", "What this audit does not prove", "Provenance", "What the words mean",
    ]  # fmt: skip


def test_verdict_is_a_word_and_a_sign_and_counts(shown: Reader) -> None:
    head = shown.text[: shown.text.index("How it forgot")]
    assert "▲ leaks" in head
    assert "like retrained 3" in head
    assert "7 measurements judged, alpha = 0.05" in head


def test_a_verdict_is_derived_from_the_numbers_and_a_forged_one_is_named(shown: Reader) -> None:
    assert "This verdict follows" not in shown.text
    verdict = full().verdict.model_copy(update={"label": "like retrained", "line": "All is well."})
    text = Reader(page([full().model_copy(update={"verdict": verdict})])).text
    assert "▲ leaks" in text[: text.index("Does it still know?")]
    assert "the record says “like retrained” of itself, which they do not bear out." in text
    assert "All is well." not in text


def test_a_null_that_is_the_original_is_not_shown_and_the_weights_did_it_all() -> None:
    record = full()
    same = record.provenance.weights | {"null": record.provenance.weights["original"]}
    alike = record.model_copy(update={"provenance": record.provenance.model_copy(update={"weights": same})})
    shown = Reader(page([alike])).text
    assert "null (learning rate 0)" in Reader(page([record])).text and "null (learning rate 0)" not in shown
    assert "points of forgetting, all of them by weights: no BatchNorm statistics moved." in shown
    assert record.provenance.weights.get("null") != record.provenance.weights["original"]


def test_doubts_come_by_severity_with_their_anchor(shown: Reader) -> None:
    places = [shown.text.index(f"docs/checks.md#{name}") for name in ("control-failed", "small-forget", "few-ref")]
    assert places == sorted(places)


def test_every_measurement_and_attack_is_there(shown: Reader) -> None:
    record = full()
    for entry in record.measurements:
        assert entry.title in shown.text
    for attack in record.attacks:
        for words in (attack.title, attack.threat.access, attack.threat.data, attack.threat.budget):
            assert words in shown.text
    assert "✗ fails Negative control." in shown.text
    assert "– not run Negative control." in shown.text


def test_a_missing_value_shows_its_reason(shown: Reader) -> None:
    assert "needs at least 8 retrained models, got 3" in shown.text
    assert "no shadow models" in shown.text
    assert "no reason was recorded" in shown.text


def test_one_reason_for_a_whole_row_is_said_once() -> None:
    none = estimate(None, note="class requests only")
    row = Measurement(name="n", title="t", group="g", unlearned=none, original=none, null=none, note=none.note)
    text = Reader(page([minimal().model_copy(update={"measurements": [row]})])).text
    assert text.count("class requests only") == 1


def test_reported_stands_beside_measured_and_every_hash_is_there(shown: Reader) -> None:
    assert re.search(r"Accuracy on forget 0\.600 0\.620", shown.text)
    assert "paper_only 0.500 not measured" in shown.text
    for words in ("ab" * 32, "cd" * 32, "9f2c" * 16, "0123456789abcdef", "with uncommitted changes", "torch"):
        assert words in shown.text


def test_a_page_without_retrained_models_shows_what_it_was_held_against() -> None:
    text = Reader(page([alone()])).text
    for words in (
        "basis: records that were never trained on, grade B; 2 attacks",
        "the original shows nothing",
        "52 % – 104 %",
        "head_refit, not run: no head",
    ):
        assert words in text


@pytest.mark.parametrize("records", [[full()], [alone()], [minimal()], [hostile()], many(3)])
def test_the_page_loads_nothing(records: list[Record]) -> None:
    reader = Reader(page(records))
    loads = [(tag, value) for tag, name, value in reader.attributes if name in ("src", "href", "srcset", "action")]
    assert all(value.startswith(("#", "data:image/png;base64,")) for _, value in loads)
    places = {value for _, name, value in reader.attributes if name == "id"}
    assert {value[1:] for tag, value in loads if tag == "a"} <= places, "a link leads to a place on the page"
    assert not {"link", "script"} & set(reader.tags)
    assert "@import" not in page(records).split("</style>")[0]
    assert "url(" not in page(records).split("</style>")[0]


def test_markup_in_a_record_stays_text() -> None:
    html = page([hostile()])
    reader, clean = Reader(html), Reader(page([full()]))
    assert set(reader.tags) <= set(clean.tags) | {"blockquote"}
    assert not [name for _, name, _ in reader.attributes if name.startswith("on")]
    assert "<img src=x" not in html
    assert HOSTILE.split("\u2028", maxsplit=1)[0] in reader.text


def test_only_embedded_png_is_a_picture() -> None:
    def picture(content: str) -> bool:
        return is_picture(Exhibit(kind="picture", content=content, caption=""))

    assert picture("data:image/png;base64,AAAA")
    for content in ("javascript:alert(1)", "data:text/html;base64,AAAA", 'data:image/png;base64,AA" onerror="x', ""):
        assert not picture(content)
    assert "javascript:alert(1)" in Reader(page([hostile()])).text


def test_same_records_same_bytes() -> None:
    code = (
        "import hashlib, tests.worlds.records as s; from unrecall.report import page; "
        "print(hashlib.sha256(page([s.full(), s.hostile()]).encode()).hexdigest())"
    )
    command, root = [sys.executable, "-c", code], Path(__file__).parents[3]
    elsewhere = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.strip()
    assert elsewhere == hashlib.sha256(page([full(), hostile()]).encode()).hexdigest()


def test_the_page_needs_no_torch() -> None:
    code = "import unrecall.report, sys; assert not {'torch', 'jinja2'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_several_records_have_a_summary_and_one_section_each() -> None:
    reader = Reader(page(many(20)))
    assert reader.tags.count("details") >= 20
    links = [value for _, name, value in reader.attributes if name == "href"]
    assert {f"#record-{i + 1}" for i in range(20)} <= set(links)
    order = [reader.text.index(words) for words in ("Methods in order", "Each audit", "Utility and", "Held against")]
    assert order == sorted(order)


def test_a_plane_for_each_scenario_keeps_the_numbers_of_the_summary() -> None:
    records = [full(), full().model_copy(update={"scenario": "other"})]
    second = plane(records, "other")
    assert second is not None
    assert re.findall(r'class="point">(\w+)<', second.drawing) == ["2"]
    assert plane([minimal()], "custom") is None


def test_the_plane_stays_within_shares_and_no_label_overprints_another() -> None:
    assert window([1.0, 1.0]) == pytest.approx([0.945, 1.005])
    assert window([0.2, 0.6]) == pytest.approx([0.16, 0.64])
    marked = [(1.0, 0.5, "1"), (1.0, 0.51, "2"), (0.96, 0.5, "3")]
    across, up = Axis("", *window([1.0, 1.0]), ()), Axis("", 0.0, 1.0, ())
    assert gathered(marked, across, up) == ["1, 2", "", "3"]


def test_minimal_and_infinite_records_do_not_crash() -> None:
    odd = [
        measurement("forget_accuracy", "F" * 300, "g", (math.inf, math.nan, 0.1), (), "not judged"),
        measurement("retain_accuracy", "R", "g", (0.0, 0.0, 0.0), (0.0,), "like retrained"),
    ]
    blank = Curve(name="c", title="", x_label="", y_label="", series=[])
    empty = full().attacks[0].model_copy(update={"curves": [blank]})
    free = {"retrained": Cost(seconds=0.0, passes=0, steps=0, peak_mib=0.0)}
    untried = Tuning(parameter="p", chosen=math.nan, criterion="", trials=[])
    update = {"measurements": odd, "attacks": [empty], "costs": free, "tuning": untried}
    text = Reader(page([minimal().model_copy(update=update)])).text
    assert "not a finite number" in text
    assert "No model has a line on this plot." in text
    assert "No attack was run." in Reader(page([minimal()])).text
    with pytest.raises(BadInput, match="at least one record"):
        page([])


def test_write_puts_the_page_of_a_saved_record(tmp_path: Path) -> None:
    full().save(tmp_path / "record.json")
    write([load(tmp_path / "record.json")], tmp_path / "out" / "page.html")
    assert (tmp_path / "out" / "page.html").read_text(encoding="utf-8") == page([full()])
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["page.html"]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        # 99 - 57 = 42 points; the null: 99 - 59 = 40.
        ((0.57, 0.99, 0.59), "40 are there in the null (learning rate 0) too: BatchNorm statistics"),
        ((0.57, 0.99, 0.99), "0 are there in the null (learning rate 0) too: the rest takes"),
        ((0.57, 0.99, 0.78), "21 are there in the null (learning rate 0) too: partly BatchNorm"),
        ((0.99, 0.99, 0.99), "Forget accuracy did not fall"),
    ],
)  # fmt: skip
def test_how_it_forgot_in_words(values: tuple[float, float, float], sentence: str) -> None:
    told = how_it_forgot(measurement("forget_accuracy", "t", "g", values, (), "not judged"))
    assert told.removeprefix("Of the 42 points of forgetting, ").startswith(sentence)


def test_the_null_has_one_name_in_the_sentence_and_in_the_figure() -> None:
    m = measurement("forget_accuracy", "t", "g", (0.57, 0.99, 0.59), (), "not judged")
    names = re.findall(r'class="row">([^<]+)<', forgetting(m, {}).drawing)
    assert "null (learning rate 0) 0.590" in names
    assert "null (learning rate 0)" in how_it_forgot(m)
    without = how_it_forgot(m.model_copy(update={"null": estimate(None, note="the reason")}))
    assert "without a null (learning rate 0): the reason" in without


def test_groups_stand_in_the_order_of_the_headings_and_unknown_ones_last() -> None:
    groups = ("mine", "cost", "privacy", "recovery", "utility", "privacy")
    rows = [measurement(f"m{i}", "t", group, (0.5, 0.9, 0.8), (), "not judged") for i, group in enumerate(groups)]
    names = {group: [m.name for m in members] for group, members in grouped(rows).items()}
    assert list(names) == ["utility", "privacy", "recovery", "cost", "mine"]
    assert names["privacy"] == ["m2", "m5"], "within a group in the order of the record"


def test_how_it_forgot_says_what_is_missing() -> None:
    whole = measurement("forget_accuracy", "t", "g", (0.5, 0.9, 0.8), (), "not judged")
    assert "the reason" in how_it_forgot(whole.model_copy(update={"null": estimate(None, note="the reason")}))
    assert "the reason" in how_it_forgot(whole.model_copy(update={"unlearned": estimate(None, note="the reason")}))
    assert "No forget accuracy" in how_it_forgot(None)


def test_limits_name_the_attacks_the_references_and_the_failed_controls() -> None:
    text = " ".join(limits(full()))
    assert "Membership inference; Relearning; Residual knowledge" in text
    assert "The 3 retrained models" in text
    assert "A control failed for Relearning" in text
    assert "The negative control was not run for Residual knowledge: nothing shows that it finds nothing" in text
    bare = [a.model_copy(update={"positive_holds": None, "negative_holds": None}) for a in full().attacks]
    text = " ".join(limits(full().model_copy(update={"attacks": bare})))
    assert "A control was not run for Membership inference; Relearning; Residual knowledge; Recal" in text
    assert "1 of 8 measurements could not be taken" in text
    assert "No attack was run" in limits(minimal())[0]


def test_an_attack_that_ruined_every_copy_has_no_choices_and_a_row_that_says_so() -> None:
    choices = "The attacker's best choices against the unlearned model: lr=0.01."

    def ruining(note: str) -> Record:
        attacks = [
            a.model_copy(update={"note": note, "curves": [c.model_copy(update={"note": choices}) for c in a.curves]})
            for a in full().attacks
        ]
        row = measurement("relearn_mean", "Relearned", "recovery", (0.75, 1.0, 1.0), (0.0, 0.0), "not judged")
        return full().model_copy(update={"attacks": attacks[1:2], "measurements": [row]})

    ruined, whole = (Reader(page([ruining(note)])).text for note in (NO_USE, "Another note."))
    assert (choices in whole, choices in ruined) == (True, False)
    assert (whole.count(NO_USE), ruined.count(NO_USE)) == (0, 2), "beside the attack, and in its row"


def test_a_reason_is_a_sentence_without_the_name_of_a_class() -> None:
    said = {
        "Mine: expected a model to compare with, got none.": "It needs a model to compare with, and there was none.",
        "CKA: expected two, got 1.5. Set beside=1.": "It needs two, and got 1.5. Set beside=1.",
        "no interval: a few examples decide": "no interval: a few examples decide",
    }
    assert {note: plain_reason(note) for note in said} == said
    (note, sentence), *_ = said.items()
    attacks = [a.model_copy(update={"note": note, "curves": []}) for a in full().attacks[:1]]
    text = Reader(page([full().model_copy(update={"attacks": attacks})])).text
    assert sentence in text and note not in text


def test_numbers_are_short() -> None:
    cases = {0.62: "0.620", 0.0: "0.000", -0.5: "−0.500", 9.0: "9"}
    cases |= {12.0: "12", 12.34: "12.3", 1234.5: "1,234", 0.00012: "1.2 × 10⁻⁴", -3e12: "−3 × 10¹²"}
    assert {value: number(value) for value in cases} == cases
    assert (number(None), number(math.nan)) == ("none", "not a finite number")
    assert span([0.58, None, 0.57]) == "0.570 to 0.580"
    assert (percent_of(1, 10), percent_of(1, 0), percent_of(0.04, 10)) == ("10 %", "–", "0.4 %")
    assert (percent_of(9997, 10_000), percent_of(9, 1e8), percent_of(25, 10)) == (
        "99.97 %",
        "less than 0.01 %",
        "250 %",
    )


def test_attacks_that_were_not_run_are_said_to_be_in_the_list_of_these() -> None:
    none, *others = full().attacks
    first, second = (attack.model_copy(update={"curves": [], "note": "no head"}) for attack in (none, others[0]))
    single = full().model_copy(update={"attacks": [first, *others]})
    said = "This attack could not be run: Membership inference. The list “Not run” says why."
    assert said in limits(single)
    assert "Not run Membership inference" in Reader(page([single])).text
    both = full().model_copy(update={"attacks": [first, second, *others[1:]]})
    said = "These attacks could not be run: Membership inference; Relearning. The list “Not run” says why."
    assert said in limits(both)


@pytest.mark.parametrize(
    ("part", "text"),
    [
        (0.0, "0 %"), (1.0, "100 %"), (0.77, "77 %"), (-0.02, "−2 %"), (-0.003, "−0.3 %"), (634 / 636, "99.7 %"),
        (0.999_99, "more than 99.99 %"), (1.003, "100.3 %"), (1.000_01, "just above 100 %"), (-1e-6, "just below 0 %"),
    ],
)  # fmt: skip
def test_no_share_is_none_or_all_that_is_not(part: float, text: str) -> None:
    assert percent(part) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "unknown"), (0.0001, "0.0001"), (0.04, "0.040"), (0.0404, "0.0404"), (0.039_96, "0.03996"),
        (0.0404, "0.0404"), (0.009_996, "0.009996"), (0.0496, "0.0496"), (0.3, "0.30"), (0.998, "0.998"), (1.0, "1.00"),
    ],
)  # fmt: skip
def test_no_p_is_written_as_a_level_that_it_does_not_have(value: float | None, text: str) -> None:
    assert p(value) == text


def test_a_role_always_looks_the_same() -> None:
    numbered, control = style("retrained 3"), style("unlearned, labels shuffled")
    assert (numbered.colour, numbered.name) == (style("retrained").colour, "retrained")
    assert numbered.width < style("retrained").width
    assert control.colour == style("unlearned").colour
    assert control.dash != style("unlearned").dash
    assert [look.name for look in legend(["retrained 0", "retrained 1"])] == ["retrained (2 models)"]
    looks = by_method(full(f"m{i}") for i in range(20)).values()
    assert len({(look.colour, look.symbol) for look in looks}) == 20


def test_a_curve_keeps_what_a_logarithmic_axis_cannot_show() -> None:
    line = Series(role="original", x=[0, 1, 2], y=[0.0, 0.5, None])
    drawn = Curve(name="c", title="t", x_label="x", y_label="y", log="xy", series=[line])
    assert "original: 0.500 at 1" in curve(drawn).drawing
    assert curve(drawn).drawing.count("<circle") + curve(drawn).drawing.count("original: ") == 1
    assert undrawn(drawn) == 1
    table = values(drawn)
    assert table is not None
    assert table.rows == [(0, [0.0]), (1, [0.5]), (2, [None])]


def test_bands_cover_the_points_that_have_both_ends() -> None:
    residual = next(a for a in full().attacks if a.name == "residual_knowledge").curves[0]
    (band,) = re.findall(r'd="([^"]+)z" fill="#0072B2" fill-opacity', curve(residual).drawing)
    assert len(re.findall("[ML]", band)) == 6, "three points there, three back"
    assert last_points(residual) == {"original": [1.7], "unlearned": [1.2], "retrained": [1.0]}


def test_a_point_stands_where_its_axes_say() -> None:
    across = axis("x", [0.0, 10.0])
    assert (across.low, across.high) == (-0.2, 10.2)
    assert [text for _, text in across.texts()] == ["0", "2", "4", "6", "8", "10"]
    assert across.at(5.0) == pytest.approx(0.5)
    log = axis("x", [0.01, 1.0, 0.0], log=True)
    assert log.at(0.1) == pytest.approx(0.5)
    assert log.at(0.0) is None
    assert axis("x", [3.0]).at(3.0) == pytest.approx(0.5)
    assert axis("x", [1, 5, 25], log=True, tick_each=True).ticks == [1, 5, 25]


def test_no_bound_is_printed_that_a_measurement_can_not_reach() -> None:
    wide = {"bound_low": -2.134, "bound_high": 3.505, "leak": "above", "margin": 0.5}
    m = measurement("forget_accuracy", "A", "forgetting", (1.0, 1.0, 1.0), (1.0, 0.4), "inconclusive", **wide)
    drawn = strip(m)
    assert drawn is not None and (drawn.left, drawn.right) == (0.0, 1.03), "to the end of an interval"
    html = page([full().model_copy(update={"measurements": [m]})])
    assert '<span class="interval">0.000 – 1.000</span>' in html
    assert "3.505" not in html and "−2.134" not in html
    assert scales.bounds(m.model_copy(update={"unit": "%"})) == (0, 3.505)
    assert scales.bounds(m.model_copy(update={"name": "residual_knowledge_sums"})) == (0, 3.505)
    assert scales.bounds(m.model_copy(update={"name": "loss_left"})) == (-2.134, 3.505)
    assert scales.bounds(m.model_copy(update={"bound_high": math.inf})) is None


def test_no_interval_of_a_model_is_printed_beyond_what_its_measurement_can_be() -> None:
    m = measurement("holdout_accuracy", "A", "forgetting", (0.01, 0.01, 0.01), (0.01, 0.02), "not judged")
    html = page([full().model_copy(update={"measurements": [m]})])
    assert '<span class="interval">0.000 – 0.040</span>' in html
    assert "−0.020 – " not in html
    names = {"relearn_slow_mean": "recovery", "mine_mean": "privacy", "loss_left": "privacy", "ou_kl": "utility"}
    ends = {name: scales.ends(m.model_copy(update={"name": name, "group": g})) for name, g in names.items()}
    assert list(ends.values()) == [(0, 1), (-math.inf, math.inf), (-math.inf, math.inf), (0, math.inf)]


def test_of_each_judged_measurement_it_is_known_what_it_can_be() -> None:
    assert set(judged_names()) <= scales.SHARES | scales.RATIOS | scales.OPEN
    assert not scales.SHARES & (scales.RATIOS | scales.OPEN)


def test_it_is_said_how_a_half_fits_to_a_larger_share_that_would_be_seen() -> None:
    record = full("scrub", label="like retrained")

    def said(share: int, label: Label = "like retrained") -> str:
        line = f"Like retrained: all of it. {share} % left would be seen 4 times in 5 (Accuracy on forget)."
        return shares_together(
            record.model_copy(update={"verdict": record.verdict.model_copy(update={"label": label, "line": line})})
        )

    assert "but a leak 4 times in 5 only with 93 % left or more" in said(93)
    assert said(50) == said(5) == said(93, "inconclusive") == ""


def test_a_strip_has_room_for_every_model() -> None:
    drawn = strip(full().measurements[0])
    assert drawn is not None
    assert [mark.role for mark in drawn.marks] == ["unlearned", "original", "null", *["retrained"] * 2]
    assert all(8 <= mark.x <= 208 for mark in drawn.marks)
    assert strip(full().measurements[-1]) is None


def test_another_page_that_speaks_of_us_is_not_written_over(tmp_path: Path) -> None:
    place = tmp_path / "page.html"
    theirs = '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>Notes on unrecall</title>'
    place.write_text(theirs)
    with pytest.raises(BadInput, match="expected a page or nothing there, got another file"):
        write([full()], place)
    assert place.read_text() == theirs
    place.unlink()
    write([full()], place)
    whole = place.read_text(encoding="utf-8")
    mark = '<meta name="generator" content="unrecall">\n'
    assert mark in whole
    older = "default-src &#39;none&#39;; script-src &#39;sha256-A&#39;; style-src"
    place.write_text(whole.replace(mark, "").replace("default-src &#39;none&#39;; style-src", older), encoding="utf-8")
    write([full()], place)
    assert place.read_text(encoding="utf-8") == whole, "a page of before there was a mark is ours too"


def test_a_heat_map_has_a_cell_for_each_pair_and_says_its_numbers() -> None:
    drawing = heat(matrix(), "unlearned").drawing
    assert "“eight” called “three”: 0.050 before, 0.650 after (+0.600)" in drawing
    assert "“zero” called “zero”: no examples" in drawing
    assert drawing.count("<title>") == 16
    # 0.85 of eights are lost: the largest change of both tables is 0.95, of retrained models.
    assert 'fill="#D55E00" fill-opacity="0.89"' in drawing


def test_a_heat_map_of_many_classes_draws_what_changed_alone() -> None:
    count = 60
    before = [[float(i == j) for j in range(count)] for i in range(count)]
    after = [[0.5 * share if i == 7 else share for share in row] for i, row in enumerate(before)]
    labels = [f"class {i}" for i in range(count)]
    big = matrix().model_copy(update={"labels": labels, "values": {"original": before, "unlearned": after}})
    drawing = heat(big, "unlearned").drawing
    assert drawing.count("<rect") == 1 + 11, "one cell, and the colours below"
    assert "<title>" not in drawing


def test_only_what_no_verdict_rests_on_is_folded() -> None:
    text = Reader(page([full()])).text
    assert "1 measurement on which no verdict rests" in text


def test_a_page_without_retrained_models_has_no_column_for_them() -> None:
    rows = [m.model_copy(update={"references": [], "reference": None, "judged": False}) for m in full().measurements]
    reader = Reader(page([alone().model_copy(update={"measurements": rows})]))
    labels = {value for _, name, value in reader.attributes if name == "data-label"}
    assert {"unlearned", "original", "null", "verdict"} <= labels
    assert "retrained" not in labels
    assert "a leak shows above retrained" not in reader.text


def test_no_row_is_judged_where_the_verdict_rests_on_none() -> None:
    rows = [m.model_copy(update={"references": [], "reference": None, "note": ""}) for m in full().measurements]
    count = sum(m.judged for m in rows)
    beside_nothing = full().model_copy(update={"measurements": rows, "never_trained": None})
    assert Reader(page([beside_nothing])).text.count("0 retrained models: at least 2 are needed") == count > 0
    text = Reader(page([alone().model_copy(update={"measurements": rows})])).text
    assert "0 retrained models" not in text
    missing = sum(m.unlearned.value is None for m in rows)
    assert f"{len(rows) - missing} measurements on which no verdict rests" in text
    assert f"{missing} that could not be measured, and why" in text
    assert "? inconclusive" not in text


def test_hidden_examples_are_told_by_their_place() -> None:
    hidden = [exhibit.model_copy(update={"content": "", "index": 7}) for exhibit in full().exhibits]
    reader = Reader(page([full().model_copy(update={"exhibits": hidden})]))
    assert "forget[7]" in reader.text
    assert "--show-examples" in reader.text
    assert "img" not in reader.tags
