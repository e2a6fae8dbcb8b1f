"""Hierarchies as lines of text: one path a class, CSV, and Newick (written only)."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence

from nbdt.errors import listed
from nbdt.tree.building import nodes_from_paths
from nbdt.tree.hierarchy import Hierarchy
from nbdt.tree.nodes import WNID, short

from .class_order import FormatError
from .json_formats import Nodes, check_siblings, has_default_root

MAX_PARTS = 2_000_000  # names in a file of paths; 100,000 classes at depth 20


def read_paths(text: str, classes: Sequence[str] | None) -> Nodes:
    """One path a line, ``animal/mammal/cat``; blank lines do not count.

    The order of the lines is the order of classes, unless `classes` gives another.
    """
    lines = [line.strip() for line in text.split("\n")]
    if lines and all(WNID.fullmatch(line) for line in lines if line) and any(lines):
        raise FormatError(
            "This is a list of WordNet ids, which says nothing of a tree. Pass it as wnids=…, with "
            "the graph-….json that it belongs to."
        )
    if text.count("/") + len(lines) > MAX_PARTS:
        raise FormatError(f"The paths have more than {MAX_PARTS:,} names in all; is this a tree?")
    return _from_rows(
        [[part.strip() for part in line.split("/")] for line in lines if line], classes
    )


def read_csv(text: str, classes: Sequence[str] | None) -> Nodes:
    """One class a row, from the outermost group to the class; no header.

    Separated by tabs where there are any, else by commas or semicolons, whichever more lines have.
    Rows may differ in length. The order of the rows is the order of classes, unless `classes` gives
    another.
    """
    delimiter = _delimiter(text)
    if text.count(delimiter) + text.count("\n") > MAX_PARTS:
        raise FormatError(f"The table has more than {MAX_PARTS:,} cells; is this a tree?")
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True
    )
    rows = []
    try:
        for row in reader:
            while row and not row[-1].strip():
                row.pop()
            if row:
                rows.append(row)
    except csv.Error as error:
        raise FormatError(f"Line {reader.line_num} is no CSV: {error}.") from None
    return _from_rows(rows, classes)


def _from_rows(rows: Sequence[Sequence[str]], classes: Sequence[str] | None) -> Nodes:
    if not rows:
        raise FormatError("The file is empty; expected a line for each class.")
    nodes, found = nodes_from_paths(rows)
    return nodes, found if classes is None else list(classes)


def _delimiter(text: str) -> str:
    if "\t" in text:  # no name may hold one
        return "\t"
    lines = re.sub(r'"[^"]*"', "", text).split("\n")
    return max(",;", key=lambda mark: sum(mark in line for line in lines))


# ---- writing --------------------------------------------------------------------------------


def write_paths(hierarchy: Hierarchy) -> str:
    """One line a class, in class order.

    Raises:
        FormatError: siblings of one name, or a name that a line of this format cannot hold.
    """
    wrong = [name for name in hierarchy.names if "/" in name or name != name.strip()]
    if wrong and not (has_default_root(hierarchy) and wrong == [hierarchy.names[0]]):
        raise FormatError(
            f"The name {listed(wrong)} has a slash or outer space, which separate names here; "
            "write CSV, or rename it."
        )
    return "".join("/".join(row) + "\n" for row in _rows(hierarchy))


def write_csv(hierarchy: Hierarchy) -> str:
    """One row a class, in class order, separated by commas, without a header.

    Raises:
        FormatError: siblings of one name.
    """
    out = io.StringIO()
    padded = any(name != name.strip() for name in hierarchy.names)
    rows = csv.writer(
        out, lineterminator="\n", quoting=csv.QUOTE_ALL if padded else csv.QUOTE_MINIMAL
    )
    rows.writerows(_rows(hierarchy))
    return out.getvalue()


def _rows(hierarchy: Hierarchy) -> list[list[str]]:
    """The names from the root to each class, without a root that readers add by themselves."""
    for node in hierarchy.inner_nodes:
        names = [hierarchy.names[child] for child in hierarchy.children[node]]
        check_siblings(short(hierarchy.names[node]), names)
    start = 1 if has_default_root(hierarchy) else 0
    size = sum(hierarchy.depths[leaf] + 1 for leaf in hierarchy.leaf_nodes)
    if size > MAX_PARTS:
        raise FormatError(
            f"The paths would have {size:,} names in all, more than the {MAX_PARTS:,} that are "
            "read back; write node-link or nbdt JSON."
        )
    return [
        [hierarchy.names[node] for node in hierarchy.path_to(leaf)[start:]]
        for leaf in hierarchy.leaf_nodes
    ]


def write_newick(hierarchy: Hierarchy) -> str:
    """Newick with quoted names on all nodes and no branch lengths. The class order is lost."""
    pieces: list[str] = []
    stack: list[tuple[int, bool]] = [(0, False)]
    while stack:
        node, closing = stack.pop()
        children = hierarchy.children[node]
        if closing or not children:
            pieces.append((")" if closing else "") + _quoted(hierarchy.names[node]))
            pieces.append("," if _has_next_sibling(hierarchy, node) else "")
            continue
        pieces.append("(")
        stack.append((node, True))
        stack.extend((child, False) for child in reversed(children))
    return "".join(pieces) + ";\n"


def _has_next_sibling(hierarchy: Hierarchy, node: int) -> bool:
    return node > 0 and node != hierarchy.children[hierarchy.parents[node]][-1]


def _quoted(name: str) -> str:
    return "'" + name.replace("'", "''") + "'"
