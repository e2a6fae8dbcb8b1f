"""Hierarchies induced from a classifier: agglomerative clustering of its class weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nbdt.errors import NBDTError, listed
from nbdt.hierarchy import Hierarchy
from nbdt.nodes import Node

from .naming import leaf_label

LINKAGES = ("average", "ward", "complete")


def induce(weights: ArrayLike, classes: Sequence[str], *, linkage: str = "average") -> Hierarchy:
    """A binary tree of classes whose weight vectors point in similar directions.

    Rows are scaled to unit length and merged pairwise, nearest clusters first (Wan et al., NBDT,
    ICLR 2021, use Ward's criterion). Inner nodes are named after their leaves.

    Args:
        weights: (classes, features), the last linear layer's weight.
        classes: class names in the order of the rows.
        linkage: "average", "ward" or "complete": what makes two clusters near.

    Raises:
        NBDTError: another shape, rows that are zero or not finite, or an unknown linkage.
    """
    from scipy.cluster.hierarchy import linkage as agglomerate

    if linkage not in LINKAGES:
        raise NBDTError(f"Unknown linkage {linkage!r}; choose one of {', '.join(LINKAGES)}.")
    merges = agglomerate(_unit_rows(weights, classes), method=linkage)
    return _from_merges(merges, list(classes))


def _unit_rows(weights: ArrayLike, classes: Sequence[str]) -> NDArray[np.float64]:
    rows = np.asarray(weights, dtype=np.float64)
    if rows.ndim != 2 or len(rows) != len(classes):
        raise NBDTError(
            f"Expected weights of shape ({len(classes)}, features), one row a class, got "
            f"{rows.shape}."
        )
    norms = np.linalg.norm(rows, axis=1)
    bad = [name for name, norm in zip(classes, norms, strict=True) if not 0 < norm < np.inf]
    if bad:
        raise NBDTError(f"The weights of class {listed(bad)} are zero or not finite.")
    return rows / norms[:, None]


def _from_merges(merges: NDArray[np.float64], classes: list[str]) -> Hierarchy:
    """SciPy's merge table to a hierarchy: row i makes cluster ``len(classes) + i``."""
    members: list[list[str]] = [[name] for name in classes]
    ids = list(classes)
    nodes: dict[str, Node] = {name: Node(name, None, name) for name in classes}
    for left, right in merges[:, :2].astype(int):
        joined = sorted(members[left] + members[right], key=classes.index)
        new = f"group {len(members) - len(classes) + 1}"
        while new in nodes:
            new += "'"
        for child in (left, right):
            nodes[ids[child]] = nodes[ids[child]]._replace(parent=new)
        nodes[new] = Node(new, None, leaf_label(joined))
        members.append(joined)
        ids.append(new)
    return Hierarchy(tuple(nodes.values()), tuple(classes))
