"""Evidence for a model's paths: which rows lie below each node, and the nearest among them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nbdt.decide import paths
from nbdt.errors import listed
from nbdt.model.model import NBDT
from nbdt.tree.hierarchy import Hierarchy

from ..result.explanation import DecisionEvidence, Neighbour
from .build import forward, unit_embeddings
from .regions import (
    Floats,
    LateInteraction,
    feature_grid,
    late_interactions,
    projected,
    region_vectors,
    restored,
    strongest,
)
from .search import Found, Rows, Span
from .store import Column, EvidenceError

if TYPE_CHECKING:
    from .index import EvidenceIndex

NEIGHBOURS = 5


@dataclass(frozen=True, eq=False)
class Layout:
    """Rows sorted by class in a tree's depth-first order: each node is a range of them."""

    order: Rows
    spans: tuple[Span, ...]  # of each node

    @classmethod
    def of(cls, names: Sequence[str], labels: Column, hierarchy: Hierarchy) -> Layout:
        """From each row's label, an index into `names`.

        Raises:
            EvidenceError: a row's class is not one of the hierarchy's.
        """
        present = np.unique(labels)
        unknown = sorted({names[label] for label in present} - set(hierarchy.classes))
        if unknown:
            raise EvidenceError(
                f"The evidence has images of {len(unknown)} classes that the model does not know: "
                f"{listed(unknown)}. Build it again for this model."
            )
        rank = {hierarchy.classes[c]: place for place, c in enumerate(hierarchy.leaf_order)}
        ranks = np.array([rank.get(name, 0) for name in names])[labels]
        counts = np.bincount(ranks, minlength=hierarchy.num_classes)
        ends = np.concatenate([[0], np.cumsum(counts)]).tolist()
        spans = [(ends[span.start], ends[span.stop]) for span in hierarchy.spans]
        return cls(np.argsort(ranks, kind="stable"), tuple(spans))


@dataclass(frozen=True, eq=False)
class ModelEvidence:
    """An index checked for a model: what `explain` asks. Make it with `EvidenceIndex.for_model`."""

    index: EvidenceIndex
    model: NBDT
    layout: Layout = field(repr=False)

    def for_path(
        self,
        features: Tensor,
        path: paths.Path,
        k: int = NEIGHBOURS,
        *,
        without: Collection[int] | None = None,
    ) -> tuple[DecisionEvidence, ...]:
        """The nearest training images on both sides of every decision, by one matrix product.

        Args:
            features: (features,), the image's pooled features.
            path: of the model's present hierarchy.
            k: how many images a side, at most.
            without: rows to leave out; by default those that are marked bad.

        Returns:
            One a decision. A side has fewer than k where the index has fewer.

        Raises:
            EvidenceError: features of another width or not finite, or k below 1.
        """
        if k < 1:
            raise EvidenceError(f"Expected k of at least 1, got {k}.")
        rows = self.index.excluded if without is None else without
        out = np.array(sorted(rows), dtype=np.int64)
        spans = [span for decision in path for span in self._sides(decision)]
        query = self._query(features)
        found = self.index.search.nearest(query, self.layout.order, spans, k, out)
        sides = [self._neighbours(rows) for rows in found]
        return tuple(map(DecisionEvidence, sides[::2], sides[1::2]))

    def _sides(self, decision: paths.Decision) -> tuple[Span, Span]:
        chosen, rejected = (
            self.model.hierarchy.index(decision.child_ids[child])
            for child in (decision.chosen, decision.runner_up)
        )
        return self.layout.spans[chosen], self.layout.spans[rejected]

    def _query(self, features: Tensor) -> Floats:
        width = self.index.manifest["columns"]["embeddings"]["shape"][1]
        if features.shape != (width,):
            raise EvidenceError(
                f"Expected the pooled features of one image, of shape ({width},), got "
                f"{tuple(features.shape)}."
            )
        query: Floats = unit_embeddings(features[None])[0]
        return query

    def _neighbours(self, found: Found) -> tuple[Neighbour, ...]:
        pairs = zip(*(values.tolist() for values in found), strict=True)
        return tuple(self.index.neighbour(row, similarity) for row, similarity in pairs)

    def look_closer(
        self,
        feature_map: Tensor,
        neighbours: Sequence[Neighbour],
        node_map: NDArray[np.float32] | None = None,
        *,
        strongest_positions: int = 5,
    ) -> tuple[LateInteraction, ...]:
        """Late interaction: which region of the query looks like which region of each neighbour.

        Args:
            feature_map: the image's own last feature map, without a batch axis.
            neighbours: of this index. Without stored patches their pictures run through the model.
            node_map: (height, width) map of a decision: only the positions where it speaks most
                for the chosen child then count, by how much it does.
            strongest_positions: how many positions that are.

        Raises:
            ImageError: neither patches nor a picture of a neighbour can be had.
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
        query, regions = self._regions(region_vectors(grid)[0], neighbours)
        return late_interactions(query, regions, shape, weights)

    def _regions(self, query: Floats, neighbours: Sequence[Neighbour]) -> tuple[Floats, Floats]:
        """The query's regions and the neighbours', (count, regions, features), to be compared."""
        stored, axes = self.index.column("patches"), self.index.column("projection")
        if stored is not None and axes is not None:
            rows = [neighbour.row for neighbour in neighbours]
            return projected(query, axes), restored(stored[rows])
        pictures = [neighbour.open() for neighbour in neighbours]
        with torch.inference_mode():
            feature_map, _ = forward(self.model, pictures, framed=True)
        return query, region_vectors(feature_grid(self.model, feature_map))
