"""Names to suggest for a new group: what WordNet calls most of its classes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import islice

from nbdt.hierarchies.edit.draft import find_all
from nbdt.hierarchies.wordnet.concepts import fitting_concepts, hierarchy_synsets
from nbdt.hierarchies.wordnet.database import wordnet
from nbdt.tree.hierarchy import Hierarchy
from nbdt.tree.nodes import Node

MOST = 3
LONGEST = 40  # characters of a name that is made of two others


def suggest(hierarchy: Hierarchy, nodes: Sequence[str]) -> list[str]:
    """Names for a group of these nodes that no node has, the best first; never empty.

    Args:
        hierarchy: the tree.
        nodes: ids or unambiguous names.

    Raises:
        EditError: an unknown or ambiguous node.
    """
    places = find_all(hierarchy, nodes)
    taken = {*hierarchy.names, *hierarchy.ids}
    words = islice((word for word in _concepts(hierarchy, places) if word not in taken), MOST)
    joined = " and ".join(hierarchy.names[place].partition(",")[0] for place in places[:2])
    short = joined if len(joined) <= LONGEST else joined[: LONGEST - 1] + "…"
    return list(dict.fromkeys([*words, short]))


def _concepts(hierarchy: Hierarchy, places: Sequence[int]) -> list[str]:
    """WordNet's words for the classes under these nodes, as against all other classes."""
    members = {index for place in places for index in hierarchy.classes_under(place)}
    if not 2 <= len(members) < hierarchy.num_classes:
        return []
    tree = _apart(hierarchy, frozenset(members))
    synsets = _synsets(hierarchy.classes, _wnids(hierarchy))
    group = next(node for node in tree.inner_nodes if node)
    return [wordnet().name(concept.synset) for concept in fitting_concepts(tree, synsets)[group]]


def _apart(hierarchy: Hierarchy, members: frozenset[int]) -> Hierarchy:
    """A tree of one group, with all other classes beside it."""
    root, group = "\N{SECTION SIGN}" * 2, "\N{SECTION SIGN}" * 3
    while {root, group} & {*hierarchy.classes}:
        root, group = root + group, group + root
    leaves = [
        Node(name, group if index in members else root, name)
        for index, name in enumerate(hierarchy.classes)
    ]
    return Hierarchy((Node(root, None, root), Node(group, root, group), *leaves), hierarchy.classes)


def _wnids(hierarchy: Hierarchy) -> tuple[str | None, ...]:
    return hierarchy.class_wnids


@lru_cache(maxsize=8)
def _synsets(classes: tuple[str, ...], wnids: tuple[str | None, ...]) -> tuple[int | None, ...]:
    """Choosing the senses of 1,000 names takes a second, and every visitor asks for the same."""
    root = "\N{SECTION SIGN}"
    while root in classes:
        root += root
    leaves = (Node(name, root, name, wnid) for name, wnid in zip(classes, wnids, strict=True))
    return tuple(hierarchy_synsets(Hierarchy((Node(root, None, root), *leaves), classes)))
