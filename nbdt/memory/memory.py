"""`Memory`: labelled photographs that a model's last layer is fitted on."""

import copy
import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from PIL import Image
from torch import Tensor

from ..decide.head import DecisionRules
from ..errors import NBDTError, listed, nearest
from ..images.image import ImageError
from ..images.sources import ImageSource
from ..model.features import Features
from ..progress import Progress, no_progress
from ..storage import is_uri
from ..tree.class_names import labels_by_name, normalised_name
from ..tree.hierarchy import Hierarchy
from .attribution import Attribution
from .refit import MOST, Examples, FittedHead, Heads, examples_of, fit_head
from .rows import Halves, Rows, Version
from .table import Table

MAX_WHY = 2000  # characters of a reason

Photograph: TypeAlias = Image.Image | ImageSource
Embed: TypeAlias = Callable[..., Features]  # `nbdt.model.features.embed` for a model


@dataclass(frozen=True)
class Added:
    """What `Memory.add` did."""

    ids: tuple[str, ...]  # of the new rows
    failed: tuple[str, ...] = ()  # one line for each photograph that was not added


class Memory:
    """Labelled photographs as embeddings; each change is a version. `NBDT.memory` opens one.

    Args:
        hierarchy: whose nodes are the labels.
        embed: makes the features of photographs.
        shown: makes the small picture that is kept of a photograph.
    """

    def __init__(
        self, table: Table, hierarchy: Hierarchy, embed: Embed,
        shown: Callable[[Image.Image], bytes],
    ) -> None:  # fmt: skip
        self.table = table
        self.hierarchy = hierarchy
        self._embed = embed
        self._shown = shown
        self.heads = Heads(table.place, table.kept)
        self._examples: tuple[Rows, DecisionRules, Examples] | None = None
        self._attribution: Attribution | None = None

    def __len__(self) -> int:
        return sum(self.table.counts())

    def __repr__(self) -> str:
        active, struck = self.table.counts()
        return (
            f"Memory({active:,} photographs, {struck:,} struck out, version {self.version}, at "
            f"{self.table.place!r})"
        )

    @property
    def rows(self) -> Rows:
        """All rows of the newest version, read into this process."""
        return self.table.rows()

    @property
    def fit_rows(self) -> Rows:
        """The rows that a fit takes: all or, of more than 200,000, a sample with as many of each label."""
        return self.table.rows(MOST)

    @property
    def version(self) -> int:
        """The newest version."""
        return self.table.version

    def versions(self) -> list[Version]:
        """List the states that `restore` can bring back."""
        return self.table.versions()

    def with_table(self, table: Table) -> "Memory":
        """Return the memory of the same network with other rows."""
        return Memory(table, self.hierarchy, self._embed, self._shown)

    def under(self, hierarchy: Hierarchy) -> "Memory":
        """Return the same memory with the labels of another hierarchy over the same classes."""
        shared = copy.copy(self)
        shared.hierarchy = hierarchy
        return shared

    # ---- changed ------------------------------------------------------------------------

    def add(
        self,
        images: Sequence[Photograph],
        label: str | None = None,
        *,
        by: str = "",
        why: str = "",
        pictures: bool = False,
        progress: Progress = no_progress,
    ) -> Added:
        """Add labelled photographs; call `NBDT.refit` afterwards.

        A photograph that cannot be read, or that is there already, is left out and listed; the
        others are added together, or none of them.

        Args:
            images: photographs, or `ImageSource`s, such as `nbdt.images` lists.
            label: a class or a group, by name, id or WordNet id; by default each source's own.
            by: who adds them.
            why: the reason.
            pictures: keep small pictures, so that they can be shown without the originals.
            progress: of the photographs.

        Raises NBDTError: a label that is no node of the hierarchy, a reason that is too long, or a
        memory that cannot be written.
        """
        check_why(why)
        named, node_of = None if label is None else self.node_of(label), cache(self.node_of)
        labels, sources, failed = list[str](), list[ImageSource](), list[str]()
        for image in images:
            try:
                source = as_source(image)
            except ImageError as error:
                failed.append(str(error))
                continue
            try:
                if named is None and source.label is None and "(" in source.class_label:
                    raise NBDTError("expected a label; pass label=, a class or a group.")
                labels.append(named or node_of(source.class_label))
                sources.append(source)
            except NBDTError as error:
                failed.append(f"{source.reference!r}: {error}")
        found = self._embed(
            sources, look=self._shown if pictures else None, progress=progress,
            keep=all(isinstance(image, ImageSource) for image in images),
        )  # fmt: skip
        added = self.insert(found, [labels[place] for place in found.places], by=by, why=why)
        return Added(added.ids, (*failed, *added.failed, *found.failed))

    def insert(
        self, found: Features, labels: Sequence[str], *, by: str = "", why: str = ""
    ) -> Added:
        """Add photographs whose features are known, as `add` does.

        Args:
            found: their features; what was seen of each is its picture, or None.
            labels: ids of nodes.
        """
        first: dict[str, int] = {}
        keys = [digest.hex() for digest in found.keys]
        for n, key in enumerate(keys):
            first.setdefault(key, n)
        records = [
            {"id": key, "label": labels[n], "reference": _lasting(found.sources[n]), "by": by,
             "why": why, "active": True, "picture": found.seen[n]}
            for key, n in first.items()
        ]  # fmt: skip
        there = self.table.add(records, finite(found.values[[*first.values()]])) if first else {}
        failed = []
        for n, (key, source, label) in enumerate(zip(keys, found.sources, labels, strict=True)):
            if key in there or first[key] != n:
                known = there.get(key, labels[first[key]])
                other = f" as {known!r}; relabel that row" if known != label else ""
                failed.append(f"{source.reference!r} is in the memory already{other}.")
        return Added(tuple(key for key in first if key not in there), tuple(failed))

    def strike(self, row: str | Sequence[str], why: str, *, by: str = "") -> list[str]:
        """Strike photographs out: they take no part in the fit, and can be taken back.

        Args:
            row: id (or its beginning) or reference; or several.
            why: the reason.
            by: who says so.

        Returns:
            The ids.

        Raises NBDTError: no such row, or no reason.
        """
        if not why.strip():
            raise NBDTError("Say why the photograph is struck out (why=).")
        return self._set(row, {"active": False, "why": why, "by": by})

    def take_back(self, row: str | Sequence[str], why: str = "", *, by: str = "") -> list[str]:
        """Let photographs that were struck out count again. Returns and raises as `strike`."""
        return self._set(row, {"active": True, "why": why, "by": by})

    def relabel(
        self, row: str | Sequence[str], node: str, why: str = "", *, by: str = ""
    ) -> list[str]:
        """Give photographs another label: a class, or a group. Returns and raises as `strike`."""
        return self._set(row, {"label": self.node_of(node), "active": True, "why": why, "by": by})

    def restore(self, version: int) -> None:
        """Make the rows of an earlier version the newest ones. Raises NBDTError: no such version."""
        self.table.restore(version)

    def _set(self, row: str | Sequence[str], values: dict[str, Any]) -> list[str]:
        check_why(values["why"])
        keys = self.table.find([row] if isinstance(row, str) else row)
        self.table.update(keys, values)
        return keys

    def node_of(self, label: str) -> str:
        """Return the id of the node with this name, id or WordNet id.

        Raises NBDTError: there is none.
        """
        if label in self.hierarchy.ids:
            return label
        found = labels_by_name(self.hierarchy).get(normalised_name(label))
        if found is None:
            raise NBDTError(
                f"{label!r} is neither a class nor a group of the model."
                f"{nearest(label, {*self.hierarchy.names})} Its classes are "
                f"{listed(self.hierarchy.classes)}."
            )
        return self.hierarchy.ids[-1 - found if found < 0 else self.hierarchy.leaf_nodes[found]]

    def name_of(self, node: str) -> str:
        """Return the name of a node's id; the id itself where the hierarchy has no such node."""
        ids = self.hierarchy.ids
        return self.hierarchy.names[ids.index(node)] if node in ids else node

    # ---- fitted -------------------------------------------------------------------------

    def examples(self, rules: DecisionRules) -> Examples:
        """Return the active rows as a fit takes them; raises as `examples_of`."""
        if self.table.facts.get("directions_only"):
            raise NBDTError(
                f"The memory at {self.table.place!r} comes from an evidence index, which has no "
                "lengths of embeddings, so nothing can be fitted on it. Make a new one: nbdt memory "
                "build MODEL --data D --out M"
            )
        rows, known = self.fit_rows, self._examples
        if not rows.active.any():
            raise NBDTError(
                f"The memory at {self.table.place!r} has no active photographs, so nothing can be "
                "fitted on it. Add some, or restore an earlier version: nbdt memory versions MODEL "
                "lists them."
            )
        if known is None or known[0] is not rows or known[1] is not rules:
            self._examples = known = rows, rules, examples_of(rows, rules)
        return known[2]

    def attribution(self, fitted: FittedHead, rules: DecisionRules) -> Attribution:
        """Return what divides decisions among the active rows, made once for a fit.

        Raises NBDTError: as `examples`, or the memory has changed since the fit.
        """
        wanted, known = (fitted, self.examples(rules), rules), self._attribution
        if known is None or (known.fitted, known.examples, known.rules) != wanted:
            self._attribution = known = Attribution(*wanted)
        return known

    def fit(
        self, rules: DecisionRules, start: FittedHead | None, choose: bool = False,
        progress: Progress = no_progress,
    ) -> FittedHead:  # fmt: skip
        """Return the last layer of the active rows: the one that was kept, or a new fit.

        The same rows give the same weights, to the bit, while their head is kept.

        Args:
            start: a head to begin at.
            choose: choose the penalty again.

        Raises NBDTError: as `examples`.
        """
        examples = self.examples(rules)
        kept = None if choose else self.heads.get(examples.key)
        if kept is None:
            kept = fit_head(examples, rules, start, choose=choose, progress=progress)
            self.heads.put(kept)
        return kept


def as_source(image: Photograph) -> ImageSource:
    """Return a photograph as a source; a PIL image is known by its pixels."""
    if isinstance(image, ImageSource):
        return image
    named = str(getattr(image, "filename", "") or "")
    try:
        pixels = image.convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:  # a file that Pillow opened and cannot read
        raise ImageError(f"{named or 'a photograph'!r} cannot be read: {error}") from error
    reference = named or f"photograph {hashlib.sha256(pixels.tobytes()).hexdigest()[:12]}"
    return ImageSource(reference, None, lambda: pixels)


def _lasting(source: ImageSource) -> str:
    """Return a reference that means the same from every folder of this machine."""
    if not source.file or is_uri(source.file) or not source.reference.startswith(source.file):
        return source.reference
    return os.path.abspath(source.file) + source.reference[len(source.file) :]


def finite(values: Tensor) -> Halves:
    """Return features as float16. Raises NBDTError where they are not finite numbers."""
    half: Halves = values.half().numpy()
    if not np.isfinite(half).all():
        raise NBDTError("The model gives features that are not finite numbers in half precision.")
    return half


def check_why(why: str) -> None:
    """Raise NBDTError if a reason is too long."""
    if len(why) > MAX_WHY:
        raise NBDTError(f"Expected a reason of at most {MAX_WHY:,} characters, got {len(why):,}.")
