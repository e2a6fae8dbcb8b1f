"""What a valid hierarchy may hold by mistake: names and shapes that are allowed but unusual."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator

from nbdt.errors import listed
from nbdt.tree.class_names import normalised_name
from nbdt.tree.hierarchy import Hierarchy

from .formats.ranks import depth_of
from .naming import plural

WIDE, DEEP = 30, 30  # children of a group, and levels, from which on they are unusual
_SEPARATOR = re.compile(r"[/\\>|;\t]|::")


def remarks(hierarchy: Hierarchy) -> list[str]:
    """Return a line for each thing that is allowed but unusual; a person decides whether it is meant."""
    return [*_shapes(hierarchy), *_names(hierarchy)]


def _shapes(hierarchy: Hierarchy) -> Iterator[str]:
    names, children = hierarchy.names, hierarchy.children
    if hierarchy.depth == 1:
        yield "the tree has one level: the classes are in no groups, so there is a single decision"
    if hierarchy.depth > DEEP:
        yield f"the tree has {hierarchy.depth} levels"
    wide = [node for node in hierarchy.inner_nodes if len(children[node]) > WIDE]
    yield from (f"{names[node]!r} has {len(children[node])} children" for node in wide[:5])
    times = Counter(names[node] for node in hierarchy.inner_nodes)
    if shared := [name for name, count in times.items() if count > 1]:
        yield f"groups share a name: {listed(shared)}"


def _names(hierarchy: Hierarchy) -> Iterator[str]:
    classes, words = hierarchy.classes, sorted({*hierarchy.names})
    ranks = [name for name in words if depth_of(name) is not None and name != "root"]
    if ranks:
        yield f"named like a rank, perhaps by a header line: {listed(ranks)}"
    if split := [name for name in classes if _SEPARATOR.search(name)]:
        yield f"classes with a separator in their name: {listed(split)}; was it meant to separate?"
    if marks := [mark for mark in ".:-_" if all(mark in name for name in classes)]:
        yield f"every class holds {marks[0]!r}; if it separates groups from classes, write '/'"
    if edges := [name for name in words if name != name.strip()]:
        yield f"names that begin or end with a space: {listed(edges)}"
    if all(name.isdecimal() for name in classes):
        yield f"the classes are numbers: {listed(classes, 3)}; is their list of names missing?"
    if same := _alike(words, lambda name: "".join(normalised_name(name).replace("-", " ").split())):
        yield f"names that differ in case, spaces or marks only: {same}"
    elif same := _alike(classes, lambda name: plural(normalised_name(name).removesuffix("s"))):
        yield f"classes that are one word in the singular and the plural: {same}"


def _alike(names: Iterable[str], key: Callable[[str], str]) -> str:
    by_key: dict[str, list[str]] = defaultdict(list)
    for name in names:
        by_key[key(name)].append(name)
    return listed([" and ".join(row) for row in by_key.values() if len(row) > 1], 3)
