"""Hierarchies induced from a classifier: agglomerative clustering of its class weights.

Classes whose unit-norm weight vectors are near are merged first (Wan et al., NBDT, ICLR 2021).
`semantics` mixes in how near they are in WordNet; distances are then replaced by their ranks, since
those of weights hardly vary. Merging gives a binary tree. `branching` above 2 contracts nodes into
the ones above them, the least rise in distance first, wherever these then have no more children
than that. Nodes that have a WordNet concept to themselves are spared, and those that share one
come last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np

from nbdt.errors import NBDTError, listed
from nbdt.tree.hierarchy import Hierarchy
from nbdt.tree.nodes import Node

from ..naming.concepts import Concept, class_synsets, fitting_concepts
from ..naming.labels import owners
from ..naming.names import relabel, report
from ..wordnet.database import FloatArray
from .distance import class_distances

GONE = -2
# Where no group of classes has a name, wide nodes would leave nothing but one great decision.
UNNAMED_BRANCHING = 3
Linkage = Literal["average", "ward", "complete"]
LINKAGES: dict[str, Linkage] = {"average": "average", "ward": "ward", "complete": "complete"}


@dataclass(frozen=True)
class Settings:
    """How a tree is induced.

    Attributes:
        linkage: "average", "ward" or "complete": what makes two clusters near.
        branching: children that an inner node may have, 2 or more.
        semantics: share of the WordNet distance, in [0, 1].
    """

    linkage: Linkage
    branching: int
    semantics: float


# docs/hierarchies-table.md has the measurements and the reasons.
DEFAULTS = {
    None: Settings("average", 2, 0.0),
    "marginal": Settings("ward", 8, 0.5),
    "representative": Settings("average", 2, 0.0),
}


def induce(
    weights: Any,
    classes: Sequence[str] | None = None,
    *,
    rule: str | None = None,
    linkage: str | None = None,
    branching: int | None = None,
    semantics: float | None = None,
    wnids: Sequence[str | None] | None = None,
    names: bool = True,
) -> Hierarchy:
    """A tree of classes that a classifier finds alike, with readable names.

    The same arguments give the same tree; the length of a class's weight vector does not matter.

    Args:
        weights: (classes, features), the last linear layer's weight, as an array or a tensor; or
            a model that has such a layer, found as `attach` finds it.
        classes: names in the order of the rows; a model with an `NBDTHead` has them already.
        rule: "marginal" or "representative": it decides what is not given below. Without it the
            tree is binary, by average linkage, of weights alone.
        linkage: "average", "ward" or "complete": what makes two clusters near.
        branching: most children of a node; see the module. Not given, it is at most 3 where no
            group of the classes has a name.
        semantics: from 0, the weights alone, to 1, WordNet alone.
        wnids: WordNet ids of the classes, None where unknown; by default chosen by name.
        names: False labels nodes by their leaves and leaves names out of `branching`.

    Raises:
        NBDTError: another shape, rows that are zero or not finite, an unknown linkage or rule, a
            branching below 2, semantics outside [0, 1] or for classes that WordNet lacks, or a
            model without a fitting layer.
    """
    rows, classes, wnids = _source(weights, classes, wnids)
    settings = _settings(rule, linkage, branching, semantics)
    units = _unit_rows(rows, classes)
    unknown: list[None] = [None] * len(classes)
    synsets: Sequence[int | None] = unknown
    if names or settings.semantics or wnids is not None:
        synsets = class_synsets(classes, wnids)
    if semantics:
        check_meaning(classes, synsets)
    merges = _merge(class_distances(units, synsets, settings.semantics), settings.linkage)
    leaves = unknown if wnids is None else wnids
    senses = synsets if names else unknown
    return _grow(merges, classes, leaves, senses, settings.branching, asked=branching is not None)


def check_meaning(classes: Sequence[str], synsets: Sequence[int | None]) -> None:
    """Raises NBDTError if WordNet knows too few of the classes for semantics above 0."""
    if sum(synset is not None for synset in synsets) < 2:
        raise NBDTError(
            f"WordNet knows fewer than two of the classes {listed(classes)}, so semantics above 0 "
            "have no meaning; give wnids, or semantics=0."
        )


def _settings(
    rule: str | None, linkage: str | None, branching: int | None, semantics: float | None
) -> Settings:
    """The rule's defaults with what was given in their place, checked."""
    if rule not in DEFAULTS:
        rules = ", ".join(repr(known) for known in DEFAULTS if known)
        raise NBDTError(f"Unknown rule {rule!r}; choose one of {rules}.")
    settings = DEFAULTS[rule]
    linkage = settings.linkage if linkage is None else linkage
    branching = settings.branching if branching is None else branching
    semantics = settings.semantics if semantics is None else semantics
    if linkage not in LINKAGES:
        raise NBDTError(f"Unknown linkage {linkage!r}; choose one of {', '.join(LINKAGES)}.")
    if isinstance(branching, bool) or not isinstance(branching, Integral) or branching < 2:
        raise NBDTError(f"Expected a branching of 2 or more children, got {branching!r}.")
    if isinstance(semantics, bool) or not isinstance(semantics, Real) or not 0 <= semantics <= 1:
        raise NBDTError(f"Expected semantics to be a number in [0, 1], got {semantics!r}.")
    return Settings(LINKAGES[linkage], int(branching), float(semantics))


def _source(
    weights: Any, classes: Sequence[str] | None, wnids: Sequence[str | None] | None
) -> tuple[Any, list[str], Sequence[str | None] | None]:
    """Weights, class names and ids of what was given: an array, a tensor or a model."""
    if isinstance(classes, str) or not all(isinstance(name, str) for name in classes or ()):
        raise NBDTError(f"Expected a list of class names, got {classes!r}.")
    if not hasattr(weights, "named_modules"):
        if classes is None:
            raise NBDTError("Expected the names of the classes, in the order of the weights' rows.")
        return weights, list(classes), wnids
    from torch import nn

    from nbdt.decide.head import NBDTHead
    from nbdt.network.last_layer import class_weights

    heads = [part for part in weights.modules() if isinstance(part, NBDTHead)]
    if classes is None and not heads:
        raise NBDTError(
            f"{type(weights).__name__} does not know its classes; give their names in the order "
            "of its outputs."
        )
    if classes is None:
        tree = heads[-1].hierarchy
        classes = tree.classes
        carried = tree.class_wnids
        wnids = carried if wnids is None and any(carried) else wnids
    if isinstance(weights, nn.Linear):
        return weights.weight, list(classes), wnids
    return class_weights(weights, len(classes)), list(classes), wnids


def _unit_rows(weights: Any, classes: Sequence[str]) -> FloatArray:
    if hasattr(weights, "detach"):  # a tensor, which may be on a GPU or in half precision
        weights = weights.detach().double().cpu().numpy()
    rows = np.asarray(weights, dtype=np.float64)
    if rows.ndim != 2 or len(rows) != len(classes):
        raise NBDTError(
            f"Expected weights of shape ({len(classes)}, features), one row a class, got "
            f"{rows.shape}."
        )
    if len(rows) < 2:
        raise NBDTError(f"A hierarchy needs two or more classes, got {len(rows)}.")
    # Squares of rows near the ends of float64's range would not be finite, or zero.
    largest = np.abs(rows).max(axis=1, initial=0.0)
    bad = [name for name, size in zip(classes, largest, strict=True) if not 0 < size < np.inf]
    if bad:
        raise NBDTError(f"The weights of class {listed(bad)} are zero or not finite.")
    rows = rows / largest[:, None]
    units: FloatArray = rows / np.linalg.norm(rows, axis=1)[:, None]
    return units


def _merge(distances: FloatArray, linkage: Linkage) -> FloatArray:
    """SciPy's table of merges, (classes − 1, 4), by ascending height."""
    from scipy.cluster.hierarchy import linkage as agglomerate

    merges: FloatArray = agglomerate(distances, method=linkage)
    return merges


def _grow(
    merges: FloatArray,
    classes: Sequence[str],
    wnids: Sequence[str | None],
    synsets: Sequence[int | None],
    branching: int,
    *,
    asked: bool,
) -> Hierarchy:
    """The named tree of the merges; a branching that was not asked for may be less."""
    ids = _cluster_ids(classes)
    binary = _hierarchy(_parents(merges), ids, wnids)
    fitting = fitting_concepts(binary, synsets)
    own, named = _spared(binary, fitting, ids)
    if not asked and own <= {len(ids) - 1}:
        branching = min(branching, UNNAMED_BRANCHING)
    tree = _hierarchy(_contracted(merges, branching, own, named), ids, wnids)
    # A node that is left has the leaves, hence the concepts, that it had before.
    before = {node: index for index, node in enumerate(binary.ids)}
    kept = {node: fitting[before[tree.ids[node]]] for node in tree.inner_nodes}
    return relabel(tree, report(tree, synsets, kept))


def _cluster_ids(classes: Sequence[str]) -> list[str]:
    """The classes, then "group 1", "group 2", … in the order of merging."""
    taken, ids = set(classes), list(classes)
    for number in range(1, len(classes)):
        new = f"group {number}"
        while new in taken:
            new += "'"
        ids.append(new)
    return ids


def _parents(merges: FloatArray) -> list[int]:
    """The parent of each cluster, -1 for the root; row i of the merges makes ``classes + i``."""
    size = len(merges) + 1
    parents = np.full(2 * size - 1, -1)
    for column in (0, 1):
        parents[merges[:, column].astype(np.int64)] = np.arange(size, 2 * size - 1)
    return parents.tolist()


def _contracted(merges: FloatArray, branching: int, spared: set[int], late: set[int]) -> list[int]:
    """`_parents` after contraction (see the module); GONE for clusters that went into another."""
    size = len(merges) + 1
    parents = _parents(merges)
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
        GONE if into[cluster] != cluster else into[parent] if parent >= 0 else parent
        for cluster, parent in enumerate(parents)
    ]


def _hierarchy(
    parents: Sequence[int], ids: Sequence[str], wnids: Sequence[str | None]
) -> Hierarchy:
    """Nodes that are called by their ids; the first `wnids` are those of the leaves."""
    nodes = [
        Node(node, ids[parent] if parent >= 0 else None, node, wnid)
        for node, parent, wnid in zip_longest(ids, parents, wnids)
        if parent != GONE
    ]
    return Hierarchy(tuple(nodes), tuple(ids[: len(wnids)]))


def _spared(
    binary: Hierarchy, fitting: Mapping[int, Sequence[Concept]], ids: Sequence[str]
) -> tuple[set[int], set[int]]:
    """Clusters that have a concept to themselves, and those that a concept names at all."""
    place = {node: cluster for cluster, node in enumerate(ids)}
    own = {place[binary.ids[node]] for node in owners(binary, fitting)}
    named = {node for node, row in fitting.items() if any(concept.names for concept in row)}
    return own, {place[binary.ids[node]] for node in named}
