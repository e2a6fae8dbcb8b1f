"""Hierarchies of everyday groups over classes with WordNet ids: `readable`.

WordNet's upper levels ("instrumentality", "whole") mean nothing to most people. The file
`data/everyday-groups.xz` has groups that do ("car or truck", "wading bird") with the synsets that
they cover, and everyday names for WordNet's own synsets. `tools/build_readable.py` writes it.
"""

from __future__ import annotations

import json
import lzma
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nbdt.errors import NBDTError
from nbdt.tree.hierarchy import Hierarchy

from .data_file import DATA_FOLDER
from .database import WordNet, wordnet

FILE = "everyday-groups.xz"
ROOT = "all things"
MOST_CHILDREN = 14


def readable(
    names: Sequence[str], wnids: Sequence[str], weights: ArrayLike | None = None
) -> Hierarchy:
    """Arrange classes under everyday groups, at most 14 children each.

    A class belongs to the group that covers its most specific WordNet ancestor. Groups of a single
    member dissolve. Larger groups are divided by WordNet concepts that have everyday names; the rest
    is grouped, by similarity of `weights` if given, under names such as "songbird like robin".

    Args:
        names: class names in class order.
        wnids: their WordNet 3.0 ids, such as "n02084071".
        weights: (classes, features) of a classifier.

    Raises:
        NBDTError: unequal lengths.
        UnknownSynsetError: an id that WordNet 3.0 does not have.
        HierarchyError: fewer than two classes, or a repeated name.
    """
    rows = None if weights is None else np.asarray(weights, dtype=np.float64)
    if len(names) != len(wnids) or (rows is not None and len(rows) != len(names)):
        counts = f"{len(names)} names, {len(wnids)} ids"
        shape = "" if rows is None else f" and weights of shape {rows.shape}"
        raise NBDTError(f"Expected one id and one row of weights a class, got {counts}{shape}.")
    net = wordnet()
    divider = _Divider(names, [net.index(wnid) for wnid in wnids], rows, net)
    root = divider.curated()
    _dissolve_small(root)
    divider.divide(root)
    hierarchy = Hierarchy.from_nested({root.name: _nested(root, names)}, list(names))
    nodes = list(hierarchy.nodes)
    for leaf, wnid in zip(hierarchy.leaf_nodes, wnids, strict=True):
        nodes[leaf] = nodes[leaf]._replace(wnid=wnid)
    return Hierarchy(tuple(nodes), hierarchy.classes)


@dataclass
class _Group:
    """A group while it is built: classes directly in it, and subgroups."""

    name: str
    classes: list[int] = field(default_factory=list)
    groups: list[_Group] = field(default_factory=list)

    @property
    def children(self) -> int:
        return len(self.classes) + len(self.groups)


@dataclass(frozen=True)
class _Divider:
    names: Sequence[str]
    synsets: Sequence[int]
    weights: np.ndarray[Any, np.dtype[np.float64]] | None
    net: WordNet

    def curated(self) -> _Group:
        """Put every class into its everyday group; those without one stay at the root."""
        root, groups, covered = _Group(ROOT), list[_Group](), dict[int, int]()
        for index, (name, parent, offsets) in enumerate(_table()["groups"]):
            groups.append(_Group(name))
            (root if parent < 0 else groups[parent]).groups.append(groups[index])
            covered.update(dict.fromkeys(offsets, index))  # a deeper group comes later
        for index, synset in enumerate(self.synsets):
            options = [
                (float(self.net.information_content[ancestor]), covered[offset])
                for ancestor in (synset, *self.net.ancestors(synset))
                if (offset := int(self.net.offsets[ancestor])) in covered
            ]
            (groups[max(options)[1]] if options else root).classes.append(index)
        return root

    def divide(self, group: _Group) -> None:
        """Divide a group that has more than `MOST_CHILDREN` children, and its subgroups."""
        while group.children > MOST_CHILDREN > len(group.groups) + 1:
            if (part := self._largest_concept(group)) is None:
                break
            group.classes = [index for index in group.classes if index not in set(part.classes)]
            group.groups.append(part)
        if group.children > MOST_CHILDREN and group.classes:
            parts = list(self._alike(group))
            group.classes, group.groups = [], [*group.groups, *parts]
        for subgroup in group.groups:
            self.divide(subgroup)

    def _largest_concept(self, group: _Group) -> _Group | None:
        """Return the concept with an everyday name that covers most, but not all, of the classes."""
        if not group.classes:
            return None
        pairs = self.net.closure([self.synsets[index] for index in group.classes])
        covers = defaultdict[int, list[int]](list)
        for row, synset in zip(pairs.row.tolist(), pairs.synset.tolist(), strict=True):
            covers[synset].append(row)
        used = {group.name, *(other.name for other in group.groups), *self.names}
        concepts = [
            (len(rows), float(self.net.information_content[synset]), name, rows)
            for synset, rows in covers.items()
            if 2 <= len(rows) < len(group.classes)
            and (name := everyday_name(synset, self.net)) is not None
            and name not in used
        ]
        if not concepts:
            return None
        *_, name, rows = max(concepts)
        return _Group(name, [group.classes[row] for row in rows])

    def _alike(self, group: _Group) -> Iterator[_Group]:
        """Yield the classes of a group in equal parts, or in clusters of their weights."""
        count = min(-(-len(group.classes) // 9), MOST_CHILDREN - len(group.groups))
        if count == 1:
            yield _Group(f"other {group.name}", group.classes)
            return
        if self.weights is None:
            order = sorted(group.classes, key=lambda index: self.net.ancestors(self.synsets[index]))
            parts = [part.tolist() for part in np.array_split(order, count)]
        else:
            parts = _clusters(self.weights, group.classes, count)
        for part in parts:
            yield _Group(f"{group.name} like {self.names[part[0]]}", part)


def _clusters(weights: Any, classes: Sequence[int], count: int) -> list[list[int]]:
    """Cluster classes by their centred unit weights with Ward linkage, the medoid first."""
    from sklearn.cluster import AgglomerativeClustering

    rows = weights[classes] - weights[classes].mean(axis=0)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    labels = AgglomerativeClustering(n_clusters=count).fit_predict(rows)
    parts = []
    for label in range(count):
        members = np.flatnonzero(labels == label)
        typical = rows[members] @ rows[members].mean(axis=0)
        parts.append([classes[row] for row in members[np.argsort(-typical)]])
    return parts


def _dissolve_small(group: _Group) -> None:
    """Remove empty subgroups and those of one child, which takes the subgroup's place."""
    groups = []
    for subgroup in group.groups:
        _dissolve_small(subgroup)
        if subgroup.children > 1:
            groups.append(subgroup)
        else:
            group.classes += subgroup.classes
            groups += subgroup.groups
    group.groups = groups
    if not group.classes and len(groups) == 1:
        only = groups[0]
        group.name, group.classes, group.groups = only.name, only.classes, only.groups


def _nested(group: _Group, names: Sequence[str]) -> list[Any]:
    subgroups = ({subgroup.name: _nested(subgroup, names)} for subgroup in group.groups)
    return [*subgroups, *(names[index] for index in group.classes)]


def everyday_name(synset: int, net: WordNet) -> str | None:
    """Return the everyday name of a synset, None if it has none ("musteline mammal")."""
    lemma = _everyday_lemmas().get(int(net.offsets[synset]))
    return None if lemma is None else net.lemmas(synset)[lemma]


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(lzma.decompress((DATA_FOLDER / FILE).read_bytes()))
    return table


@cache
def _everyday_lemmas() -> dict[int, int]:
    """WordNet offset to the position of the everyday name among the synset's words."""
    return dict(zip(accumulate(_table()["offsets"]), _table()["lemmas"], strict=True))
