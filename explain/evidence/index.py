"""An index of training images: embeddings, classes, references and marks.

It belongs to the network that made the embeddings, not to a hierarchy: an edited hierarchy uses the
same index.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from nbdt.errors import listed, nearest
from nbdt.evidence import (
    Column,
    EvidenceError,
    Index,
    blob,
    read_columns,
    read_manifest,
)
from nbdt.model.fingerprint import embedding_hash
from nbdt.model.model import NBDT
from nbdt.progress import Progress, no_progress

from ..result.explanation import Neighbour
from .build import Data, build
from .marks import MARKS, Mark, Marks
from .pictures import Originals
from .search import NEIGHBOURS, ExactSearch, ModelEvidence, RowOrder, Rows, best_of, units

AMONG = 200  # nearest images of a marked one, whose own neighbours are checked
CHUNK = 16  # of them in one matrix product


class EvidenceIndex:
    """Embeddings of labelled images, on the disk or in memory; made by `build`, read by `load`.

    Attributes:
        manifest: embedding hash, classes, count, versions.
        folder: its folder, None in memory.
        failed: after `build`, a message for each unreadable image.
    """

    def __init__(
        self, built: Index, folder: Path | None, *, data: str | os.PathLike[str] | None = None
    ) -> None:
        self.manifest = built.manifest
        self.folder = folder
        self.failed = built.failed
        self.classes: tuple[str, ...] = tuple(built.manifest["classes"])
        self._columns = built.columns
        self._marks = Marks(folder / MARKS if folder else None, len(self))
        root = self.manifest.get("data") if data is None else data
        self._originals = Originals(built.columns, built.manifest["preprocessing"], root)
        self._row_orders: dict[str, RowOrder] = {}

    @classmethod
    def build(
        cls,
        model: NBDT,
        data: Data,
        out: str | os.PathLike[str] | None = None,
        *,
        split: str | None = None,
        thumbnails: bool = False,
        progress: Progress = no_progress,
    ) -> EvidenceIndex:
        """Run labelled images through the model and store their embeddings.

        Embeddings are float16 of unit length, (count, features). Unreadable images are left out and
        listed in `failed`.

        Args:
            model: in evaluation mode.
            data: a folder of class folders, a tar archive of one, or a sequence of `ImageSource`.
            out: a folder that must not exist, written atomically; None keeps the index in memory.
            split: a folder of splits inside the data, such as "train".
            thumbnails: store small pictures, so that the index can travel without the originals.
            progress: shows progress while images are read.

        Raises:
            NBDTError: a model in training mode.
            EvidenceError: an existing folder, no readable image.
            NBDTError: labels that are no classes of the model, or unreadable data.
        """
        folder = None if out is None else Path(out)
        built = build(model, data, folder, split=split, thumbnails=thumbnails, progress=progress)
        return cls(built, folder)

    @classmethod
    def load(
        cls, folder: str | os.PathLike[str], *, data: str | os.PathLike[str] | None = None
    ) -> EvidenceIndex:
        """Read the index that `build` wrote.

        Args:
            folder: the index.
            data: where the original images are now, if they moved.

        Raises:
            EvidenceError: no index, a damaged or empty one, one of a newer release, or marks of
                another index.
        """
        root = Path(folder)
        manifest = read_manifest(root)
        return cls(Index(read_columns(root, manifest), manifest), root, data=data)

    def __len__(self) -> int:
        return int(self.manifest["count"])

    def __repr__(self) -> str:
        place = f" at {os.fspath(self.folder)!r}" if self.folder else ""
        return f"EvidenceIndex({len(self):,} images of {len(self.classes)} classes{place})"

    @property
    def nbytes(self) -> int:
        """Bytes of all columns."""
        return sum(values.nbytes for values in self._columns.values())

    @property
    def hash(self) -> str:
        """SHA-256 of the content and of the excluded rows."""
        hashed = hashlib.sha256(json.dumps(self.manifest, sort_keys=True).encode())
        hashed.update(self._columns["references"].tobytes())
        hashed.update(json.dumps(sorted(self.excluded)).encode())
        return hashed.hexdigest()

    @cached_property
    def search(self) -> ExactSearch:
        """Finds nearest rows."""
        return ExactSearch(self._columns["embeddings"])

    def column(self, name: str) -> Column | None:
        """One of the stored arrays, see `nbdt.evidence`; None if it is not stored."""
        return self._columns.get(name)

    def reference(self, row: int) -> str:
        """Return the reference of a row's image, inside the data."""
        stored = blob(self._columns["references"], self._columns["reference_ends"], row)
        return stored.decode(errors="surrogateescape")

    def label(self, row: int) -> str:
        """Return the class of a row's image."""
        return self.classes[int(self._columns["labels"][row])]

    def neighbour(self, row: int, similarity: float) -> Neighbour:
        """Return a row's image as a result."""
        reference = self.reference(row)
        opener = partial(self._originals.open, row, reference)
        return Neighbour(reference, self.label(row), similarity, row, opener)

    def for_model(self, model: NBDT) -> ModelEvidence:
        """Prepare the index for a model and its hierarchy.

        Raises:
            EvidenceError: the embeddings are another model's, or classes of the index are not the
                model's.
        """
        expected, given = self.manifest["embedding_hash"], embedding_hash(model)
        if expected != given:
            raise EvidenceError(
                f"This evidence was built with another network (embedding hash {expected[:12]}…, "
                f"{self.manifest.get('architecture')!r}) than the model's ({given[:12]}…, "
                f"{model.architecture!r}), so similarities would mean nothing. Build it again: nbdt "
                "evidence build MODEL --data TRAIN"
            )
        key = model.hierarchy.hash
        if key not in self._row_orders:
            labels = self._columns["labels"]
            self._row_orders[key] = RowOrder.of(self.classes, labels, model.hierarchy)
        rows = self._row_orders[key]
        return ModelEvidence(model, rows, self.search, self.neighbour, lambda: self.excluded)

    @property
    def marks(self) -> tuple[Mark, ...]:
        """All marks of this index, oldest first."""
        return tuple(self._marks.all)

    @property
    def excluded(self) -> frozenset[int]:
        """Rows marked bad."""
        return self._marks.excluded()

    def rows_of(self, reference: str) -> tuple[int, ...]:
        """Return the rows of an image, given its reference or an unambiguous end of it.

        Raises:
            EvidenceError: unknown (the nearest are suggested) or ambiguous.
        """
        rows = self._rows_by_reference
        if reference in rows:
            return rows[reference]
        matches = [name for name in rows if name.endswith("/" + reference)]
        if len(matches) == 1:
            return rows[matches[0]]
        if matches:
            raise EvidenceError(
                f"{len(matches)} images end in {reference!r}; name one: {listed(matches)}."
            )
        raise EvidenceError(
            f"There is no image {reference!r} in this evidence.{nearest(reference, rows)}"
        )

    @cached_property
    def _rows_by_reference(self) -> dict[str, tuple[int, ...]]:
        rows: dict[str, tuple[int, ...]] = {}
        for row in range(len(self)):
            name = self.reference(row)
            rows[name] = (*rows.get(name, ()), row)
        return rows

    def mark(self, reference: str, *, bad: bool = True, why: str | None = None) -> Mark:
        """Exclude an image from now on, or include it again with ``bad=False``.

        Adds one line to marks.jsonl; nothing is ever removed.

        Raises:
            EvidenceError: as `rows_of`, or `why` is too long.
            OSError: the line cannot be written.
        """
        rows = self.rows_of(reference)
        return self._marks.add(self.reference(rows[0]), rows, bad=bad, why=why)

    def without(self, references: Iterable[str]) -> EvidenceIndex:
        """Return the index of one person, without images that they marked bad.

        It shares all columns with this index. Its marks stay in memory.

        Raises:
            EvidenceError: as `rows_of`.
        """
        marks = Marks(None, len(self))
        marks.all = list(self.marks)
        view = copy.copy(self)
        view._marks = marks  # noqa: SLF001 - of its own class
        for reference in references:
            view.mark(reference)
        return view


@dataclass(frozen=True)
class VoteChange:
    """An image of the index whose nearest neighbours change.

    Attributes:
        reference: the image.
        label: its class.
        before: classes of its k nearest others, nearest first, while the marked images counted.
        after: the same without them.
    """

    reference: str
    label: str
    before: tuple[str, ...]
    after: tuple[str, ...]

    @property
    def votes(self) -> tuple[str, str]:
        """The most frequent class of the neighbours, before and after; ties go to the nearest."""
        before, after = (
            Counter(side).most_common(1)[0][0] if side else "" for side in (self.before, self.after)
        )
        return before, after


def vote_changes(
    index: EvidenceIndex, rows: Collection[int], k: int = NEIGHBOURS, among: int = AMONG
) -> tuple[VoteChange, ...]:
    """List images of the index that have any of the rows among their k nearest others.

    Only the `among` images nearest to the rows are checked, nearest first. No model is needed.
    """
    others = index.excluded - set(rows)
    hidden = np.array(sorted(others), dtype=np.int64)
    marked = np.array(sorted(rows), dtype=np.int64)
    changes = []
    for row, ranked in _neighbourhoods(index, marked, hidden, k, among):
        before = ranked[:k]
        after = ranked[~np.isin(ranked, marked)][:k]
        if not np.array_equal(before, after):
            labels = [tuple(map(index.label, side.tolist())) for side in (before, after)]
            changes.append(VoteChange(index.reference(row), index.label(row), *labels))
    return tuple(changes)


def _neighbourhoods(
    index: EvidenceIndex, marked: Rows, hidden: Rows, k: int, among: int
) -> Iterator[tuple[int, Rows]]:
    """Yield images near the marked ones with their k + marked nearest others."""
    embeddings = index.search.embeddings
    nearness = index.search.similarities(units(embeddings[marked]).T).max(axis=1)
    nearness[hidden] = nearness[marked] = -np.inf
    everyone = np.arange(len(index))
    close = best_of(nearness, everyone, among)
    close = close[np.isfinite(nearness[close])]
    for at in range(0, len(close), CHUNK):
        some = close[at : at + CHUNK]
        similarities = index.search.similarities(units(embeddings[some]).T).T
        similarities[:, hidden] = -np.inf
        for row, to_others in zip(some.tolist(), similarities, strict=True):
            to_others[row] = -np.inf
            ranked = best_of(to_others, everyone, k + len(marked))
            yield row, ranked[np.isfinite(to_others[ranked])]
