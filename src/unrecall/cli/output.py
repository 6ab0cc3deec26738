"""What the command line prints."""

import sys
from typing import Any, TextIO

from unrecall.errors import visible


def say(line: Any, stream: TextIO | None = None) -> None:
    """Prints a line; what would steer the terminal, or can't be written on it, is shown as code points."""
    stream = stream or sys.stdout
    text = visible(str(line)).encode(stream.encoding or "utf-8", "backslashreplace")
    print(text.decode(stream.encoding or "utf-8"), file=stream)
