"""What can go wrong, said so that the reader knows what to do next.

Every message has the form `<Owner>: expected <constraint>, got <value>. <What to do.>`
"""

import difflib
from collections.abc import Iterable


class UnrecallError(Exception):
    """Root of all errors that unrecall raises on purpose; the command line prints it as one line and exits with 2."""


class BadInput(UnrecallError):
    """The caller's data, model, path or parameter can't be used."""


class NotSupported(UnrecallError):
    """A method, attack or metric asks for something that this task or model does not have."""


class MissingReference(UnrecallError):
    """A number was asked for that means nothing without a retrained model or a holdout set."""


class MissingDependency(UnrecallError):
    """An optional package isn't installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package}: expected it to be installed, got nothing. Run: pip install 'unrecall[{extra}]'")


class Diverged(UnrecallError):
    """Losses or weights stopped being finite."""

    def __init__(self, owner: str, step: int, last_good: str) -> None:
        super().__init__(
            f"{owner}: expected finite losses and weights, got NaN or infinity at step {step}. "
            f"{last_good} Lower lr, or set clip."
        )
        self.step = step


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint that names the closest known spelling, or lists what there is."""
    options = sorted(known)
    close = difflib.get_close_matches(name, options, n=1, cutoff=0.6)
    return f"Did you mean '{close[0]}'?" if close else "Known: " + ", ".join(options) + "."
