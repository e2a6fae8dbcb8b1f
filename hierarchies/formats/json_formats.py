"""Hierarchies in other people's JSON: node-link graphs, the original NBDT's, nested groups."""

from __future__ import annotations

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

NESTED = "nbdt-nested"
MAX_NESTED = 200  # levels that are written; parsers give up somewhere above
_UNNAMED = re.compile(r"f[0-9]{8}|\(generated\)")  # how the original calls a node without a name

Nodes = tuple[list[Node], list[str]]


def parse(text: str) -> Any:
    """JSON without what JSON forbids or leaves open: repeated keys, NaN, endless nesting.

    Raises:
        FormatError: anything else; the message says where.
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
        raise FormatError(f"This is no JSON: {short(str(error), 200)}.") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise FormatError(f"The key {short(twice)} occurs twice in one JSON object; remove one.")
    return found


def _refuse_constant(name: str) -> None:
    raise FormatError(f"{name} is no JSON value; remove it.")


# ---- our own --------------------------------------------------------------------------------


def read_own(text: str, classes: Sequence[str] | None) -> Nodes:
    """What `Hierarchy.save` writes."""
    parse(text)  # refuses repeated keys, of which `from_json` would take the last
    hierarchy = Hierarchy.from_json(text)
    check_order(hierarchy.classes, classes)
    return list(hierarchy.nodes), list(hierarchy.classes)


# ---- node-link ------------------------------------------------------------------------------


def read_graph(
    text: str, classes: Sequence[str] | None = None, wnids: Sequence[str] | None = None
) -> Nodes:
    """A networkx node-link graph; that of the original NBDT has WordNet ids as node ids."""
    data = parse(text)
    if not isinstance(data, dict) or not isinstance(data.get("nodes"), list):
        raise FormatError(f'Expected a node-link object with a list "nodes", got {_shape(data)}.')
    for flag, wanted in (("directed", True), ("multigraph", False)):
        if data.get(flag, wanted) is not wanted:
            raise FormatError(
                f'"{flag}" is {short(data[flag])}; a tree needs a graph with edges from parent to '
                "child, of which no two nodes share several."
            )
    records = _records(data["nodes"])
    parents = _parents(data, records)
    inner = {parent for above in parents.values() for parent in above}
    leaves = [_leaf(node, record) for node, record in records.items() if node not in inner]
    names, order = class_names(leaves, classes, wnids)
    taken = set(order)  # an inner node may have the id that a class is named; the class comes first
    ids = {node: names.get(node) or (f"{node}/" if node in taken else node) for node in records}
    nodes = [
        Node(
            ids[node],
            None if parent is None else ids[parent],
            names.get(node) or _text(record, node),
            _wnid(node, record),
        )
        for node, record in records.items()
        for parent in parents.get(node, [None])  # two parents: listed twice, for the tree to refuse
    ]
    return nodes, order


def _records(items: list[Any]) -> dict[str, dict[str, Any]]:
    """The node records by id, as text."""
    records: dict[str, dict[str, Any]] = {}
    for item in items:
        if not isinstance(item, dict) or "id" not in item:
            raise FormatError(f'Each of "nodes" needs an "id"; got {_shape(item)}.')
        node = _id(item["id"])
        if node in records:
            raise FormatError(f"Two nodes have the id {short(node)}; ids are unique.")
        for key in ("name", "label", "wnid"):
            if item.get(key) is not None and not isinstance(item[key], str):
                raise FormatError(f'"{key}" of node {short(node)} is no text: {short(item[key])}.')
        records[node] = item
    return records


def _id(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise FormatError(f"A node id is text or a whole number, got {_shape(value)}.")
    return str(value)


def _parents(data: dict[str, Any], records: Mapping[str, Any]) -> dict[str, list[str | None]]:
    """The parents of each node that has any."""
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
    """Under "links" until networkx 3.5, "edges" since; both if they agree."""
    found = [data[key] for key in ("edges", "links") if key in data]
    if not found or not isinstance(found[0], list):
        raise FormatError('Expected a list of edges under "links" or "edges"; there is none.')
    if found[0] != found[-1]:
        raise FormatError('"links" and "edges" are both there and differ; remove one.')
    return found[0]


def _leaf(node: str, record: dict[str, Any]) -> Leaf:
    index = record.get("class_index")
    if index is not None and type(index) is not int:
        raise FormatError(f"The class index of leaf {short(node)} is {short(index)}, no number.")
    return Leaf(node, record.get("name") or record.get("label"), _wnid(node, record), index)


def _text(record: dict[str, Any], node: str) -> str:
    return record.get("name") or record.get("label") or node


def _wnid(node: str, record: dict[str, Any]) -> str | None:
    return record.get("wnid") or (node if WNID.fullmatch(node) else None)


def name_unnamed(hierarchy: Hierarchy) -> Hierarchy:
    """The same tree with nodes that have a number for a name named after their leaves."""
    if not any(_UNNAMED.fullmatch(hierarchy.names[node]) for node in hierarchy.inner_nodes):
        return hierarchy
    from ..naming.names import leaf_label

    first, total = _first_leaves(hierarchy)
    nodes = list(hierarchy.nodes)
    for node in hierarchy.inner_nodes:
        if _UNNAMED.fullmatch(nodes[node].name):
            words = [hierarchy.classes[index] for index in first[node]]
            name = leaf_label(words, total=total[node]) if node else "root"
            nodes[node] = nodes[node]._replace(name=name)
    return Hierarchy(tuple(nodes), hierarchy.classes)


def _first_leaves(hierarchy: Hierarchy) -> tuple[list[list[int]], list[int]]:
    """The two lowest class indices below each node, and the number of classes there."""
    first = [[index] if index >= 0 else [] for index in hierarchy.class_indices]
    total = [len(own) for own in first]
    for node in range(hierarchy.num_nodes - 1, 0, -1):  # children before parents
        parent = hierarchy.parents[node]
        first[parent] = sorted(first[parent] + first[node])[:2]
        total[parent] += total[node]
    return first, total


def write_graph(hierarchy: Hierarchy) -> str:
    """A networkx node-link graph that every release of networkx reads.

    The edges are there twice: `networkx.node_link_graph` takes "links" until 3.5, "edges" since.
    """
    nodes = [
        {
            "id": node.id,
            "name": node.name,
            **({"wnid": node.wnid} if node.wnid else {}),
            **({} if index < 0 else {"class_index": index}),
        }
        for node, index in zip(hierarchy.nodes, hierarchy.class_indices, strict=True)
    ]
    edges = [{"source": node.parent, "target": node.id} for node in hierarchy.nodes[1:]]
    fields = {"directed": True, "multigraph": False, "graph": {}, "nodes": nodes}
    data = {**fields, "edges": edges, "links": edges}
    return json.dumps(data, ensure_ascii=False) + "\n"


# ---- nested groups --------------------------------------------------------------------------


def read_nested(text: str, classes: Sequence[str] | None) -> Nodes:
    """Groups as in `Hierarchy.from_nested`, or ``{"name": …, "children": […]}``.

    The order of classes is the file's own, where it says so; else that of `classes`; else the
    order of appearance.
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
        nodes, found = nodes_from_paths(_named_paths(data))
    else:
        nodes, found = nodes_from_nested(data)
    return nodes, found if order is None else list(order)


def _named_paths(root: dict[str, Any]) -> list[list[str]]:
    """One path per leaf of ``{"name": …, "children": […]}``."""
    paths: list[list[str]] = []
    stack: list[tuple[list[str], Any]] = [([], root)]
    while stack:
        above, item = stack.pop()
        if not isinstance(item, dict) or not isinstance(item.get("name"), str):
            raise FormatError(f'Each node needs a "name" that is text; got {_shape(item)}.')
        path = [*above, item["name"]]
        children = item.get("children", [])
        if not isinstance(children, list):
            raise FormatError(f'"children" of {short(path[-1])} is no list.')
        names = [child.get("name") for child in children if isinstance(child, dict)]
        check_siblings(short(path[-1]), [name for name in names if isinstance(name, str)])
        stack.extend((path, child) for child in reversed(children))
        if not children:
            paths.append(path)
    return paths


def write_nested(hierarchy: Hierarchy) -> str:
    """Groups as objects and lists, with the class order beside them.

    Raises:
        FormatError: siblings of one name, or a tree too deep for parsers of nested JSON.
    """
    if hierarchy.depth > MAX_NESTED:
        raise FormatError(
            f"The tree has {hierarchy.depth:,} levels; nested JSON is written up to {MAX_NESTED}, "
            "as parsers give up on more. Write node-link or nbdt JSON."
        )
    built: list[Any] = [None] * hierarchy.num_nodes
    for node in reversed(hierarchy.inner_nodes):
        children = hierarchy.children[node]
        names = [hierarchy.names[child] for child in children]
        check_siblings(short(hierarchy.names[node]), names)
        flat = all(built[child] is None for child in children)
        built[node] = (
            names if flat else {hierarchy.names[child]: built[child] for child in children}
        )
    tree = built[0] if isinstance(built[0], dict) else dict.fromkeys(built[0])
    if not has_default_root(hierarchy):
        tree = {hierarchy.names[0]: built[0]}
    data = {"format": NESTED, "classes": list(hierarchy.classes), "tree": tree}
    return json.dumps(data, ensure_ascii=False, indent=1) + "\n"


# ---- shared ---------------------------------------------------------------------------------


def check_siblings(group: str, names: Sequence[str]) -> None:
    """Refuse siblings of one name where names alone tell nodes apart. Raises FormatError."""
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise FormatError(
            f"Group {group} holds several nodes named {listed(twice)}, which this format cannot "
            "tell apart; rename one, or use node-link or nbdt JSON."
        )


def has_default_root(hierarchy: Hierarchy) -> bool:
    """Whether the root is the one that readers of names add by themselves."""
    return hierarchy.nodes[0][:3] == ("/", None, "root")


def _shape(value: object) -> str:
    """What arrived, for a message."""
    if isinstance(value, dict):
        return f"an object with the keys {listed(list(value)[:4])}" if value else "an empty object"
    return short(value)
