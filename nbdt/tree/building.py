"""Nodes from paths, nested groups, graphs and JSON. No recursion: trees may be very deep."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .nodes import HierarchyError, Node, check_size, check_word, nfc, short

if TYPE_CHECKING:
    import networkx as nx

FORMAT = "nbdt-hierarchy"
VERSION = 1


def nodes_from_paths(paths: Iterable[str | Sequence[str]]) -> tuple[list[Node], list[str]]:
    """Return nodes and class order of one path per class; see `Hierarchy.from_paths`."""
    if isinstance(paths, str):
        raise HierarchyError(f"Expected a list of paths, got the text {short(paths)}.")
    parts = [_split(path) for path in paths]
    shared = len({path[0] for path in parts}) == 1 and all(len(path) > 1 for path in parts)
    root = None if shared else "/"
    groups: dict[tuple[str, str], str] = {}
    nodes = [] if shared else [Node("/", None, "root")]
    for path in parts:
        parent = root
        for name in path[:-1]:
            parent = _group(nodes, groups, parent, name)
        nodes.append(Node(path[-1], parent, path[-1]))
    _refuse_class_as_group(nodes, groups)
    return nodes, [path[-1] for path in parts]


def nodes_from_nested(nested: Mapping[str, Any]) -> tuple[list[Node], list[str]]:
    """Return the nodes of nested groups, and the classes in order of appearance; see `Hierarchy.from_nested`."""
    if not isinstance(nested, Mapping) or not nested:
        raise HierarchyError(f"Expected a mapping of groups, got {short(nested)}.")
    only = next(iter(nested.values())) if len(nested) == 1 else None
    root = None if only else "/"
    nodes = [] if only else [Node("/", None, "root")]
    classes: list[str] = []
    groups: dict[tuple[str, str], str] = {}
    stack: list[tuple[str | None, object, object]] = [
        (root, name, value) for name, value in reversed(list(nested.items()))
    ]
    while stack:
        check_size(len(nodes) + len(stack))
        parent, name, value = stack.pop()
        check_word(name, "A name in the nested groups")
        if value is None or value == {}:
            nodes.append(Node(str(name), parent, str(name)))
            classes.append(str(name))
            continue
        group = _group(nodes, groups, parent, str(name))
        stack.extend((group, *member) for member in reversed(_members(str(name), value)))
    _refuse_class_as_group(nodes, groups)
    return nodes, classes


def nodes_from_graph(graph: "nx.DiGraph[Any]", classes: set[str]) -> list[Node]:
    """Return the nodes of a directed graph; a node with two parents appears twice, which later checks refuse."""
    import networkx as nx

    if not isinstance(graph, nx.DiGraph) or graph.is_multigraph():
        raise HierarchyError(
            f"Expected a networkx.DiGraph with edges from parent to child, got "
            f"{type(graph).__name__}."
        )
    ids: dict[Any, str | None] = {None: None}
    for key in graph:
        name, is_leaf = str(graph.nodes[key].get("name")), graph.out_degree(key) == 0
        by_name = is_leaf and str(key) not in classes and name in classes
        ids[key] = name if by_name else str(key)
    return [
        Node(
            str(ids[key]),
            ids[parent],
            str(graph.nodes[key].get("name", key)) if graph.out_degree(key) else str(ids[key]),
            graph.nodes[key].get("wnid"),
        )
        for key in graph
        for parent in (list(graph.predecessors(key)) or [None])  # networkx takes None as no node
    ]


def nodes_from_json(text: str | bytes) -> tuple[tuple[Node, ...], tuple[str, ...]]:
    """Return the nodes and classes of what `nodes_to_json` wrote; see `Hierarchy.from_json`."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise HierarchyError(
            f"Expected JSON written by Hierarchy.save, but it cannot be parsed "
            f"({type(error).__name__}: {short(str(error))})."
        ) from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise HierarchyError(
            f'Expected a JSON object with "format": "{FORMAT}", got {short(data)}. '
            "Other formats are read by `nbdt hierarchy convert`."
        )
    if data.get("version") != VERSION:
        raise HierarchyError(
            f"Hierarchy format version {short(data.get('version'))} is not known to this "
            f"release, which reads version {VERSION}; upgrade nbdt-vision."
        )
    try:
        nodes = tuple(
            Node(node["id"], node["parent"], node.get("name", node["id"]), node.get("wnid"))
            for node in data["nodes"]
        )
        if not isinstance(data["classes"], list):
            raise TypeError('"classes" is no list')
        classes = tuple(data["classes"])
    except (KeyError, TypeError, AttributeError) as error:
        raise HierarchyError(
            f"The hierarchy is damaged: {type(error).__name__} {error}. "
            'Each of "nodes" needs "id" and "parent"; "classes" is a list of names.'
        ) from None
    return nodes, classes


def nodes_to_json(nodes: Sequence[Node], classes: Sequence[str]) -> str:
    """Return readable JSON with a format version, one node a line."""
    encode = json.JSONEncoder(ensure_ascii=False).encode  # `json.dumps` makes one a call
    lines = []
    for node in nodes:
        name = {} if node.name == node.id else {"name": node.name}
        wnid = {"wnid": node.wnid} if node.wnid else {}
        lines.append(encode({"id": node.id, "parent": node.parent} | name | wnid))
    body = ",\n  ".join(lines)
    return (
        f'{{"format": "{FORMAT}", "version": {VERSION},\n "classes": {encode(list(classes))},\n'
        f' "nodes": [\n  {body}\n]}}\n'
    )


def collapse_chains(nodes: Iterable[Node]) -> list[Node]:
    """Remove inner nodes that have a single child; the child takes their place.

    A mere chain keeps its last node, which validation refuses.
    """
    nodes = list(nodes)
    counts = Counter(node.parent for node in nodes)
    parent = {node.id: node.parent for node in nodes}
    dropped = {node.id for node in nodes if counts[node.id] == 1}
    resolved: dict[str | None, str | None] = {None: None}
    for node in nodes:
        trail, current = [], node.parent
        while current in dropped and current not in resolved:
            trail.append(current)
            current = parent.get(current)
            if len(trail) > len(nodes):
                return nodes  # a cycle: validation explains it
        end = resolved.get(current, current)
        resolved.update(dict.fromkeys(trail, end))
    return [
        node._replace(parent=resolved.get(node.parent, node.parent))
        for node in nodes
        if node.id not in dropped
    ]


def composed(nodes: Iterable[Node], classes: Iterable[str]) -> tuple[list[Node], list[str]]:
    """Return nodes and classes with their names in Unicode's form NFC, as keyboards write them."""
    return [Node(nfc(id_), nfc(parent), nfc(name), wnid) for id_, parent, name, wnid in nodes], [
        *map(nfc, classes)
    ]


def child_id(parent: str | None, name: str) -> str:
    """Return the id of a group: its path, or a digest if the path is long."""
    base = "" if parent in (None, "/") else str(parent)
    path = f"{base}{name}/"
    if len(path) <= 200:
        return path
    return f"{hashlib.sha256(path.encode()).hexdigest()[:16]}…/{name[:100]}/"


def _group(
    nodes: list[Node], groups: dict[tuple[str, str], str], parent: str | None, name: str
) -> str:
    """Return the id of the group `name` under `parent`; add its node on first use."""
    key = (parent or "", name)
    if key not in groups:
        groups[key] = child_id(parent, name)
        nodes.append(Node(groups[key], parent, name))
    return groups[key]


def _split(path: str | Sequence[str]) -> list[str]:
    parts = path.split("/") if isinstance(path, str) else path
    if not isinstance(parts, list | tuple) or not parts:
        raise HierarchyError(f"Expected a path such as 'animal/cat', got {short(path)}.")
    what = f"A part of the path {short(path)}"
    for part in parts:
        check_word(part, what)
    return list(parts)


def _refuse_class_as_group(nodes: Sequence[Node], groups: Mapping[tuple[str, str], str]) -> None:
    """Refuse a path that ends where another goes on: "animal" beside "animal/cat"."""
    made = set(groups.values())
    for node in nodes:
        if node.id not in made and (node.parent or "", node.id) in groups:
            raise HierarchyError(
                f"Class {node.id!r} is also an inner node; a class is a leaf: write a path below "
                f"it, such as '{node.id}/{node.id} (other)'."
            )


def _members(name: str, value: object) -> list[tuple[object, object]]:
    """Return (name, value) of everything directly inside one group."""
    if isinstance(value, Mapping):
        return list(value.items())
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        raise HierarchyError(
            f"Group {name!r} holds {short(value)}; expected a mapping or a non-empty list."
        )
    members: list[tuple[object, object]] = []
    for item in value:
        members.extend(item.items() if isinstance(item, Mapping) else [(item, None)])
    return members
