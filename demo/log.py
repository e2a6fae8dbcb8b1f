"""The server's log: short, printable lines, whatever visitors put into them."""

import sys
from typing import Any, TextIO

LONGEST = 1_000  # characters of a line


class ShortLines:
    """A text stream that shortens lines and shows control characters as their codes."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write text, perhaps of several lines."""
        lines = (line.expandtabs(4) for line in text.split("\n"))
        self._stream.write("\n".join(map(_shown, lines)))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def shorten_log() -> None:
    """Write all output of this process as `ShortLines` from now on."""
    sys.stdout, sys.stderr = ShortLines(sys.stdout), ShortLines(sys.stderr)


def _shown(line: str) -> str:
    cut = line if len(line) <= LONGEST else f"{line[:LONGEST]}… ({len(line):,} characters)"
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in cut)
