"""The rows of a memory: labelled photographs, and which of them a name or a fit means."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..errors import NBDTError

ENDS = ("/", "\\", "!")  # before the end of a reference that names a row
LEAST = 8  # characters of an id that name a row

Halves = NDArray[np.float16]


@dataclass(frozen=True)
class Version:
    """One state of a memory."""

    number: int  # counted from 1
    when: str  # UTC, ISO 8601


@dataclass(frozen=True, eq=False)
class Rows:
    """All rows of one version, in the order of their ids."""

    ids: tuple[str, ...]  # SHA-256 of each file, hexadecimal
    features: Halves  # (rows, features) float16
    labels: tuple[str, ...]  # the id of a node of the hierarchy: a class, or a group
    references: tuple[str, ...]  # where each photograph came from
    by: tuple[str, ...]  # who added or last changed it
    why: tuple[str, ...]  # the reason given; "" if none
    active: NDArray[np.bool_]  # (rows,) bool; False where it was struck out
    added: tuple[str, ...]  # UTC, ISO 8601
    version: int  # of the table
    # (rows,) how much each counts, in times of the others of its label; by default 1
    weights: NDArray[np.float32] = field(default_factory=lambda: np.ones(0, np.float32))

    def __post_init__(self) -> None:
        if not len(self.weights):
            object.__setattr__(self, "weights", np.ones(len(self.ids), np.float32))

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def places(self) -> dict[str, int]:
        """The place of each id."""
        return {key: place for place, key in enumerate(self.ids)}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """A short name of each row, without the folders of this machine; `place` finds it by it."""
        short = [shortened(reference) for reference in self.references]
        times = Counter(short)
        pairs = zip(short, self.ids, strict=True)
        return tuple(name if times[name] == 1 else key[:12] for name, key in pairs)

    def place(self, row: str) -> int:
        """Return the place of a row; see `find`, which raises the same."""
        if row in self.places:
            return self.places[row]
        return find(row, self.ids, self.references)


def find(row: str, ids: Sequence[str], references: Sequence[str]) -> int:
    """Return the place of the row with this id, reference, end of a reference or beginning of an id.

    Raises NBDTError: no such row, or several.
    """
    ends = tuple(mark + row for mark in ENDS)
    found = (
        [n for n, key in enumerate(ids) if key == row]
        or [n for n, text in enumerate(references) if text == row]
        or [n for n, text in enumerate(references) if text.endswith(ends)]
        or [n for n, key in enumerate(ids) if len(row) >= LEAST and key.startswith(row)]
    )
    if len(found) == 1:
        return found[0]
    what = f"{len(found)} rows fit" if found else "no row has"
    raise NBDTError(
        f"Expected the id or the reference of one row of the memory; {what} {row!r}. "
        "`nbdt memory list` prints them."
    )


def sampled(
    active: NDArray[np.bool_], labels: NDArray[np.int64], weights: NDArray[np.float32], most: int
) -> NDArray[np.bool_]:
    """Return which rows a fit takes: the active ones or, of more than `most`, a sample.

    It has as many rows of each label, and all that do not weigh 1. Rows are in the order of their
    ids, which are digests: the first of a label are a random sample that other rows do not change.
    """
    if active.sum() <= most:
        return active
    rows = np.flatnonzero(active)
    _, place, counts = np.unique(labels[rows], return_inverse=True, return_counts=True)
    order = place.argsort(kind="stable")
    turn = np.empty_like(order)
    turn[order] = np.arange(len(order)) - (counts.cumsum() - counts)[place[order]]
    chosen = np.zeros_like(active)
    chosen[rows[(turn < most // len(counts)) | (weights[rows] != 1)]] = True
    return chosen


def shortened(reference: str) -> str:
    """Return the name of a file with its folder's, such as "cat/17.jpg"."""
    return "/".join(reference.replace("\\", "/").replace("!", "/").rsplit("/", 2)[-2:])
