"""An index of training images: embeddings, classes, where they came from, what people said of them.

It belongs to the network that made the embeddings, not to a hierarchy: an edited tree uses the same
index at once.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Iterable
from functools import cached_property, partial
from pathlib import Path

from torch import Tensor

from nbdt.decide import paths
from nbdt.errors import listed, nearest
from nbdt.model.fingerprint import embedding_hash
from nbdt.model.model import NBDT
from nbdt.progress import Progress, no_progress

from ..result.explanation import DecisionEvidence, Neighbour
from .build import Built, Data, build
from .marks import Mark, Marks
from .originals import Pictures
from .per_decision import NEIGHBOURS, Layout, ModelEvidence
from .search import ExactSearch, FaissSearch, Search
from .store import Column, EvidenceError, blob, read_columns, read_manifest

MARKS = "marks.jsonl"
SEARCHES = ("exact", "faiss")


class EvidenceIndex:
    """Embeddings of labelled images, on the disk or in memory; made by `build`, read by `load`.

    Attributes:
        manifest: what the index says of itself: embedding hash, classes, count, versions.
        folder: where it lies, None in memory.
        failed: after `build`, a message for each image that could not be read.
    """

    def __init__(
        self,
        built: Built,
        folder: Path | None,
        *,
        data: str | os.PathLike[str] | None = None,
        search: str = "exact",
    ) -> None:
        if search not in SEARCHES:
            raise EvidenceError(f"Unknown search {search!r}; choose {' or '.join(SEARCHES)}.")
        self.manifest = built.manifest
        self.folder = folder
        self.failed = built.failed
        self.classes: tuple[str, ...] = tuple(built.manifest["classes"])
        self._columns = built.columns
        self._search_name = search
        self._marks = Marks(folder / MARKS if folder else None, len(self))
        root = self.manifest.get("data") if data is None else data
        self._pictures = Pictures(built.columns, built.manifest["preprocessing"], root)
        self._layouts: dict[str, Layout] = {}

    @classmethod
    def build(
        cls,
        model: NBDT,
        data: Data,
        out: str | os.PathLike[str] | None = None,
        *,
        split: str | None = None,
        thumbnails: bool = False,
        patches: bool = False,
        progress: Progress = no_progress,
    ) -> EvidenceIndex:
        """Run labelled images through the model and keep their embeddings.

        Embeddings are stored as float16 of unit length, (count, features). Images that cannot be
        read are left out; `failed` says which.

        Args:
            model: in evaluation mode.
            data: a folder of class folders, a tar archive of one, or a sequence of `ImageSource`.
            out: a folder that must not exist and appears whole or not at all; None keeps the
                index in memory.
            split: the folder of splits inside the data, "train" for instance.
            thumbnails: store small pictures, so that the index can travel without the originals.
            patches: store the vectors of all regions, at most 256 bytes each, so that late
                interaction needs no second forward pass.
            progress: of the images while they are read.

        Raises:
            NBDTError: a model in training mode.
            EvidenceError: an existing folder, no readable image.
            NBDTError: labels that are no classes of the model, or unreadable data.
        """
        folder = None if out is None else Path(out)
        built = build(
            model,
            data,
            folder,
            split=split,
            thumbnails=thumbnails,
            patches=patches,
            progress=progress,
        )
        return cls(built, folder)

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike[str],
        *,
        data: str | os.PathLike[str] | None = None,
        search: str = "exact",
    ) -> EvidenceIndex:
        """The index that `build` wrote.

        Args:
            folder: it.
            data: where the original images lie now, if not where they were.
            search: "exact", or "faiss" for millions of images.

        Raises:
            EvidenceError: no index, a damaged or empty one, one of a newer release, marks that are
                not of it, or faiss is not installed.
        """
        root = Path(folder)
        manifest = read_manifest(root)
        built = Built(read_columns(root, manifest), manifest, ())
        return cls(built, root, data=data, search=search)

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
        """SHA-256 of what the index holds and of what is excluded from it at present."""
        hashed = hashlib.sha256(json.dumps(self.manifest, sort_keys=True).encode())
        hashed.update(self._columns["references"].tobytes())
        hashed.update(json.dumps(sorted(self.excluded)).encode())
        return hashed.hexdigest()

    @cached_property
    def exact(self) -> ExactSearch:
        """Similarities with every row."""
        return ExactSearch(self._columns["embeddings"])

    @cached_property
    def search(self) -> Search:
        """What finds nearest rows."""
        if self._search_name == "faiss":
            return FaissSearch(self._columns["embeddings"], self._columns["labels"])
        return self.exact

    def column(self, name: str) -> Column | None:
        """One of the stored arrays, see `nbdt.explain.evidence.store`; None if it is not stored."""
        return self._columns.get(name)

    def reference(self, row: int) -> str:
        """Where the image of a row came from."""
        stored = blob(self._columns["references"], self._columns["reference_ends"], row)
        return stored.decode(errors="surrogateescape")

    def label(self, row: int) -> str:
        """The class of the image of a row."""
        return self.classes[int(self._columns["labels"][row])]

    def neighbour(self, row: int, similarity: float) -> Neighbour:
        """The image of a row as a result."""
        reference = self.reference(row)
        opener = partial(self._pictures.open, row, reference)
        return Neighbour(reference, self.label(row), similarity, row, opener)

    # ---- nearest images -----------------------------------------------------------------------

    def for_model(self, model: NBDT) -> ModelEvidence:
        """The index as seen by a model and its present hierarchy; checks that they belong together.

        Raises:
            EvidenceError: the embeddings are another model's, or classes of the index are not the
                model's.
        """
        wanted, given = self.manifest["embedding_hash"], embedding_hash(model)
        if wanted != given:
            raise EvidenceError(
                f"This evidence was built with another network (embedding hash {wanted[:12]}…, "
                f"{self.manifest.get('architecture')!r}) than the model's ({given[:12]}…, "
                f"{model.architecture!r}): nearness would mean nothing. Build it again with: nbdt "
                "evidence build MODEL --data TRAIN"
            )
        key = model.hierarchy.hash
        if key not in self._layouts:
            labels = self._columns["labels"]
            self._layouts[key] = Layout.of(self.classes, labels, model.hierarchy)
        return ModelEvidence(self, model, self._layouts[key])

    def for_path(
        self, model: NBDT, features: Tensor, path: paths.Path, k: int = NEIGHBOURS
    ) -> tuple[DecisionEvidence, ...]:
        """`for_model(model).for_path(features, path, k)`, for a single image."""
        return self.for_model(model).for_path(features, path, k)

    # ---- marks --------------------------------------------------------------------------------

    @property
    def marks(self) -> tuple[Mark, ...]:
        """All that was said about images of this index, oldest first."""
        return tuple(self._marks.all)

    @property
    def excluded(self) -> frozenset[int]:
        """Rows that are marked bad."""
        return self._marks.excluded()

    def rows_of(self, reference: str) -> tuple[int, ...]:
        """The rows of an image, by its whole reference or by an unambiguous end of it.

        Raises:
            EvidenceError: unknown (the nearest are suggested) or ambiguous.
        """
        known = self._rows_by_reference
        if reference in known:
            return known[reference]
        ending = [name for name in known if name.endswith("/" + reference)]
        if len(ending) == 1:
            return known[ending[0]]
        if ending:
            raise EvidenceError(
                f"{len(ending)} images end in {reference!r}; say which: {listed(ending)}."
            )
        raise EvidenceError(
            f"There is no image {reference!r} in this evidence.{nearest(reference, known)}"
        )

    @cached_property
    def _rows_by_reference(self) -> dict[str, tuple[int, ...]]:
        found: dict[str, tuple[int, ...]] = {}
        for row in range(len(self)):
            name = self.reference(row)
            found[name] = (*found.get(name, ()), row)
        return found

    def mark(self, reference: str, *, bad: bool = True, why: str | None = None) -> Mark:
        """Exclude an image from now on, or with ``bad=False`` let it count again.

        One line is added to marks.jsonl; nothing else is written, and nothing is ever removed.

        Raises:
            EvidenceError: as `rows_of`, or `why` is too long.
            OSError: the line cannot be written.
        """
        rows = self.rows_of(reference)
        return self._marks.add(self.reference(rows[0]), rows, bad=bad, why=why)

    def without(self, references: Iterable[str]) -> EvidenceIndex:
        """The same index for one person, without images that they called bad evidence.

        It shares all columns with this one; nothing is written, and what is marked in it later
        stays in memory.

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
