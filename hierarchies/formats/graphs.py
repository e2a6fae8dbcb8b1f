"""Read graphs in JSON: the package's own, networkx's and those of the original NBDT."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from nbdt.tree.hierarchy import Hierarchy
from nbdt.tree.nodes import WNID, Node, short

from .class_order import FormatError, Leaf, check_order, class_names, shape
from .groups import parse
from .tables import Nodes

_UNNAMED = re.compile(r"f[0-9]{8}|\(generated\)")  # the original's names for unnamed nodes


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
        raise FormatError(f'Expected a node-link object with a list "nodes", got {shape(data)}.')
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
            raise FormatError(f'Each of "nodes" needs an "id"; got {shape(item)}.')
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
        raise FormatError(f"A node id is text or a whole number, got {shape(value)}.")
    return str(value)


def _parents(data: dict[str, Any], records: Mapping[str, Any]) -> dict[str, list[str | None]]:
    """Return the parents of each node. Edges are "links" until networkx 3.5, "edges" since."""
    edges = [data[key] for key in ("edges", "links") if key in data]
    if not edges or not isinstance(edges[0], list):
        raise FormatError('Expected a list of edges under "links" or "edges"; there is none.')
    if edges[0] != edges[-1]:
        raise FormatError('"links" and "edges" are both there and differ; remove one.')
    parents: dict[str, list[str | None]] = {}
    for edge in edges[0]:
        if not isinstance(edge, dict) or not {"source", "target"} <= edge.keys():
            raise FormatError(f'An edge needs "source" and "target"; got {shape(edge)}.')
        source, target = _id(edge["source"]), _id(edge["target"])
        for end in (source, target):
            if end not in records:
                raise FormatError(f'An edge names the node {short(end)}, which "nodes" lacks.')
        parents.setdefault(target, []).append(source)
    return parents


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
