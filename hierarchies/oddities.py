"""What a valid hierarchy may hold by mistake: names and shapes that are allowed but unusual."""

import re
from collections import defaultdict
from collections.abc import Iterator

from nbdt.errors import listed
from nbdt.tree.class_names import normalised_name
from nbdt.tree.hierarchy import Hierarchy

from .formats.ranks import depth_of

WIDE = 30  # children of a group from which on they are unusual
_SEPARATOR = re.compile(r"[/\\>|;\t]|::")


def remarks(hierarchy: Hierarchy) -> Iterator[str]:
    """Yield a line for each thing that is allowed but unusual; a person decides whether it is meant."""
    names, classes = hierarchy.names, hierarchy.classes
    if hierarchy.depth == 1:
        yield "the tree has one level: the classes are in no groups, so there is a single decision"
    wide = [node for node in hierarchy.inner_nodes if len(hierarchy.children[node]) > WIDE]
    yield from (f"{names[n]!r} has {len(hierarchy.children[n])} children" for n in wide[:5])
    words = sorted({*names})
    if ranks := [name for name in words if depth_of(name) is not None and name != "root"]:
        yield f"named like a rank, perhaps by a header line: {listed(ranks)}"
    if split := [name for name in classes if _SEPARATOR.search(name)]:
        yield f"classes with a separator in their name: {listed(split)}; was it meant to separate?"
    if marks := [mark for mark in ".:-_" if all(mark in name for name in classes)]:
        yield f"every class holds {marks[0]!r}; if it separates groups from classes, write '/'"
    if all(name.isdecimal() for name in classes):
        yield f"the classes are numbers: {listed(classes, 3)}; is their list of names missing?"
    by_spelling: dict[str, list[str]] = defaultdict(list)
    for name in words:
        by_spelling["".join(normalised_name(name).replace("-", " ").split())].append(name)
    if alike := [" and ".join(row) for row in by_spelling.values() if len(row) > 1]:
        yield f"names that differ in case, spaces or marks only: {listed(alike, 3)}"
