"""Exact search for the nearest rows of an index inside ranges of rows.

Rows are sorted by class, and classes in the hierarchy's depth-first order, so all rows under a node
are one range. A path needs two ranges a decision; all of them share one matrix product.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from .store import EvidenceError

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
Span = tuple[int, int]  # of positions in a row order: start, stop
Nearest = tuple[Rows, Floats]  # rows and their similarities, nearest first

CHUNK = 1 << 26  # bytes of float32 that a product converts at a time
IN_MEMORY = 2 << 30  # bytes; larger indexes are converted from float16 at each query


class ExactSearch:
    """Cosine similarity with every row, by one matrix product.

    Args:
        embeddings: (rows, features) float16 of unit length, possibly memory-mapped. The first query
            keeps them as float32 if that takes at most `IN_MEMORY` bytes.
    """

    def __init__(self, embeddings: NDArray[np.float16]) -> None:
        self.embeddings = embeddings
        self._wide: Floats | None = None

    def similarities(self, queries: Floats) -> Floats:
        """(rows,) for a query (features,); (rows, queries) for queries (features, queries).

        Raises:
            EvidenceError: the stored embeddings hold values that are not finite.
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
        self, query: Floats, order: Rows, spans: Sequence[Span], k: int, without: Rows
    ) -> list[Nearest]:
        """Return the rows most similar to a query in each span, by one pass over all rows.

        Args:
            query: (features,) of unit length.
            order: (rows,) the row at each position.
            spans: ranges of positions.
            k: rows a span, at most.
            without: rows to leave out.

        Raises:
            EvidenceError: as `similarities`.
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


def units(embeddings: NDArray[np.float16]) -> Floats:
    """Convert float16 embeddings to float32 of exactly unit length."""
    wide = embeddings.astype(np.float32)
    lengths = np.sqrt(np.einsum("rf,rf->r", wide, wide))
    wide /= np.maximum(lengths, 1e-12)[:, None]
    return wide


def best_of(values: Floats, among: Rows, k: int) -> Rows:
    """Return the `k` positions of `among` with the largest values, largest first."""
    candidates = values[among]
    if len(candidates) > k:
        top = np.argpartition(candidates, len(candidates) - k)[-k:]
        among, candidates = among[top], candidates[top]
    return among[np.argsort(-candidates, kind="stable")]


def _finite(similarities: Floats) -> Floats:
    if not np.isfinite(similarities).all():
        raise EvidenceError(
            "The evidence index gives similarities that are not finite numbers: the index or the "
            "query is damaged. Build the index again."
        )
    return similarities
