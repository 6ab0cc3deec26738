"""What the command line prints."""

import sys
from typing import Any, TextIO

from unrecall.errors import UnrecallError, visible


def say(line: Any, stream: TextIO | None = None) -> None:
    """Prints a line; what would steer the terminal, or can't be written on it, is shown as code points."""
    stream = stream or sys.stdout
    text = visible(str(line)).encode(stream.encoding or "utf-8", "backslashreplace")
    print(text.decode(stream.encoding or "utf-8"), file=stream)


def complain_of(errors: list[str], summary: str) -> None:
    """Prints each error, and raises the summary where there are any."""
    for error in errors:
        complain(error)
    if errors:
        raise UnrecallError(summary)


def complain(message: str) -> int:
    """Prints an error as one line on stderr, and gives the exit code of one."""
    if message:
        say("error: " + " ".join(message.split("\n")), sys.stderr)
    return 2
