"""Exact search for the nearest rows of an index, on both sides of each decision.

Rows are sorted by class, and classes in the hierarchy's depth-first order, so all rows under a node
are one range. A path needs two ranges a decision; all of them share one matrix product.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nbdt.decide import paths
from nbdt.errors import listed
from nbdt.evidence import Column, EvidenceError, unit_embeddings
from nbdt.model.model import NBDT
from nbdt.tree.hierarchy import Hierarchy

from ..result.explanation import DecisionEvidence, Neighbour
from .build import forward
from .regions import LateInteraction, feature_grid, late_interactions, region_vectors, strongest

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
Span = tuple[int, int]  # of positions in a row order: start, stop
Nearest = tuple[Rows, Floats]  # rows and their similarities, nearest first

NEIGHBOURS = 5
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


# ---- decisions -------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class RowOrder:
    """Rows sorted by class in a hierarchy's depth-first order, so that each node is a range."""

    order: Rows
    spans: tuple[Span, ...]  # of each node

    @classmethod
    def of(cls, names: Sequence[str], labels: Column, hierarchy: Hierarchy) -> RowOrder:
        """Sort rows by their labels, which are indices into `names`.

        Raises:
            EvidenceError: a row's class is not one of the hierarchy's.
        """
        present = np.unique(labels)
        unknown = sorted({names[label] for label in present} - set(hierarchy.classes))
        if unknown:
            raise EvidenceError(
                f"The evidence has images of {len(unknown)} classes that the model does not have: "
                f"{listed(unknown)}. Build it again for this model."
            )
        rank = {hierarchy.classes[c]: position for position, c in enumerate(hierarchy.leaf_order)}
        ranks = np.array([rank.get(name, 0) for name in names])[labels]
        counts = np.bincount(ranks, minlength=hierarchy.num_classes)
        ends = np.concatenate([[0], np.cumsum(counts)]).tolist()
        spans = [(ends[span.start], ends[span.stop]) for span in hierarchy.spans]
        return cls(np.argsort(ranks, kind="stable"), tuple(spans))


@dataclass(frozen=True, eq=False)
class ModelEvidence:
    """An index checked for a model; made by `EvidenceIndex.for_model`.

    Attributes:
        model: the model whose embeddings the index has.
        rows: the index's rows in the order of the model's hierarchy.
        search: finds nearest rows.
        neighbour: makes a result of a row and a similarity.
        excluded: returns the rows that are marked bad.
    """

    model: NBDT
    rows: RowOrder = field(repr=False)
    search: ExactSearch = field(repr=False)
    neighbour: Callable[[int, float], Neighbour] = field(repr=False)
    excluded: Callable[[], frozenset[int]] = field(repr=False)

    def for_path(
        self,
        features: Tensor,
        path: paths.Path,
        k: int = NEIGHBOURS,
        *,
        without: Collection[int] | None = None,
    ) -> tuple[DecisionEvidence, ...]:
        """Find the nearest training images on both sides of every decision, by one matrix product.

        Args:
            features: (features,), the image's pooled features.
            path: of the model's hierarchy.
            k: images a side, at most.
            without: rows to leave out; by default those marked bad.

        Returns:
            One result a decision; a side has fewer than k images if the index has fewer.

        Raises:
            EvidenceError: features of another width or not finite, or k below 1.
        """
        if k < 1:
            raise EvidenceError(f"Expected k of at least 1, got {k}.")
        left_out = sorted(self.excluded() if without is None else without)
        spans = [span for decision in path for span in self._sides(decision)]
        query = self._query(features)
        nearest = self.search.nearest(
            query, self.rows.order, spans, k, np.array(left_out, dtype=np.int64)
        )
        sides = [self._neighbours(side) for side in nearest]
        return tuple(map(DecisionEvidence, sides[::2], sides[1::2]))

    def _sides(self, decision: paths.Decision) -> tuple[Span, Span]:
        chosen, rejected = (
            self.model.hierarchy.index(decision.child_ids[child])
            for child in (decision.chosen, decision.runner_up)
        )
        return self.rows.spans[chosen], self.rows.spans[rejected]

    def _query(self, features: Tensor) -> Floats:
        width = self.search.embeddings.shape[1]
        if features.shape != (width,):
            raise EvidenceError(
                f"Expected the pooled features of one image, of shape ({width},), got "
                f"{tuple(features.shape)}."
            )
        query: Floats = unit_embeddings(features[None])[0]
        return query

    def _neighbours(self, nearest: Nearest) -> tuple[Neighbour, ...]:
        pairs = zip(*(values.tolist() for values in nearest), strict=True)
        return tuple(self.neighbour(row, similarity) for row, similarity in pairs)

    def look_closer(
        self,
        feature_map: Tensor,
        neighbours: Sequence[Neighbour],
        node_map: NDArray[np.float32] | None = None,
        *,
        strongest_positions: int = 5,
    ) -> tuple[LateInteraction, ...]:
        """Match the regions of the query to the regions of each neighbour.

        Args:
            feature_map: the image's own last feature map, without a batch axis.
            neighbours: of this index; their pictures run through the model.
            node_map: (height, width) map of a decision; then only the positions that support the
                chosen child most count, weighted by its values.
            strongest_positions: the number of these positions.

        Raises:
            ImageError: the picture of a neighbour cannot be opened.
            NBDTError: a feature map that is no grid, or a node map of another resolution.
        """
        if not neighbours:
            return ()
        grid = feature_grid(self.model, feature_map[None])
        shape = (grid.shape[2], grid.shape[3])
        weights = None
        if node_map is not None:
            if node_map.shape != shape:
                raise EvidenceError(
                    f"Expected a node map of the feature map's {shape} positions, got "
                    f"{node_map.shape}."
                )
            weights = strongest(node_map, strongest_positions)
        with torch.inference_mode():
            pictures = [neighbour.open() for neighbour in neighbours]
            theirs, _ = forward(self.model, pictures, framed=True)
        regions = region_vectors(feature_grid(self.model, theirs))
        return late_interactions(region_vectors(grid)[0], regions, shape, weights)


@dataclass(frozen=True)
class DecisionChange:
    """A decision whose evidence changes.

    Attributes:
        decision: of the path.
        before: while the images counted.
        after: without them.
    """

    decision: paths.Decision
    before: DecisionEvidence
    after: DecisionEvidence


def path_changes(
    evidence: ModelEvidence,
    features: Tensor,
    path: paths.Path,
    rows: Collection[int],
    k: int = NEIGHBOURS,
) -> tuple[DecisionChange, ...]:
    """Compare the evidence of a path with and without some rows, where it contains them.

    Args:
        evidence: from `EvidenceIndex.for_model`.
        features: (features,), as in `ModelEvidence.for_path`.
        path: of the same image.
        rows: rows to leave out, marked already or not.
        k: images a side.
    """
    others = evidence.excluded() - set(rows)
    before = evidence.for_path(features, path, k, without=others)
    after = evidence.for_path(features, path, k, without=others | set(rows))
    changes = map(DecisionChange, path, before, after)
    return tuple(change for change in changes if change.before != change.after)
