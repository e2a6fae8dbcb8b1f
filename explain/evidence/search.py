"""The photographs of a memory that are nearest to an image, on both sides of each decision.

Rows are sorted by their labels, depth-first in the hierarchy, so all rows under a node are one
range. A path needs two ranges a decision; all of them share one matrix product.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nbdt.decide import paths
from nbdt.errors import NBDTError, listed
from nbdt.memory.memory import Memory
from nbdt.memory.rows import Rows
from nbdt.model.model import NBDT
from nbdt.model.remember import check_network
from nbdt.tree.hierarchy import Hierarchy

from ..result.explanation import DecisionEvidence, Neighbour
from .pictures import Pictures

Floats = NDArray[np.float32]
Places = NDArray[np.int64]
Span = tuple[int, int]  # of positions in a row order: start, stop
Nearest = tuple[Places, Floats]  # rows and their similarities, nearest first

NEIGHBOURS = 5
CHUNK = 1 << 26  # bytes of float32 that a product converts at a time
IN_MEMORY = 2 << 30  # bytes; larger memories are converted from float16 at each query


class ExactSearch:
    """Cosine similarity with every row, by one matrix product.

    Args:
        embeddings: (rows, features) float16 . The first query keeps them as float32 of unit
            length if that takes at most `IN_MEMORY` bytes.
    """

    def __init__(self, embeddings: NDArray[np.float16]) -> None:
        self.embeddings = embeddings
        self._wide: Floats | None = None

    def similarities(self, queries: Floats) -> Floats:
        """(rows,) for a query (features,); (rows, queries) for queries (features, queries).

        Raises NBDTError: the stored embeddings hold values that are not finite.
        """
        if self._wide is None and 2 * self.embeddings.nbytes <= IN_MEMORY:
            self._wide = units(self.embeddings)
        if self._wide is not None:
            return _finite(self._wide @ queries)
        step = max(1, CHUNK // (4 * self.embeddings.shape[1]))
        starts = range(0, len(self.embeddings), step)
        parts = [units(self.embeddings[at : at + step]) @ queries for at in starts]
        return _finite(np.concatenate(parts))

    def nearest(
        self, query: Floats, order: Places, spans: Sequence[Span], k: int, without: Places
    ) -> list[Nearest]:
        """Return the rows most similar to a query in each span, by one pass over all rows.

        Args:
            query: (features,) of unit length.
            order: (rows,) the row at each position.
            spans: ranges of positions.
            k: rows a span, at most.
            without: rows to leave out.

        Raises NBDTError: as `similarities`.
        """
        similarities = self.similarities(query)
        similarities[without] = -np.inf
        sorted_by_class = similarities[order]
        cuts = sorted({cut for span in spans for cut in span})
        pieces = [best_of(sorted_by_class, np.arange(a, b), k) for a, b in pairwise(cuts)]
        piece_at = {cut: index for index, cut in enumerate(cuts)}
        results = []
        for start, stop in spans:
            parts = [np.empty(0, np.int64), *pieces[piece_at[start] : piece_at[stop]]]
            best = best_of(sorted_by_class, np.concatenate(parts), k)
            best = best[np.isfinite(sorted_by_class[best])]
            results.append((order[best], sorted_by_class[best]))
        return results


def units(embeddings: NDArray[np.floating[Any]]) -> Floats:
    """Convert embeddings to float32 of exactly unit length."""
    wide = embeddings.astype(np.float32)
    lengths = np.sqrt(np.einsum("rf,rf->r", wide, wide))
    wide /= np.maximum(lengths, 1e-12)[:, None]
    return wide


def best_of(values: Floats, among: Places, k: int) -> Places:
    """Return the `k` positions of `among` with the largest values, largest first."""
    candidates = values[among]
    if len(candidates) > k:
        top = np.argpartition(candidates, len(candidates) - k)[-k:]
        among, candidates = among[top], candidates[top]
    return among[np.argsort(-candidates, kind="stable")]


def _finite(similarities: Floats) -> Floats:
    if not np.isfinite(similarities).all():
        raise NBDTError(
            "The memory gives similarities that are not finite numbers: it is damaged. Restore an "
            "earlier version, or build it again."
        )
    return similarities


# ---- decisions -------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class RowOrder:
    """Rows sorted by their labels, depth-first in a hierarchy, so that each node is a range."""

    order: Places
    spans: tuple[Span, ...]  # of each node

    @classmethod
    def of(cls, labels: Sequence[str], active: NDArray[np.bool_], hierarchy: Hierarchy) -> RowOrder:
        """Sort the active rows; a row whose label is a group is under that group and above its classes.

        Rows whose label is no node of the hierarchy are left out: a model may have been restricted.

        Raises NBDTError: no active row has a label of the hierarchy.
        """
        spans = hierarchy.spans
        depth_first = sorted(range(len(spans)), key=lambda n: (spans[n].start, -spans[n].stop))
        rank = {hierarchy.ids[node]: position for position, node in enumerate(depth_first)}
        ranks = np.array([rank.get(label, -1) for label in labels], dtype=np.int64)
        rows = np.flatnonzero(active & (ranks >= 0))
        if active.any() and not len(rows):
            raise NBDTError(
                f"None of the {int(active.sum()):,} photographs of the memory has a label that is a "
                f"class or group of this model. Their labels: {listed(sorted({*labels}))}."
            )
        starts = np.array([spans[node].start for node in depth_first])
        before = np.concatenate([[0], np.cumsum(np.bincount(ranks[rows], minlength=len(spans)))])
        ends = before[np.searchsorted(starts, [span.stop for span in spans])].tolist()
        begins = [int(before[rank[key]]) for key in hierarchy.ids]
        order = rows[np.argsort(ranks[rows], kind="stable")]
        return cls(order, tuple(zip(begins, ends, strict=True)))


class Evidence:
    """What a memory shows beside decisions.

    Args:
        memory: the labelled photographs.
        data: where the originals are now, if they moved.
        without: rows that do not count, by id.
        k: photographs a side of a decision, at most.

    Raises NBDTError: k below 1.
    """

    def __init__(
        self,
        memory: Memory,
        *,
        data: str | os.PathLike[str] | None = None,
        without: Collection[str] = (),
        k: int = NEIGHBOURS,
    ) -> None:
        if k < 1:
            raise NBDTError(f"Expected k of at least 1, got {k}.")
        self.memory, self.k = memory, k
        self.data = None if data is None else Path(data)
        self.without = frozenset(without)
        self._search: tuple[int, ExactSearch] | None = None
        self._orders: dict[tuple[int, str], RowOrder] = {}

    def view(self, without: Collection[str]) -> Evidence:
        """Return the same evidence for one person, without some rows, by id."""
        other = copy.copy(self)
        other.without = frozenset(without)
        return other

    @property
    def hash(self) -> str:
        """SHA-256 of what counts: the network, and the active rows with their labels."""
        rows = self.memory.rows
        counts = [row for row in zip(rows.ids, rows.labels, rows.active.tolist(), strict=True)
                  if row[2] and row[0] not in self.without]  # fmt: skip
        facts = [self.memory.table.facts["embedding_hash"], counts]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def for_model(self, model: NBDT) -> ModelEvidence:
        """Prepare the evidence for a model and its hierarchy.

        Raises NBDTError: embeddings of another network, or labels that are all unknown to the model.
        """
        table = self.memory.table
        check_network(model, table.facts, table.place)
        rows = self.memory.rows
        if self._search is None or self._search[0] != rows.version:
            self._search = rows.version, ExactSearch(rows.features)
            self._orders.clear()
        key = rows.version, model.hierarchy.hash
        if key not in self._orders:
            self._orders[key] = RowOrder.of(rows.labels, rows.active, model.hierarchy)
        hidden = [rows.places[row] for row in self.without if row in rows.places]
        opener = Pictures(table, model.preprocess.frame, self.data)
        order, search = self._orders[key], self._search[1]
        return ModelEvidence(model, rows, order, search, hidden, opener, self.k)


_known: WeakKeyDictionary[Memory, Evidence] = WeakKeyDictionary()


def evidence_of(given: Memory | Evidence) -> Evidence:
    """Return what a memory shows; it is prepared once."""
    if isinstance(given, Evidence):
        return given
    return _known.setdefault(given, Evidence(given))


@dataclass(frozen=True, eq=False)
class ModelEvidence:
    """Evidence that was checked for a model; made by `Evidence.for_model`."""

    model: NBDT
    rows: Rows = field(repr=False)  # of the memory
    order: RowOrder = field(repr=False)
    search: ExactSearch = field(repr=False)
    hidden: Sequence[int]  # rows that do not count
    pictures: Pictures = field(repr=False)
    k: int = NEIGHBOURS  # photographs a side, at most

    def for_path(self, features: Tensor, path: paths.Path) -> tuple[DecisionEvidence, ...]:
        """Find the nearest photographs on both sides of every decision, by one matrix product.

        Args:
            features: (features,), the image's pooled features.
            path: of the model's hierarchy.

        Returns:
            One result a decision; a side has fewer than k where the memory has fewer.

        Raises NBDTError: features of another width or not finite.
        """
        spans = [
            self.order.spans[self.model.hierarchy.index(decision.child_ids[child])]
            for decision in path for child in (decision.chosen, decision.runner_up)
        ]  # fmt: skip
        query, hidden = self._query(features), np.array(self.hidden, dtype=np.int64)
        nearest = self.search.nearest(query, self.order.order, spans, self.k, hidden)
        sides = [tuple(map(self.neighbour, at.tolist(), near.tolist())) for at, near in nearest]
        return tuple(map(DecisionEvidence, sides[::2], sides[1::2]))

    def _query(self, features: Tensor) -> Floats:
        width = self.search.embeddings.shape[1]
        if features.shape != (width,):
            raise NBDTError(
                f"Expected the pooled features of one image, of shape ({width},), got "
                f"{tuple(features.shape)}."
            )
        if not bool(torch.isfinite(features).all()):
            raise NBDTError("The features hold values that are not finite numbers.")
        row: Floats = units(features.detach().float().cpu().numpy()[None])[0]
        return row

    def neighbour(self, row: int, similarity: float) -> Neighbour:
        """Return a row's photograph as a result."""
        rows, tree = self.rows, self.model.hierarchy
        label = tree.names[tree.index(rows.labels[row])]
        opener = partial(self.pictures.open, rows.ids[row], rows.references[row])
        return Neighbour(rows.names[row], label, similarity, row, opener)
