"""Readers of each format, and the writer of node-link graphs."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from nbdt.errors import listed
from nbdt.tree.building import nodes_from_nested, nodes_from_paths
from nbdt.tree.hierarchy import Hierarchy
from nbdt.tree.nodes import WNID, Node, short

from .class_order import FormatError, Leaf, check_order, class_names

NESTED = "nbdt-nested"  # format name in files that earlier releases wrote
_UNNAMED = re.compile(r"f[0-9]{8}|\(generated\)")  # the original's names for unnamed nodes

MAX_PARTS = 2_000_000  # names in a file of paths or CSV; 100,000 classes at depth 20

Nodes = tuple[list[Node], list[str]]


def parse(text: str) -> Any:
    """Parse JSON and refuse repeated keys, NaN and endless nesting.

    Raises FormatError: the text is not such JSON; the message says where.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except RecursionError:
        raise FormatError(
            "The JSON is nested too deep to be read; write a deep tree as node-link or nbdt JSON, "
            "which are flat."
        ) from None
    except ValueError as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"This is not JSON: {short(str(error), 200)}.") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        ((twice, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise FormatError(f"The key {short(twice)} occurs twice in one JSON object; remove one.")
    return result


def _refuse_constant(name: str) -> None:
    raise FormatError(f"{name} is not a JSON value; remove it.")


def read_own(text: str, classes: Sequence[str] | None) -> Nodes:
    """Read what `Hierarchy.save` writes."""
    parse(text)  # refuses repeated keys; `from_json` would take the last one
    hierarchy = Hierarchy.from_json(text)
    check_order(hierarchy.classes, classes)
    return list(hierarchy.nodes), list(hierarchy.classes)


def read_graph(
    text: str, classes: Sequence[str] | None = None, wnids: Sequence[str] | None = None
) -> Nodes:
    """Read a networkx node-link graph; the original NBDT's has WordNet ids as node ids."""
    data = parse(text)
    if not isinstance(data, dict) or not isinstance(data.get("nodes"), list):
        raise FormatError(f'Expected a node-link object with a list "nodes", got {_shape(data)}.')
    for flag, wanted in (("directed", True), ("multigraph", False)):
        if data.get(flag, wanted) is not wanted:
            raise FormatError(
                f'"{flag}" is {short(data[flag])}; a hierarchy needs edges from parent to child, '
                "at most one between two nodes."
            )
    records = _records(data["nodes"])
    parents = _parents(data, records)
    inner = {parent for above in parents.values() for parent in above}
    leaves = [_leaf(node, record) for node, record in records.items() if node not in inner]
    names, order = class_names(leaves, classes, wnids)
    taken = set(order)  # the class wins if an inner node has an id that is also a class name
    ids = {node: names.get(node) or (f"{node}/" if node in taken else node) for node in records}
    nodes = [
        Node(
            ids[node],
            None if parent is None else ids[parent],
            names.get(node) or record.get("name") or record.get("label") or node,
            _wnid(node, record),
        )
        for node, record in records.items()
        for parent in parents.get(node, [None])  # two parents: listed twice, and refused later
    ]
    return nodes, order


def _records(items: list[Any]) -> dict[str, dict[str, Any]]:
    """Return the node records by id."""
    records: dict[str, dict[str, Any]] = {}
    for item in items:
        if not isinstance(item, dict) or "id" not in item:
            raise FormatError(f'Each of "nodes" needs an "id"; got {_shape(item)}.')
        node = _id(item["id"])
        if node in records:
            raise FormatError(f"Two nodes have the id {short(node)}; ids are unique.")
        for key in ("name", "label", "wnid"):
            if item.get(key) is not None and not isinstance(item[key], str):
                raise FormatError(f'"{key}" of node {short(node)} is not text: {short(item[key])}.')
        records[node] = item
    return records


def _id(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise FormatError(f"A node id is text or a whole number, got {_shape(value)}.")
    return str(value)


def _parents(data: dict[str, Any], records: Mapping[str, Any]) -> dict[str, list[str | None]]:
    parents: dict[str, list[str | None]] = {}
    for edge in _edges(data):
        if not isinstance(edge, dict) or not {"source", "target"} <= edge.keys():
            raise FormatError(f'An edge needs "source" and "target"; got {_shape(edge)}.')
        source, target = _id(edge["source"]), _id(edge["target"])
        for end in (source, target):
            if end not in records:
                raise FormatError(f'An edge names the node {short(end)}, which "nodes" lacks.')
        parents.setdefault(target, []).append(source)
    return parents


def _edges(data: dict[str, Any]) -> list[Any]:
    """Return the edges: "links" until networkx 3.5, "edges" since; both if they agree."""
    edges = [data[key] for key in ("edges", "links") if key in data]
    if not edges or not isinstance(edges[0], list):
        raise FormatError('Expected a list of edges under "links" or "edges"; there is none.')
    if edges[0] != edges[-1]:
        raise FormatError('"links" and "edges" are both there and differ; remove one.')
    return edges[0]


def _leaf(node: str, record: dict[str, Any]) -> Leaf:
    index = record.get("class_index")
    if index is not None and type(index) is not int:
        raise FormatError(
            f"The class index of leaf {short(node)} is {short(index)}; expected a whole number."
        )
    return Leaf(node, record.get("name") or record.get("label"), _wnid(node, record), index)


def _wnid(node: str, record: dict[str, Any]) -> str | None:
    return record.get("wnid") or (node if WNID.fullmatch(node) else None)


def name_unnamed(hierarchy: Hierarchy) -> Hierarchy:
    """Name nodes that only have a number for a name after their leaves."""
    if not any(_UNNAMED.fullmatch(hierarchy.names[node]) for node in hierarchy.inner_nodes):
        return hierarchy
    from ..naming import leaf_label

    first = _first_leaves(hierarchy)
    nodes = list(hierarchy.nodes)
    for node in hierarchy.inner_nodes:
        if _UNNAMED.fullmatch(nodes[node].name):
            words = [hierarchy.classes[index] for index in first[node]]
            name = leaf_label(words, total=len(hierarchy.spans[node])) if node else "root"
            nodes[node] = nodes[node]._replace(name=name)
    return Hierarchy(tuple(nodes), hierarchy.classes)


def _first_leaves(hierarchy: Hierarchy) -> list[list[int]]:
    """Return the two lowest class indices below each node."""
    first = [[index] if index >= 0 else [] for index in hierarchy.class_indices]
    for node in range(hierarchy.num_nodes - 1, 0, -1):  # children before parents
        parent = hierarchy.parents[node]
        first[parent] = sorted(first[parent] + first[node])[:2]
    return first


def write_graph(hierarchy: Hierarchy) -> str:
    """Return a networkx node-link graph, which keeps everything, for every release of networkx.

    It contains the edges twice: networkx reads "links" until 3.5, "edges" since.
    """
    from networkx import node_link_data

    data = node_link_data(hierarchy.to_networkx(), edges="edges")
    return json.dumps({**data, "links": data["edges"]}, ensure_ascii=False) + "\n"


def read_nested(text: str, classes: Sequence[str] | None) -> Nodes:
    """Read groups as in `Hierarchy.from_nested`, or ``{"name": …, "children": […]}``.

    The class order is the one that the file states, else `classes`, else the order in the file.
    """
    data = parse(text)
    order = classes
    if isinstance(data, dict) and data.get("format") == NESTED:
        order = data.get("classes")
        if not isinstance(order, list) or not isinstance(data.get("tree"), dict):
            raise FormatError(f'Expected "classes", a list, and "tree", got {short(list(data))}.')
        check_order([short(name) if not isinstance(name, str) else name for name in order], classes)
        data = data["tree"]
    if not isinstance(data, dict):
        raise FormatError(f"Expected a JSON object of groups, got {_shape(data)}.")
    if {"name", "children"} <= data.keys():
        nodes, in_file = nodes_from_paths(_named_paths(data))
    else:
        nodes, in_file = nodes_from_nested(data)
    return nodes, in_file if order is None else list(order)


def _named_paths(root: dict[str, Any]) -> list[list[str]]:
    """Return one path for each leaf of ``{"name": …, "children": […]}``."""
    paths: list[list[str]] = []
    stack: list[tuple[list[str], Any]] = [([], root)]
    while stack:
        above, item = stack.pop()
        if not isinstance(item, dict) or not isinstance(item.get("name"), str):
            raise FormatError(f'Each node needs a "name" that is text; got {_shape(item)}.')
        path = [*above, item["name"]]
        children = item.get("children", [])
        if not isinstance(children, list):
            raise FormatError(f'"children" of {short(path[-1])} is not a list.')
        names = [child.get("name") for child in children if isinstance(child, dict)]
        names = [name for name in names if isinstance(name, str)]
        twice = [name for name, n in Counter(names).items() if n > 1]
        if twice:
            raise FormatError(
                f"Group {short(path[-1])} contains several nodes named {listed(twice)}, which this "
                "format cannot tell apart; rename one, or use node-link or nbdt JSON."
            )
        stack.extend((path, child) for child in reversed(children))
        if not children:
            paths.append(path)
    return paths


def read_paths(text: str, classes: Sequence[str] | None) -> Nodes:
    """Read one path a line, ``animal/mammal/cat``; blank lines are ignored.

    The order of the lines is the class order, unless `classes` gives another.
    """
    lines = [line.strip() for line in text.split("\n")]
    if lines and all(WNID.fullmatch(line) for line in lines if line) and any(lines):
        raise FormatError(
            "This is a list of WordNet ids, which contains no hierarchy. Pass it as wnids=…, with "
            "the graph-….json that it belongs to."
        )
    if text.count("/") + len(lines) > MAX_PARTS:
        raise FormatError(
            f"The paths have more than {MAX_PARTS:,} names in all; expected a hierarchy."
        )
    return _from_rows(
        [[part.strip() for part in line.split("/")] for line in lines if line], classes
    )


def read_csv(text: str, classes: Sequence[str] | None) -> Nodes:
    """Read one class a row, from the outermost group to the class, without a header.

    The separator is the tab if there is any, else the comma or semicolon, whichever more lines
    contain. Rows may differ in length. Their order is the class order, unless `classes` gives
    another.
    """
    delimiter = "\t"  # no name may contain a tab
    if delimiter not in text:
        lines = re.sub(r'"[^"]*"', "", text).split("\n")
        delimiter = max(",;", key=lambda mark: sum(mark in line for line in lines))
    if text.count(delimiter) + text.count("\n") > MAX_PARTS:
        raise FormatError(f"The table has more than {MAX_PARTS:,} cells; expected a hierarchy.")
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
    nodes, order = nodes_from_paths(rows)
    return nodes, order if classes is None else list(classes)


def _shape(value: object) -> str:
    """Describe a value for a message."""
    if isinstance(value, dict):
        return f"an object with the keys {listed(list(value)[:4])}" if value else "an empty object"
    return short(value)
