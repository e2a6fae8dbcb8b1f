"""Hierarchies induced from a classifier: agglomerative clustering of its class weights.

The classes with the nearest unit-norm weight vectors are merged first (Wan et al., NBDT, ICLR
2021). `semantics` mixes in distances in WordNet; ranks then replace distances, since distances
between weights hardly vary. Merging gives a binary tree. A `branching` above 2 contracts nodes into
their parents, the smallest rise in distance first, as long as no node gets more children than that.
Nodes that alone have a WordNet concept stay; those that share one are contracted last.
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

from ..naming import apply_names, names_from_concepts
from ..wordnet.concepts import Concept, assign_concepts, class_synsets, fitting_concepts
from ..wordnet.database import FloatArray
from .distance import class_distances

CONTRACTED = -2
# If no group of classes has a name, wide nodes would leave a single large decision.
UNNAMED_BRANCHING = 3
Linkage = Literal["average", "ward", "complete"]
LINKAGES: dict[str, Linkage] = {"average": "average", "ward": "ward", "complete": "complete"}


@dataclass(frozen=True)
class InductionSettings:
    """Settings of `induce`.

    Attributes:
        linkage: distance between clusters: "average", "ward" or "complete".
        branching: most children of an inner node, 2 or more.
        semantics: share of the WordNet distance, in [0, 1].
    """

    linkage: Linkage
    branching: int
    semantics: float


# docs/hierarchies-table.md has the measurements and the reasons.
DEFAULTS = {
    None: InductionSettings("average", 2, 0.0),
    "marginal": InductionSettings("ward", 8, 0.5),
    "representative": InductionSettings("average", 2, 0.0),
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
    """Group the classes that a classifier finds alike; return a hierarchy with readable names.

    The same arguments give the same hierarchy. The length of a class's weight vector does not
    matter.

    Args:
        weights: (classes, features), the last linear layer's weight as an array or tensor; or a
            model with such a layer, found as `attach` finds it.
        classes: names in the order of the rows; a model with an `NBDTHead` knows them.
        rule: "marginal" or "representative"; it sets the defaults of the next three arguments.
            Without a rule, the hierarchy is binary, by average linkage of the weights alone.
        linkage: distance between clusters: "average", "ward" or "complete".
        branching: most children of a node; see the module. By default it is at most 3 if no
            group of the classes has a name.
        semantics: from 0, the weights alone, to 1, WordNet alone.
        wnids: WordNet id of each class, None if unknown; by default chosen by name.
        names: False labels nodes by their leaves and ignores names in `branching`.

    Raises:
        NBDTError: wrong shape, rows that are zero or not finite, an unknown linkage or rule, a
            branching below 2, semantics outside [0, 1] or for classes that WordNet lacks, or a
            model without a suitable layer.
    """
    rows, classes, wnids = _source(weights, classes, wnids)
    settings = _settings(rule, linkage, branching, semantics)
    units = _unit_rows(rows, classes)
    unknown: list[None] = [None] * len(classes)
    synsets: Sequence[int | None] = unknown
    if names or settings.semantics or wnids is not None:
        synsets = class_synsets(classes, wnids)
    if semantics:
        check_known_words(classes, synsets)
    merges = _merge(class_distances(units, synsets, settings.semantics), settings.linkage)
    leaves = unknown if wnids is None else wnids
    senses = synsets if names else unknown
    return _grow(merges, classes, leaves, senses, settings.branching, asked=branching is not None)


def check_known_words(classes: Sequence[str], synsets: Sequence[int | None]) -> None:
    """Check that WordNet knows enough classes for semantics above 0. Raises NBDTError."""
    if sum(synset is not None for synset in synsets) < 2:
        raise NBDTError(
            f"WordNet knows fewer than two of the classes {listed(classes)}, so "
            "semantics above 0 has no effect; give wnids, or semantics=0."
        )


def _settings(
    rule: str | None, linkage: str | None, branching: int | None, semantics: float | None
) -> InductionSettings:
    """Check the given settings and complete them with the rule's defaults."""
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
    return InductionSettings(LINKAGES[linkage], int(branching), float(semantics))


def _source(
    weights: Any, classes: Sequence[str] | None, wnids: Sequence[str | None] | None
) -> tuple[Any, list[str], Sequence[str | None] | None]:
    """Return the weights, class names and ids of an array, a tensor or a model."""
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
        hierarchy = heads[-1].hierarchy
        classes = hierarchy.classes
        wnids = hierarchy.class_wnids if wnids is None and any(hierarchy.class_wnids) else wnids
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
    # Scale first: squares near the ends of float64's range overflow or vanish.
    largest = np.abs(rows).max(axis=1, initial=0.0)
    bad = [name for name, size in zip(classes, largest, strict=True) if not 0 < size < np.inf]
    if bad:
        raise NBDTError(f"The weights of class {listed(bad)} are zero or not finite.")
    rows = rows / largest[:, None]
    units: FloatArray = rows / np.linalg.norm(rows, axis=1)[:, None]
    return units


def _merge(distances: FloatArray, linkage: Linkage) -> FloatArray:
    """Return SciPy's table of merges, (classes − 1, 4), by ascending height."""
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
    """Build the named hierarchy from the merges; a default branching may be reduced."""
    ids = _cluster_ids(classes)
    binary = _hierarchy(_parents(merges), ids, wnids)
    fitting = fitting_concepts(binary, synsets)
    distinct, named = _with_concepts(binary, fitting, ids)
    if not asked and distinct <= {len(ids) - 1}:
        branching = min(branching, UNNAMED_BRANCHING)
    result = _hierarchy(_contracted(merges, branching, distinct, named), ids, wnids)
    # A remaining node has the same leaves, so the same concepts, as before.
    before = {node: index for index, node in enumerate(binary.ids)}
    concepts = {node: fitting[before[result.ids[node]]] for node in result.inner_nodes}
    return apply_names(result, names_from_concepts(result, synsets, concepts))


def _cluster_ids(classes: Sequence[str]) -> list[str]:
    """Return the classes, then "group 1", "group 2", … in the order of merging."""
    taken, ids = set(classes), list(classes)
    for number in range(1, len(classes)):
        new = f"group {number}"
        while new in taken:
            new += "'"
        ids.append(new)
    return ids


def _parents(merges: FloatArray) -> list[int]:
    """Return each cluster's parent, -1 for the root; row i of the merges is ``classes + i``."""
    size = len(merges) + 1
    parents = np.full(2 * size - 1, -1)
    for column in (0, 1):
        parents[merges[:, column].astype(np.int64)] = np.arange(size, 2 * size - 1)
    return parents.tolist()


def _contracted(merges: FloatArray, branching: int, spared: set[int], late: set[int]) -> list[int]:
    """Return `_parents` after contraction (see the module); CONTRACTED for clusters that are gone."""
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
        CONTRACTED if into[cluster] != cluster else into[parent] if parent >= 0 else parent
        for cluster, parent in enumerate(parents)
    ]


def _hierarchy(
    parents: Sequence[int], ids: Sequence[str], wnids: Sequence[str | None]
) -> Hierarchy:
    """Build a hierarchy whose names are its ids; `wnids` are those of the leaves."""
    nodes = [
        Node(node, ids[parent] if parent >= 0 else None, node, wnid)
        for node, parent, wnid in zip_longest(ids, parents, wnids)
        if parent != CONTRACTED
    ]
    return Hierarchy(tuple(nodes), tuple(ids[: len(wnids)]))


def _with_concepts(
    binary: Hierarchy, fitting: Mapping[int, Sequence[Concept]], ids: Sequence[str]
) -> tuple[set[int], set[int]]:
    """Return the clusters that alone have a concept, and all that a concept names."""
    place = {node: cluster for cluster, node in enumerate(ids)}
    distinct = {place[binary.ids[node]] for node in assign_concepts(binary, fitting)}
    named = {node for node, row in fitting.items() if any(concept.names for concept in row)}
    return distinct, {place[binary.ids[node]] for node in named}
