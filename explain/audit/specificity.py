"""Node specificity: does a decision's map point at that decision, or at the object in general?

The top regions of one decision's map are hidden; its own log-odds should fall by more than those of
the other decisions change. Log-odds of different decisions are made comparable by their spread over
the audited images. A map that is the same for every decision on a path cannot win more than half of
the comparisons along it: where it wins one, the same hidden regions lose it the other way round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nbdt.tree.hierarchy import Hierarchy

from .methods import Nodes

TOP = 0.2  # share of the regions that are hidden
Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Specificity:
    """One value a decision; NaN where there is nothing to compare with.

    Attributes:
        own: fall of the decision's log-odds, in its spreads over images.
        path: mean absolute change of the other decisions on its path, in theirs.
        path_share: share of the other decisions on its path that change by less than it falls.
        tree_share: the same among all other decisions of the tree.
    """

    own: Values
    path: Values
    path_share: Values
    tree_share: Values


def spreads(log_odds: Values) -> Values:
    """(images, nodes) to (nodes,): standard deviation over images, 1 where there is none."""
    found = log_odds.std(axis=0)
    return np.where(found > 1e-9, found, 1.0)


def specificity(
    before: Values, after: Values, nodes: Nodes, spread: Values, hierarchy: Hierarchy
) -> Specificity:
    """How specific maps are whose top regions were hidden.

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
    """For every inner node its likeliest child, on the path the child that was chosen."""
    chosen = {hierarchy.parents[node]: node for node in path}
    return [
        chosen.get(inner, max(hierarchy.children[inner], key=lambda child: log_odds[child]))
        for inner in hierarchy.inner_nodes
    ]


def _mean(values: NDArray[np.generic]) -> float:
    return float(values.mean()) if len(values) else float("nan")
