"""From the merges of agglomerative clustering to parents: fewer levels, more children."""

from collections.abc import Sequence

import numpy as np

from .wordnet.database import FloatArray

CONTRACTED = -2
LEVELS = 8  # below the root, unless the caller gives the branching


def parents_of(merges: FloatArray) -> list[int]:
    """Return each cluster's parent, -1 for the root; row i of the merges is ``classes + i``."""
    size = len(merges) + 1
    parents = np.full(2 * size - 1, -1)
    parents[merges[:, :2].astype(np.int64)] = np.arange(size, 2 * size - 1)[:, None]
    return parents.tolist()


def contracted(merges: FloatArray, branching: int, spared: set[int], late: set[int]) -> list[int]:
    """Return `parents_of` after contraction (see `induced`); CONTRACTED for clusters that are gone."""
    parents, size = parents_of(merges), len(merges) + 1
    height = [0.0] * size + merges[:, 2].tolist()
    arity = [2] * len(parents)
    into = list(range(len(parents)))
    inner = [cluster for cluster in range(size, len(parents) - 1) if cluster not in spared]
    for cluster in sorted(inner, key=lambda c: (c in late, height[parents[c]] - height[c], c)):
        top = parents[cluster]
        while into[top] != top:
            top = into[top]
        if arity[top] + arity[cluster] - 1 <= branching:
            arity[top] += arity[cluster] - 1
            into[cluster] = top
    for cluster in reversed(inner):  # those above first
        into[cluster] = into[into[cluster]]
    return [
        CONTRACTED if into[cluster] != cluster else into[parent] if parent >= 0 else parent
        for cluster, parent in enumerate(parents)
    ]


def flattened(
    parents: Sequence[int], merges: FloatArray, branching: int, late: set[int]
) -> list[int]:
    """Return `contracted`'s parents with at most `LEVELS` levels, contracting nodes on longer paths.

    On each path that node goes first which leaves the fewest children (all counts up to `branching`
    are equal), has no name, and rises least in distance above its parent.
    """
    result, size = list(parents), len(merges) + 1
    height = [0.0] * size + merges[:, 2].tolist()
    children: dict[int, list[int]] = {}
    for cluster, parent in enumerate(result):
        children.setdefault(parent, []).append(cluster)

    def cost(cluster: int) -> tuple[int, bool, float, int]:
        top = result[cluster]
        count = len(children[top]) + len(children[cluster]) - 1
        return max(count, branching), cluster in late, height[top] - height[cluster], cluster

    def path(leaf: int) -> list[int]:
        """Return the inner nodes below the root on the way to a leaf."""
        above = []
        while result[leaf] >= 0:
            leaf = result[leaf]
            above.append(leaf)
        return above[:-1]

    for leaf in sorted(range(size), key=lambda leaf: -len(path(leaf))):
        while len(inner := path(leaf)) >= LEVELS:
            gone = min(inner, key=cost)
            top = result[gone]
            children[top].remove(gone)
            children[top] += children[gone]
            for child in children.pop(gone):
                result[child] = top
            result[gone] = CONTRACTED
    return result
