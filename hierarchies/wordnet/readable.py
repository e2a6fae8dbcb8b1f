"""Hierarchies of everyday groups over any classes: `readable`.

WordNet's upper levels ("instrumentality", "whole") mean nothing to most people. The groups of
`everyday.py` do ("car or truck", "wading bird").
"""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nbdt.errors import NBDTError
from nbdt.tree.hierarchy import Hierarchy

from .concepts import class_synsets
from .database import WordNet, wordnet
from .everyday import everyday_groups, everyday_name, group_of
from .known import known_senses

ROOT = "all things"
MOST_CHILDREN = 14


def readable(
    names: Sequence[str],
    wnids: Sequence[str | None] | None = None,
    weights: ArrayLike | None = None,
    overrides: Mapping[str | int, str] | None = None,
) -> Hierarchy:
    """Arrange classes under everyday groups, at most 14 children each.

    A class belongs to the group that covers its most specific WordNet ancestor. Groups of a single
    member dissolve. Larger groups are divided by WordNet concepts that have everyday names; the rest
    is grouped, by similarity of `weights` if given, under names such as "songbird like robin".
    Classes without a group join the one whose mean weights are the most similar. Without weights,
    or if they are the majority, they are at the root, under names such as "ant to cat" if many.

    Args:
        names: class names in class order.
        wnids: their WordNet 3.0 ids, such as "n02084071", None where unknown. By default the
            senses that `known_senses` chooses, which also reports them.
        weights: (classes, features) of a classifier.
        overrides: meanings of names for `known_senses`, if `wnids` is not given.

    Raises:
        NBDTError: unequal lengths.
        UnknownSynsetError: an id that WordNet 3.0 does not have.
        OverrideError: an override for no class, or to something unknown.
        HierarchyError: fewer than two classes, or a repeated name.
    """
    rows = None if weights is None else np.asarray(weights, dtype=np.float64)
    if wnids is None:
        wnids = known_senses(names, overrides).wnids
    if rows is not None and len(rows) != len(names):
        raise NBDTError(
            f"Expected one row of weights for each of {len(names)} classes, got {rows.shape}."
        )
    divider = _Divider(names, class_synsets(names, wnids), _centred(rows), wordnet())
    root = divider.curated()
    divider.divide(root)
    hierarchy = Hierarchy.from_nested({root.name: _nested(root, names)}, list(names))
    nodes = list(hierarchy.nodes)
    for leaf, wnid in zip(hierarchy.leaf_nodes, wnids, strict=True):
        nodes[leaf] = nodes[leaf]._replace(wnid=wnid)
    return Hierarchy(tuple(nodes), hierarchy.classes)


@dataclass
class _Group:
    """A group while it is built: classes directly in it, subgroups, and whether it has a kind."""

    name: str
    classes: list[int] = field(default_factory=list)
    groups: "list[_Group]" = field(default_factory=list)
    is_kind: bool = True

    @property
    def children(self) -> int:
        return len(self.classes) + len(self.groups)

    @property
    def size(self) -> int:
        return len(self.classes) + sum(group.size for group in self.groups)


@dataclass(frozen=True)
class _Divider:
    names: Sequence[str]
    synsets: Sequence[int | None]
    weights: np.ndarray[Any, np.dtype[np.float64]] | None
    net: WordNet

    def curated(self) -> _Group:
        """Put every class into its everyday group; small groups dissolve."""
        root, groups, left = _Group(ROOT), list[_Group](), list[int]()
        for name, parent in everyday_groups():
            groups.append(_Group(name))
            (root if parent < 0 else groups[parent]).groups.append(groups[-1])
        for index, synset in enumerate(self.synsets):
            group = None if synset is None else group_of(synset, self.net)
            (left if group is None else groups[group].classes).append(index)
        if 2 * len(left) <= len(self.synsets):
            if self.weights is not None:
                self._place_by_weights(left, [group for group in groups if group.classes])
                left = []
            _dissolve_small(root)
        else:  # the root is not "dog" because two of many classes are dogs
            root.classes = left[:1]
            _dissolve_small(root)
            root.classes.remove(left[0])
        self._place_at_root(left, root)
        return root

    def _place_by_weights(self, left: Sequence[int], groups: Sequence[_Group]) -> None:
        """Add each class to the group whose mean weights are the most similar."""
        means = np.array([self.weights[group.classes].mean(axis=0) for group in groups])  # type: ignore[index]
        means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
        for index in left:
            groups[int((means @ self.weights[index]).argmax())].classes.append(index)  # type: ignore[index]

    def _place_at_root(self, left: list[int], root: _Group) -> None:
        """Add classes without a kind to the root, in groups of their own if they are many."""
        fits = root.children + len(left) <= MOST_CHILDREN
        if fits or not root.children or root.children > MOST_CHILDREN:
            root.classes += left
            root.is_kind = bool(root.groups) or root.name != ROOT
            return
        if root.children == MOST_CHILDREN:
            root.groups.sort(key=lambda group: group.size)
            one, two, *rest = root.groups
            root.groups = [*rest, _Group(f"{one.name}, {two.name}", [], [one, two])]
        loose = _Group(root.name, left, is_kind=False)
        parts = self._alike(loose, MOST_CHILDREN - root.children)
        root.classes += loose.classes
        root.groups += parts

    def divide(self, group: _Group) -> None:
        """Divide a group that has more than `MOST_CHILDREN` children, and its subgroups."""
        while group.children > MOST_CHILDREN > len(group.groups) + 1:
            if (part := self._largest_concept(group)) is None:
                break
            group.classes = [index for index in group.classes if index not in set(part.classes)]
            group.groups.append(part)
        if group.children > MOST_CHILDREN and group.classes:
            group.groups.sort(key=lambda other: -other.size)
            small = group.groups[MOST_CHILDREN - 1 :]
            group.groups = group.groups[: MOST_CHILDREN - 1]
            group.groups += self._alike(group, MOST_CHILDREN - len(group.groups), small)
        for subgroup in group.groups:
            self.divide(subgroup)

    def _largest_concept(self, group: _Group) -> _Group | None:
        """Return the concept with an everyday name that covers most, but not all, of the classes."""
        known = [(index, s) for index in group.classes if (s := self.synsets[index]) is not None]
        if not known:
            return None
        rows, ancestors = self.net.closure([synset for _, synset in known])
        covers = defaultdict[int, list[int]](list)
        for row, synset in zip(rows.tolist(), ancestors.tolist(), strict=True):
            covers[synset].append(known[row][0])
        used = {group.name, *(other.name for other in group.groups), *self.names}
        concepts = []
        for synset, members in covers.items():
            same = all(self.synsets[index] == synset for index in members)
            name = self.net.name(synset) if same else everyday_name(synset, self.net)
            if 2 <= len(members) < len(group.classes) and name is not None and name not in used:
                content = float(self.net.information_content[synset])
                concepts.append((len(members), content, name, members))
        if not concepts:
            return None
        *_, name, members = max(concepts)
        return _Group(name, members)

    def _alike(self, group: _Group, most: int, small: Sequence[_Group] = ()) -> list[_Group]:
        """Take the classes out of a group and return them in at most `most` groups.

        They are clusters of weights or, without weights, equal parts of the list. A cluster of one
        stays in the group. If there is room for one group only, it takes the small groups too.
        """
        count = min(-(-len(group.classes) // 9), most)
        if count == 1 and group.is_kind:
            other = _Group(f"other {group.name}", group.classes, [*small])
            group.classes = []
            return [other]
        if self.weights is None:
            order = sorted(group.classes, key=self._order(group))
            parts = [part.tolist() for part in np.array_split(order, count)]
        else:
            parts = _clusters(self.weights, group.classes, count)
        group.classes = [part[0] for part in parts if len(part) == 1]
        return [
            _Group(self._label(group, part), part, is_kind=group.is_kind)
            for part in parts
            if len(part) > 1
        ]

    def _order(self, group: _Group) -> Callable[[int], Any]:
        """Return a sort key for the classes of a group: by kind, else by name ("a2" before "a10")."""
        if not group.is_kind:
            return lambda index: [
                (0, int(part), "") if part.isdecimal() else (1, 0, part.casefold())
                for part in re.split("([0-9]+)", self.names[index])
            ]
        return lambda index: () if (s := self.synsets[index]) is None else self.net.ancestors(s)

    def _label(self, group: _Group, part: Sequence[int]) -> str:
        first, last = self.names[part[0]], self.names[part[-1]]
        if group.is_kind:
            return f"{group.name} like {first}"
        if self.weights is None:
            return f"{first} to {last}"
        label = f"similar to {first}"
        return label if label != group.name else f"similar to {self.names[part[1]]}"


def _centred(rows: Any) -> Any:
    """Return rows of length 1 around their mean."""
    if rows is None:
        return None
    centred = rows - rows.mean(axis=0)
    return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)


def _clusters(weights: Any, classes: Sequence[int], count: int) -> list[list[int]]:
    """Cluster classes by their centred unit weights with Ward linkage, the medoid first."""
    from sklearn.cluster import AgglomerativeClustering

    rows, labels = _centred(weights[classes]), np.zeros(len(classes), dtype=int)
    if count > 1:
        labels = AgglomerativeClustering(n_clusters=count).fit_predict(rows)
    parts = []
    for label in range(count):
        members = np.flatnonzero(labels == label)
        typical = rows[members] @ rows[members].mean(axis=0)
        parts.append([classes[row] for row in members[np.argsort(-typical, kind="stable")]])
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
    """Return nested groups as `Hierarchy.from_nested` takes them; no group is named as a sibling."""
    classes = [names[index] for index in group.classes]
    taken, nested = set(classes), list[Any]()
    for subgroup in group.groups:
        name = subgroup.name
        while name in taken:
            name += " (group)"
        taken.add(name)
        nested.append({name: _nested(subgroup, names)})
    return [*nested, *classes]
