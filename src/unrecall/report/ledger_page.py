"""The page over a ledger: which requests there were, what their audits found, and what that is worth together."""

from pathlib import Path
from typing import Final

from markupsafe import Markup

from unrecall.disk.files import write_text
from unrecall.errors import visible
from unrecall.record import ledger as lines
from unrecall.record.ledger import Entry, Ledger
from unrecall.record.schema import Label
from unrecall.report.page import POLICY, check_page_path, environment, source

TRACED: Final[tuple[Label, ...]] = ("leaks", "over-forgets", "stands out")
"""Labels under which an audit found a trace of what was to go."""
UNCHANGED: Final[tuple[Label, ...]] = ("unchanged",)
"""Under which nothing was removed."""
NO_TRACE: Final[tuple[Label, ...]] = ("like retrained", "no more than 25 %", "no more than 50 %")
"""Under which it found none; under all others it could not tell."""


def page(ledger: Ledger, name: str) -> str:
    """The page as one HTML text; the same ledger gives the same bytes. `name`: what the file is called."""
    entries = [_shown(entry) for entry in ledger.entries]
    newest = {entry.request: entry for entry in entries}
    return (
        environment()
        .get_template("ledger.html.j2")
        .render(
            name=visible(name),
            ledger=ledger,
            entries=entries,
            newest=newest,
            traced=[entry for entry in newest.values() if entry.label in TRACED],
            unchanged=[entry for entry in newest.values() if entry.label in UNCHANGED],
            unsure=[entry for entry in newest.values() if entry.label not in (*TRACED, *UNCHANGED, *NO_TRACE)],
            evidence=lines.evidence(entries),
            values=lines.of_request(entries),
            shared=list(lines.shared(entries)),
            due=lines.due(entries),
            policy=POLICY,
            css=Markup(source("page.css")),
        )
    )


def write(path: Path, out: Path) -> None:
    """Writes the page over the ledger at `path`; BadInput where its chain is broken or something else is there."""
    ledger = lines.read(path)
    check_page_path(out)
    write_text(out, page(ledger, path.name))


def _shown(entry: Entry) -> Entry:
    """The entry with control characters in its texts as their code points."""
    return entry.model_copy(update={key: visible(value) for key, value in entry if isinstance(value, str)})
