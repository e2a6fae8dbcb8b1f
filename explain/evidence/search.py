"""The nearest rows of an index inside ranges of rows: exactly, or with FAISS for millions.

Rows are sorted by class, classes in a tree's depth-first order, so that everything below a node is
one range. A path asks for two ranges a decision, and all of them share one matrix product.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .store import EvidenceError

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
Span = tuple[int, int]  # of positions in a row order: start, stop
Found = tuple[Rows, Floats]  # rows and their similarities, nearest first

CHUNK = 1 << 26  # bytes of float32 that a product converts at a time
KEPT = 2 << 30  # bytes; larger indexes are converted from float16 at each query
FEW = 4096  # rows of a class: below that, cells would save nothing


class Search(Protocol):
    """Finds nearest rows; `ExactSearch` and `FaissSearch` are two ways."""

    def nearest(
        self, query: Floats, order: Rows, spans: Sequence[Span], k: int, without: Rows
    ) -> list[Found]:
        """The `k` rows most similar to `query` in each span of `order`, `without` left out."""


class ExactSearch:
    """Cosine similarity with every row, by one matrix product.

    Args:
        embeddings: (rows, features) float16 of unit norm, memory-mapped perhaps. They are kept as
            float32 once they were needed, unless that took more than `KEPT` bytes.
    """

    def __init__(self, embeddings: NDArray[np.float16]) -> None:
        self.embeddings = embeddings
        self._kept: Floats | None = None

    def similarities(self, queries: Floats) -> Floats:
        """(rows,) for a query (features,); (rows, queries) for queries (features, queries).

        Raises:
            EvidenceError: the stored embeddings hold values that are not finite.
        """
        if self._kept is None and 2 * self.embeddings.nbytes <= KEPT:
            self._kept = units(self.embeddings)
        if self._kept is not None:
            return _finite(self._kept @ queries)
        step = max(1, CHUNK // (4 * self.embeddings.shape[1]))
        starts = range(0, len(self.embeddings), step)
        parts = [units(self.embeddings[at : at + step]) @ queries for at in starts]
        return _finite(np.concatenate(parts))

    def nearest(
        self, query: Floats, order: Rows, spans: Sequence[Span], k: int, without: Rows
    ) -> list[Found]:
        """See `Search`; every row is looked at once, however many spans there are."""
        similarities = self.similarities(query)
        similarities[without] = -np.inf
        sorted_by_class = similarities[order]
        cuts = sorted({cut for span in spans for cut in span})
        pieces = [best_of(sorted_by_class, np.arange(a, b), k) for a, b in pairwise(cuts)]
        place = {cut: index for index, cut in enumerate(cuts)}
        found = []
        for start, stop in spans:
            parts = [np.empty(0, np.int64), *pieces[place[start] : place[stop]]]
            best = best_of(sorted_by_class, np.concatenate(parts), k)
            best = best[np.isfinite(sorted_by_class[best])]
            found.append((order[best], sorted_by_class[best]))
        return found


def units(embeddings: NDArray[np.float16]) -> Floats:
    """float32 of unit length again, of which rounding to float16 left each a little short."""
    wide = embeddings.astype(np.float32)
    lengths = np.sqrt(np.einsum("rf,rf->r", wide, wide))
    wide /= np.maximum(lengths, 1e-12)[:, None]
    return wide


def best_of(values: Floats, among: Rows, k: int) -> Rows:
    """The `k` of the positions `among` with the largest values, in descending order."""
    own = values[among]
    if len(own) > k:
        kept = np.argpartition(own, len(own) - k)[-k:]
        among, own = among[kept], own[kept]
    return among[np.argsort(-own, kind="stable")]


def _finite(similarities: Floats) -> Floats:
    if not np.isfinite(similarities).all():
        raise EvidenceError(
            "The evidence index gives similarities that are not finite numbers: it is damaged, or "
            "the query is. Build the index again."
        )
    return similarities


class FaissSearch:
    """Approximate, for millions: one FAISS index of float16 vectors a class, made when opened.

    A range of rows holds whole classes, so the nearest of each class are all that is needed,
    whatever the tree. Classes of more than `FEW` rows are divided into about √rows cells.

    Args:
        embeddings: as for `ExactSearch`.
        labels: (rows,) int, their classes.
        probed: cells looked at in a class.

    Raises:
        EvidenceError: faiss is not installed.
    """

    def __init__(
        self, embeddings: NDArray[np.float16], labels: NDArray[np.int32], probed: int = 16
    ) -> None:
        self.faiss = _faiss()
        self.labels = labels
        order = np.argsort(labels, kind="stable")
        counts = np.bincount(labels)
        ends = np.cumsum(counts)
        self.rows = [order[end - count : end] for end, count in zip(ends, counts, strict=True)]
        self.indexes = [self._index(units(embeddings[rows]), probed) for rows in self.rows]

    def _index(self, vectors: Floats, probed: int) -> Any:
        count, features = vectors.shape
        kind, metric = self.faiss.ScalarQuantizer.QT_fp16, self.faiss.METRIC_INNER_PRODUCT
        if count <= FEW:
            index = self.faiss.IndexScalarQuantizer(features, kind, metric)
        else:
            cells, coarse = round(math.sqrt(count)), self.faiss.IndexFlatIP(features)
            index = self.faiss.IndexIVFScalarQuantizer(coarse, features, cells, kind, metric)
            index.nprobe = min(cells, probed)
            index.train(vectors)
        if count:
            index.add(vectors)
        return index

    def nearest(
        self, query: Floats, order: Rows, spans: Sequence[Span], k: int, without: Rows
    ) -> list[Found]:
        """See `Search`; every class is searched once, however many spans there are."""
        starts, at = [], 0
        while at < len(order):
            starts.append((at, int(self.labels[order[at]])))
            at += len(self.rows[starts[-1][1]])
        low, high = min(a for a, _ in spans), max(b for _, b in spans)
        found = {
            label: self._of_class(label, query, k, without)
            for at, label in starts
            if low <= at < high
        }
        results = []
        for start, stop in spans:
            parts = [found[label] for at, label in starts if start <= at < stop]
            rows = np.concatenate([np.empty(0, np.int64), *(rows for rows, _ in parts)])
            values = np.concatenate([np.empty(0, np.float32), *(values for _, values in parts)])
            best = best_of(values, np.arange(len(rows)), k)
            results.append((rows[best], values[best]))
        return results

    def _of_class(self, label: int, query: Floats, k: int, without: Rows) -> Found:
        own = self.rows[label]
        more = int((self.labels[without] == label).sum())
        values, places = self.indexes[label].search(query[None], min(k + more, len(own)))
        real = places[0] >= 0
        rows, values = own[places[0][real]], values[0][real]
        kept = ~np.isin(rows, without)
        if not np.isfinite(values).all():
            raise EvidenceError("The evidence index is damaged; build it again.")
        return rows[kept][:k], values[kept][:k]


def _faiss() -> Any:
    try:
        import faiss
    except ModuleNotFoundError:
        raise EvidenceError(
            "FAISS is not installed; pip install 'nbdt-vision[evidence]', or search exactly."
        ) from None
    return faiss
