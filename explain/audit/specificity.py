"""Node specificity: does a map show what matters to its decision, or the object in general?

The top regions of one decision's map are hidden; its log-odds should fall more than those of the
other decisions change. Log-odds are divided by their spread over the audited images. One map for
all decisions of a path wins at most half of the comparisons: each win is a loss of the other
decision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nbdt.tree.hierarchy import Hierarchy

from .methods import Nodes
from .result import Values

TOP = 0.2  # share of the regions that are hidden


@dataclass(frozen=True, eq=False)
class Specificity:
    """One value for each decision; NaN if there is no other decision.

    Attributes:
        own: fall of the decision's log-odds, in spreads over images.
        path: mean absolute change of the other decisions on its path, in spreads.
        path_share: share of the other decisions on its path that change less than it falls.
        tree_share: the same among all other decisions of the hierarchy.
    """

    own: Values
    path: Values
    path_share: Values
    tree_share: Values


def spreads(log_odds: Values) -> Values:
    """Return the standard deviation over images of (images, nodes) log-odds; 1 where it is 0."""
    deviation = log_odds.std(axis=0)
    return np.where(deviation > 1e-9, deviation, 1.0)


def specificity(
    before: Values, after: Values, nodes: Nodes, spread: Values, hierarchy: Hierarchy
) -> Specificity:
    """Measure specificity from log-odds before and after the top regions are hidden.

    Args:
        before: (images, nodes) log-odds.
        after: (decisions, nodes) log-odds without each decision's top regions.
        nodes: for every image the chosen children on its path.
        spread: (nodes,), see `spreads`.
    """
    rows = []
    decision = 0
    for image, path in enumerate(nodes):
        others = _other_decisions(before[image], path, hierarchy)
        for node in path:
            fall = (before[image] - after[decision]) / spread
            on_path = np.abs(fall[[other for other in path if other != node]])
            in_tree = np.abs(fall[[other for other in others if other != node]])
            rows.append(
                (
                    fall[node],
                    _mean(on_path),
                    _mean(on_path < fall[node]),
                    _mean(in_tree < fall[node]),
                )
            )
            decision += 1
    return Specificity(*np.array(rows, dtype=np.float64).T)


def _other_decisions(log_odds: Values, path: Sequence[int], hierarchy: Hierarchy) -> list[int]:
    """Return for every inner node its likeliest child, or the chosen one on the path."""
    chosen = {hierarchy.parents[node]: node for node in path}
    return [
        chosen.get(inner, max(hierarchy.children[inner], key=lambda child: log_odds[child]))
        for inner in hierarchy.inner_nodes
    ]


def _mean(values: NDArray[np.generic]) -> float:
    return float(values.mean()) if len(values) else float("nan")
