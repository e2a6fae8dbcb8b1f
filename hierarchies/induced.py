"""Hierarchies induced from a classifier: agglomerative clustering of its class weights.

The classes with the nearest unit-norm weight vectors are merged first (Wan et al., NBDT, ICLR
2021). `semantics` mixes in distances in WordNet; ranks then replace distances, since distances
between weights hardly vary. Merging gives a binary tree. A `branching` above 2 contracts nodes into
their parents, the smallest rise in distance first, as long as no node gets more children than that.
Nodes that alone have a WordNet concept stay; those that share one are contracted last. Unless the
branching is given, paths of more than 8 levels are shortened too, which raises it where needed.
"""

from collections.abc import Sequence
from itertools import zip_longest
from numbers import Integral, Real
from typing import Any, Literal, NamedTuple, cast, get_args

import numpy as np

from nbdt.errors import NBDTError, check_known, listed
from nbdt.tree.hierarchy import Hierarchy
from nbdt.tree.nodes import Node

from .merges import CONTRACTED, contracted, flattened, parents_of
from .naming import apply_names, names_from_concepts
from .wordnet.concepts import assign_concepts, class_synsets, fitting_concepts
from .wordnet.database import FloatArray, IndexArray, WordNet, wordnet

BINS = 1 << 18  # bins that separate values for ranking
PART = 1_000_000  # values ranked at once
DIGITS = 12  # of a cosine, so that rounding noise does not order equal distances
UNNAMED_BRANCHING = 3  # without named groups, wide nodes would leave a single large decision
Linkage = Literal["average", "ward", "complete"]


class InductionSettings(NamedTuple):
    """Settings of `induce`, which describes them."""

    linkage: Linkage
    branching: int
    semantics: float


DEFAULTS = {  # docs/hierarchies-table.md has the measurements and the reasons
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
            Without a rule: binary, by average linkage of the weights alone.
        linkage: distance between clusters: "average", "ward" or "complete".
        branching: most children of a node; see the module. By default it is at most 3 if no
            group of the classes has a name, and higher where 8 levels need it.
        semantics: from 0, the weights alone, to 1, WordNet alone.
        wnids: WordNet id of each class, None if unknown; by default chosen by name.
        names: False labels nodes by their leaves and ignores names in `branching`.

    Raises NBDTError: wrong shape, rows that are zero or not finite, an unknown linkage or rule, a
    branching below 2, semantics outside [0, 1] or for classes that WordNet lacks, or a model
    without a suitable layer.
    """
    from scipy.cluster.hierarchy import linkage as linkage_table

    rows, classes, wnids = _source(weights, classes, wnids)
    settings = _settings(rule, linkage, branching, semantics)
    units = _unit_rows(rows, classes)
    unknown: list[None] = [None] * len(classes)
    look_up = names or settings.semantics or wnids is not None
    synsets: Sequence[int | None] = class_synsets(classes, wnids) if look_up else unknown
    if semantics:
        check_known_words(classes, synsets)
    distances = class_distances(units, synsets, settings.semantics)
    merges: FloatArray = linkage_table(distances, method=settings.linkage)
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
    if rule is not None:
        check_known("rule", rule, [*filter(None, DEFAULTS)])
    settings = DEFAULTS[rule]
    linkage = settings.linkage if linkage is None else linkage
    branching = settings.branching if branching is None else branching
    semantics = settings.semantics if semantics is None else semantics
    check_known("linkage", linkage, get_args(Linkage))
    if isinstance(branching, bool) or not isinstance(branching, Integral) or branching < 2:
        raise NBDTError(f"Expected a branching of 2 or more children, got {branching!r}.")
    if isinstance(semantics, bool) or not isinstance(semantics, Real) or not 0 <= semantics <= 1:
        raise NBDTError(f"Expected semantics to be a number in [0, 1], got {semantics!r}.")
    return InductionSettings(cast(Linkage, linkage), int(branching), float(semantics))


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

    if classes is None:
        heads = [part for part in weights.modules() if isinstance(part, NBDTHead)]
        if not heads:
            raise NBDTError(
                f"{type(weights).__name__} does not know its classes; give their names in the "
                "order of its outputs."
            )
        hierarchy = heads[-1].hierarchy
        classes = hierarchy.classes
        wnids = hierarchy.class_wnids if wnids is None and any(hierarchy.class_wnids) else wnids
    is_linear = isinstance(weights, nn.Linear)
    rows = weights.weight if is_linear else class_weights(weights, len(classes))
    return rows, list(classes), wnids


def _unit_rows(weights: Any, classes: Sequence[str]) -> FloatArray:
    if hasattr(weights, "detach"):  # a tensor, which may be on a GPU or in half precision
        weights = weights.detach().double().cpu().numpy()
    rows = np.asarray(weights, dtype=np.float64)
    if rows.ndim != 2 or len(rows) != len(classes):
        raise NBDTError(
            f"Expected weights of shape ({len(classes)}, features), one row a class, got {rows.shape}."
        )
    if len(rows) < 2:
        raise NBDTError(f"A hierarchy needs two or more classes, got {len(rows)}.")
    # Scale first: squares near the ends of float64's range overflow or vanish.
    largest = np.abs(rows).max(axis=1, initial=0.0)
    bad = [name for name, size in zip(classes, largest, strict=True) if not 0 < size < np.inf]
    if bad:
        raise NBDTError(f"The weights of class {listed(bad)} are zero or not finite.")
    rows = rows / largest[:, None]
    units: FloatArray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return units


def _grow(
    merges: FloatArray,
    classes: Sequence[str],
    wnids: Sequence[str | None],
    synsets: Sequence[int | None],
    branching: int,
    *,
    asked: bool,
) -> Hierarchy:
    """Build the named hierarchy from SciPy's merges; a default branching may be reduced."""
    ids = _cluster_ids(classes)
    cluster = {node: number for number, node in enumerate(ids)}
    binary = _hierarchy(parents_of(merges), ids, wnids)
    fitting = fitting_concepts(binary, synsets)
    by_id = {binary.ids[node]: concepts for node, concepts in fitting.items()}
    distinct = {cluster[binary.ids[node]] for node in assign_concepts(binary, fitting)}
    named = {cluster[node] for node, concepts in by_id.items() if any(c.names for c in concepts)}
    if not asked and distinct <= {len(ids) - 1}:
        branching = min(branching, UNNAMED_BRANCHING)
    parents = contracted(merges, branching, distinct, named)
    if not asked:
        parents = flattened(parents, merges, branching, named)
    result = _hierarchy(parents, ids, wnids)
    # A remaining node has the same leaves, so the same concepts, as before.
    concepts = {node: by_id[result.ids[node]] for node in result.inner_nodes}
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


def class_distances(
    units: FloatArray, synsets: Sequence[int | None], semantics: float
) -> FloatArray:
    """Return distances, condensed as in SciPy: Euclidean at semantics 0, else ranks in [0, 1].

    The mixture is ``(1 − semantics) · rank(weights) + semantics · rank(WordNet)``. A pair with a
    class that WordNet does not know, None in `synsets` (classes,), keeps the rank of its weights.
    `units` are (classes, features), rows of length 1.
    """
    distances = _euclidean(units)
    if not semantics or sum(synset is not None for synset in synsets) < 2:
        return distances
    distances = _ranks(distances)
    meaning = _ranks(_jiang_conrath(synsets, wordnet()))
    meaning -= distances
    meaning *= semantics
    np.nan_to_num(meaning, copy=False, nan=0.0)
    distances += meaning
    return distances


def _euclidean(units: FloatArray) -> FloatArray:
    """Return distances between rows of length 1, ``sqrt(2 − 2 cos)``."""
    from scipy.spatial.distance import squareform

    distances: FloatArray = squareform(units @ units.T, checks=False)
    np.subtract(1.0, distances, out=distances)
    np.round(distances, DIGITS, out=distances)
    np.clip(distances, 0.0, None, out=distances)
    distances *= 2.0
    return np.sqrt(distances, out=distances)


def _jiang_conrath(synsets: Sequence[int | None], net: WordNet) -> FloatArray:
    """Return ``IC(a) + IC(b) − 2 IC(most informative common ancestor)``; NaN for unknown classes.

    Jiang and Conrath (1997), with the intrinsic information content of Seco et al. (2004).
    """
    places = np.array([place for place, synset in enumerate(synsets) if synset is not None])
    known = np.array([synset for synset in synsets if synset is not None])
    rows, ancestors = net.closure(known)
    content = net.information_content
    content_of = np.full(len(synsets), np.nan)
    content_of[places] = content[known]
    # By ascending content, so that the most informative shared ancestor is written last.
    order = np.lexsort((ancestors, content[ancestors]))
    place, ancestor = places[rows[order]], ancestors[order]
    members, above = _grouped(ancestor, place), _grouped(place, ancestor)
    distances = np.empty(len(synsets) * (len(synsets) - 1) // 2)
    start, shared = 0, np.zeros(len(synsets))
    for row in range(len(synsets) - 1):
        shared[:] = 0
        for synset in above.get(row, ()):
            shared[members[synset]] = content[synset]
        part = distances[start : start + len(synsets) - row - 1]
        part[:] = content_of[row] + content_of[row + 1 :] - 2 * shared[row + 1 :]
        start += len(part)
    return np.round(distances, DIGITS, out=distances)


def _grouped(key: IndexArray, value: IndexArray) -> dict[int, IndexArray]:
    order = np.argsort(key, kind="stable")
    unique, first = np.unique(key[order], return_index=True)
    return dict(zip(unique.tolist(), np.split(value[order], first[1:]), strict=True))


def _ranks(values: FloatArray) -> FloatArray:
    """Replace each value by its mid-rank, from 0 to 1, in place; NaN stays.

    Values in the same of BINS equal bins tie: sorting would take longer than the clustering.
    """
    low, high = np.nanmin(values), np.nanmax(values)
    scale = (BINS - 1) / (high - low) if high > low else 0.0
    counts = np.zeros(BINS, dtype=np.int64)
    parts = [values[start : start + PART] for start in range(0, len(values), PART)]
    for part in parts:
        known = part[~np.isnan(part)]
        counts += np.bincount(((known - low) * scale).astype(np.int32), minlength=BINS)
    ranks = (np.cumsum(counts) - counts / 2) / counts.sum()
    for part in parts:
        known = ~np.isnan(part)
        part[known] = ranks[((part[known] - low) * scale).astype(np.int32)]
    return values
