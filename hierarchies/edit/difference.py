"""Differences between two hierarchies over the same classes, in words and as data."""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nbdt.errors import NBDTError, listed
from nbdt.tree.hierarchy import Hierarchy
from nbdt.tree.nodes import short

from .draft import Named


class DiffError(NBDTError):
    """Two hierarchies that cannot be compared."""


@dataclass(frozen=True)
class Change:
    """One difference; prints as a sentence."""

    # "moved", "added", "removed", "renamed", "wnid" (another WordNet id) or "order" (of the
    # classes)
    kind: str
    node: str  # id of the node, in the old tree if it was removed, else in the new one
    # id of the old parent if moved, of the group around it if removed; the old name or WordNet id
    # if that changed
    before: str | None
    after: str | None  # the same in the new tree
    words: str  # the sentence

    def __str__(self) -> str:
        return self.words


@dataclass(frozen=True)
class Difference:
    """All differences between two hierarchies; false if there are none, prints a line each.

    Ids of inner nodes alone are no difference.
    """

    before: str  # hash of the old hierarchy
    after: str  # hash of the new one
    changes: tuple[Change, ...]  # by kind: order, removed, added, moved, renamed, wnid
    # ids of the new tree's inner nodes whose decision can differ from every decision of the old
    # tree. All others give the same probabilities, under either rule.
    decisions: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.changes)

    def __str__(self) -> str:
        return "\n".join(map(str, self.changes)) or "The two hierarchies are the same."

    def to_dict(self) -> dict[str, Any]:
        """The attributes as JSON."""
        changes = [asdict(change) for change in self.changes]
        return {**vars(self), "changes": changes, "decisions": list(self.decisions)}


def diff(before: Hierarchy, after: Hierarchy) -> Difference:
    """Find what was done to `before` to arrive at `after`.

    Nodes are matched as `match_nodes` says; a node without a match was removed or added. A node
    has moved if its nearest matched ancestors do not match: one whose group merely vanished around
    it has not.

    Raises DiffError: the classes are not the same.
    """
    old, new = _Side(before), _Side(after)
    if {*before.classes} != {*after.classes}:
        gone = sorted({*before.classes} - {*after.classes})
        come = sorted({*after.classes} - {*before.classes})
        raise DiffError(
            "The two hierarchies have different classes, so they belong to different models: only "
            f"the first has {listed(gone) or 'none'}, only the second has {listed(come) or 'none'}."
        )
    partner = _match(old, new)
    changes = [
        *_order(before, after),
        *_unmatched(old, partner.keys(), "removed"),
        *_unmatched(new, set(partner.values()), "added"),
        *_moved(old, new, partner),
        *_renamed(old, new, partner),
    ]
    same = {old.decision(node) for node in before.inner_nodes}
    decisions = [after.ids[node] for node in after.inner_nodes if new.decision(node) not in same]
    return Difference(before.hash, after.hash, tuple(changes), tuple(decisions))


def match_nodes(before: Hierarchy, after: Hierarchy) -> dict[int, int]:
    """Return the node of `after` that is each node of `before`, by index, where there is one.

    Leaves are matched by class, and the roots with each other. Inner nodes are matched by id and
    name, then by the classes below them, then by a name that no other node has, then by id alone:
    the first rule that finds a partner counts. So a group that an edit renamed, or that lost or
    gained classes, or both, is still the same group; without the last two rules it would be one
    that vanished and one that is new, with nothing to compare. The classes may be in any order.
    """
    return _match(_Side(before), _Side(after))


def _match(old: "_Side", new: "_Side") -> dict[int, int]:
    partner = {
        old.hierarchy.index(name): new.hierarchy.index(name) for name in old.hierarchy.classes
    }
    partner[0] = 0
    for old_keys, new_keys in zip(old.keys(), new.keys(), strict=True):
        taken = set(partner.values())
        places = {key: node for node, key in enumerate(new_keys) if node not in taken}
        for node, key in enumerate(old_keys):
            if key is not None and node not in partner and key in places:
                partner[node] = places.pop(key)
    return partner


class _Side(Named):
    """One of two hierarchies to compare."""

    def __init__(self, hierarchy: Hierarchy) -> None:
        super().__init__(hierarchy)
        # A number for the set of classes below each node: equal sets, equal numbers. The sum of a
        # 256-bit hash of each class; sets themselves would be quadratic in a deep hierarchy.
        sums = [0] * hierarchy.num_nodes
        for name, node in zip(hierarchy.classes, hierarchy.leaf_nodes, strict=True):
            sums[node] = int.from_bytes(hashlib.sha256(name.encode()).digest())
        for node in range(hierarchy.num_nodes - 1, 0, -1):  # children before parents
            sums[hierarchy.parents[node]] += sums[node]
        self.leaf_sets = sums

    def keys(self) -> Iterator[Sequence[object]]:
        """For each rule of `match_nodes` a key of every node; None for a node that has none."""
        names, ids = self.hierarchy.names, self.hierarchy.ids
        times = Counter(names)
        yield list(zip(ids, names, strict=True))
        yield self.leaf_sets
        yield [name if times[name] == 1 else None for name in names]
        yield ids

    def decision(self, node: int) -> tuple[int, ...]:
        """The classes below each child of a node."""
        return tuple(sorted(self.leaf_sets[child] for child in self.hierarchy.children[node]))


def _order(before: Hierarchy, after: Hierarchy) -> Iterator[Change]:
    """One change for the order of all classes, naming the first place where it differs."""
    for place, (one, two) in enumerate(zip(before.classes, after.classes, strict=True)):
        if one != two:
            words = f"class {place} is {short(two)} instead of {short(one)}: the order differs"
            yield Change("order", two, one, two, words)
            return


def _unmatched(side: _Side, matched: Collection[int], kind: str) -> Iterator[Change]:
    """Yield the groups that only one of the hierarchies has: "removed" or "added"."""
    tree = side.hierarchy
    for node in tree.inner_nodes:
        if node in matched:
            continue
        around = tree.ids[tree.parents[node]]
        ends: tuple[str | None, str | None] = (around, None)
        words = f"removed {side.located(node)}"
        if kind == "added":
            ends, place = (None, around), side.label(tree.parents[node])
            holds = side.labels(tree.children[node])
            words = f"added {side.label(node)} in {place}, holding {holds}"
        yield Change(kind, tree.ids[node], *ends, words)


def _moved(old: _Side, new: _Side, partner: dict[int, int]) -> Iterator[Change]:
    before, after = old.hierarchy, new.hierarchy
    old_anchor = _anchors(before, set(partner))
    new_anchor = _anchors(after, set(partner.values()))
    for node in range(1, before.num_nodes):
        there = partner.get(node)
        if there is None or partner[old_anchor[node]] == new_anchor[there]:
            continue
        left, entered = before.parents[node], after.parents[there]
        words = f"moved {old.located(node)} to {new.label(entered)}"
        yield Change("moved", after.ids[there], before.ids[left], after.ids[entered], words)


def _anchors(hierarchy: Hierarchy, matched: set[int]) -> list[int]:
    """Each node's nearest proper ancestor that has a match."""
    anchors = [0] * hierarchy.num_nodes
    for node in range(1, hierarchy.num_nodes):
        parent = hierarchy.parents[node]
        anchors[node] = parent if parent in matched else anchors[parent]
    return anchors


def _renamed(old: _Side, new: _Side, partner: dict[int, int]) -> Iterator[Change]:
    for node, there in sorted(partner.items()):
        one, two = old.hierarchy.nodes[node], new.hierarchy.nodes[there]
        if one.name != two.name:
            words = f"renamed {old.label(node)} to {short(two.name)}"
            yield Change("renamed", two.id, one.name, two.name, words)
        if one.wnid != two.wnid:
            ends = f"from {one.wnid or 'none'} to {two.wnid or 'none'}"
            words = f"changed the WordNet id of {new.label(there)} {ends}"
            yield Change("wnid", two.id, one.wnid, two.wnid, words)
