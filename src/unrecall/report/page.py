"""Assembles the page: records in, one HTML file out that needs no network."""

import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from markupsafe import Markup

from unrecall.disk.files import check_writable, write_text
from unrecall.errors import BadInput
from unrecall.record.judgement import forgot_nothing
from unrecall.record.schema import Exhibit, Label, Measurement, Record, Side
from unrecall.report import (
    answers,
    curves,
    figures,
    harm,
    matrices,
    never_trained,
    numbers,
    readings,
    roles,
    scales,
    sentences,
    strips,
    summary,
    svg,
)
from unrecall.report.readable import printable, readable
from unrecall.report.words import WORDS

if TYPE_CHECKING:
    from jinja2 import Environment

PICTURE = re.compile(r"data:image/png;base64,[A-Za-z0-9+/]+={0,2}")
HEAD = rb'<!doctype html>\s*<html lang="en">\s*<head>\s*<meta charset="utf-8">\s*'
MARK = rb'<meta name="generator" content="unrecall">'
OLDER = rb'<meta http-equiv="Content-Security-Policy" content="default-src &#39;none&#39;; script-src &#39;sha256-'
START = re.compile(HEAD + rb"(?:" + MARK + rb"|" + OLDER + rb".*?<title>[^<]* unrecall</title>)", re.DOTALL)
"""How every page begins: with our mark, or, before there was one, with our policy and title."""
LEAD = 4096
"""How many bytes of a file that look is for."""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""A content policy under which nothing is run, and nothing is loaded from anywhere."""
KEYS = ("retain_accuracy", "forget_accuracy", "test_accuracy", "holdout_accuracy", "model_utility", "forget_quality")
TEMPLATE_MODULES = (
    answers, curves, figures, matrices, never_trained, numbers, readings, roles, scales, sentences, strips, summary, svg
)  # fmt: skip
"""The modules that templates call, by name."""


def page(records: Sequence[Record], declared: Mapping[str, Side | None] | None = None) -> str:
    """The report on these records as one HTML text; the same records give the same bytes.

    Verdicts are derived anew from each record's measurements. `declared`: what this version judges by name, and the
    side on which it leaks, where the page should say which records differ from it.
    """
    if not records:
        raise BadInput("report: expected at least one record, got none. Name a record or a folder that holds one.")
    remarks = [remark(record, declared) for record in records]
    records = [readable(record) for record in records]
    template = environment().get_template("page.html.j2")
    return template.render(
        records=records,
        remarks=remarks,
        keys=key_measurements(records),
        scenarios=list(dict.fromkeys(record.scenario for record in records)),
        policy=POLICY,
        css=Markup(source("page.css")),
        words={word: re.sub(r"[`*]", "", meaning) for word, meaning in WORDS.items()},
    )


def remark(record: Record, declared: Mapping[str, Side | None] | None) -> str:
    """What people must know beside the verdict.

    That it isn't about an attack's request, or isn't the record's own, or that nothing was forgotten; and how two of
    its shares fit together.
    """
    read = readable(record)
    about = harm.ABOUT if harm.reports(read) else ""
    remarks = (
        about,
        sentences.judging(printable(record), declared),
        forgot_nothing(read),
        sentences.shares_together(read),
    )
    return " ".join(filter(None, remarks))


def write(records: Sequence[Record], path: str | Path, declared: Mapping[str, Side | None] | None = None) -> None:
    """Writes the page, all of it or nothing; one that shows examples for its owner alone.

    BadInput where something else than a page is there.
    """
    check_page_path(Path(path))
    write_text(Path(path), page(records, declared), private=any(map(shows_examples, records)))


def shows_examples(record: Record) -> bool:
    """Whether the record holds what an example says, and not only which it is."""
    return any(e.content for e in record.exhibits) or any(r.prompt or r.answer for r in record.readings)


def check_page_path(path: Path) -> None:
    """BadInput where a page can't be written, or something else than a page is there; nothing is changed."""
    check_writable(path)
    if path.is_file():
        with path.open("rb") as file:
            start = file.read(LEAD)
        if start.strip() and not START.match(start):
            raise BadInput(f"{path}: expected a page or nothing there, got another file. Choose another --out.")


def environment() -> "Environment":
    """Templates that escape whatever they print, with the words and plots that they ask for."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("unrecall.report", ".")
    templates = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    templates.filters.update(
        number=numbers.number, exact=numbers.exact, p=numbers.p, plain_reason=sentences.plain_reason
    )
    templates.filters.update(answered=summary.answered)
    templates.globals.update({module.__name__.split(".")[-1]: module for module in TEMPLATE_MODULES})
    templates.globals.update(labels=get_args(Label), grouped=grouped, is_picture=is_picture)
    return templates


def source(name: str) -> str:
    """The text of a file that ships beside this one."""
    return resources.files("unrecall.report").joinpath(name).read_text(encoding="utf-8")


def grouped(measurements: Sequence[Measurement]) -> dict[str, list[Measurement]]:
    """Measurements by group, in the order of the record; groups in that of `HEADINGS`, and those it lacks last."""
    groups: dict[str, list[Measurement]] = {group: [] for group in sentences.HEADINGS}
    for measurement in measurements:
        groups.setdefault(measurement.group, []).append(measurement)
    return {group: members for group, members in groups.items() if members}


def key_measurements(records: Sequence[Record]) -> list[tuple[str, str]]:
    """Name and title of the columns of the summary: accuracies, what texts have in their place, then membership.

    Judged membership comes first; six columns at most, and one more where the others left membership none.
    """
    titles = {m.name: m.title for record in records for m in record.measurements}
    decisive = {m.name for record in records for m in record.measurements if m.judged}
    membership = [name for name in titles if "membership" in name or name.endswith("auc")]
    membership.sort(key=lambda name: name not in decisive)
    first = [name for name in KEYS if name in titles]
    return [(name, titles[name]) for name in [*first, *membership][: max(6, len(first) + 1)]]


def is_picture(exhibit: Exhibit) -> bool:
    """Whether an exhibit can be shown as a picture: anything but an embedded PNG is shown as text."""
    return exhibit.kind == "picture" and PICTURE.fullmatch(exhibit.content) is not None
