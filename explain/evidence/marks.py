"""Which images of an index do not count, as people said."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from nbdt.evidence import EvidenceError

MARKS = "marks.jsonl"
MAX_WHY = 2000  # characters of a mark's reason


@dataclass(frozen=True)
class Mark:
    """A person's statement about one image of an index."""

    reference: str  # the image
    rows: tuple[int, ...]  # its rows in the index; several if the data contains it several times
    bad: bool  # True excludes it, False includes it again
    why: str | None  # the reason given
    when: str  # UTC, ISO 8601


class Marks:
    """The marks of an index, oldest first; the last one on an image counts.

    Args:
        path: a file of JSON lines, which need not exist yet; None keeps them in memory.
        count: rows of the index.

    Raises:
        EvidenceError: a line that is no mark of this index.
    """

    def __init__(self, path: Path | None, count: int) -> None:
        self.path = path
        self.count = count
        self.all: list[Mark] = []
        if path is not None and path.is_file():
            lines = path.read_bytes().split(b"\n")
            # A line without an end was cut off by a crash.
            self.all = [self._parse(line, n) for n, line in enumerate(lines[:-1], start=1) if line]

    def excluded(self) -> frozenset[int]:
        """Return the rows whose last mark is bad."""
        verdicts = {row: mark.bad for mark in self.all for row in mark.rows}
        return frozenset(row for row, bad in verdicts.items() if bad)

    def add(self, reference: str, rows: tuple[int, ...], *, bad: bool, why: str | None) -> Mark:
        """Append a mark, flushed to the disk.

        Raises:
            EvidenceError: `why` has more than `MAX_WHY` characters.
            OSError: the file cannot be written.
        """
        if why is not None and len(why) > MAX_WHY:
            raise EvidenceError(
                f"Expected a reason of at most {MAX_WHY:,} characters, got {len(why):,}."
            )
        now = datetime.now(UTC).isoformat(timespec="seconds")
        mark = Mark(reference, rows, bad, why, now)
        if self.path is not None:
            self._append(self.path, json.dumps(asdict(mark)))
        self.all.append(mark)
        return mark

    @staticmethod
    def _append(path: Path, line: str) -> None:
        with path.open("a+b") as file:
            file.seek(0)
            written = file.read()
            # Remove only a line that a crash cut off: another process may have added its own.
            if written and not written.endswith(b"\n"):
                file.truncate(written.rfind(b"\n") + 1)
            file.write(line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def _parse(self, line: bytes, number: int) -> Mark:
        try:
            record = json.loads(line)
            rows = tuple(record["rows"])
            mark = Mark(record["reference"], rows, record["bad"], record["why"], record["when"])
        except (ValueError, KeyError, TypeError, RecursionError):
            raise self._refused(number) from None
        texts = (mark.reference, mark.why or "", mark.when)
        right = all(type(row) is int and 0 <= row < self.count for row in rows)
        if not (right and type(mark.bad) is bool and all(isinstance(t, str) for t in texts)):
            raise self._refused(number)
        return mark

    def _refused(self, number: int) -> EvidenceError:
        return EvidenceError(
            f"{str(self.path)!r}, line {number}: expected a mark of an image of this index; remove "
            "the line if you do not know its origin."
        )
