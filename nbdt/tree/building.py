"""From paths, nested groups and graphs to nodes. No recursion: trees may be very deep."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .nodes import HierarchyError, Node, check_word, short

if TYPE_CHECKING:
    import networkx as nx


def nodes_from_paths(paths: Iterable[str | Sequence[str]]) -> tuple[list[Node], list[str]]:
    """Nodes and class order of one path per class; see `Hierarchy.from_paths`."""
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
    """Nodes, and classes as met, of nested groups; see `Hierarchy.from_nested`."""
    if not isinstance(nested, Mapping) or not nested:
        raise HierarchyError(f"Expected a mapping of groups, got {short(nested)}.")
    only = next(iter(nested.values())) if len(nested) == 1 else None
    nodes = [] if only else [Node("/", None, "root")]
    return nodes, _walk_nested(nested, None if only else "/", nodes)


def nodes_from_graph(graph: nx.DiGraph[Any], classes: set[str]) -> list[Node]:
    """Nodes of a directed graph; one with two parents appears twice, for the checks to refuse."""
    import networkx as nx

    if not isinstance(graph, nx.DiGraph) or graph.is_multigraph():
        raise HierarchyError(
            f"Expected a networkx.DiGraph with edges from parent to child, got "
            f"{type(graph).__name__}."
        )
    ids = {key: _graph_id(graph, key, classes) for key in graph}
    return [
        Node(
            ids[key],
            None if parent is _NO_PARENT else ids[parent],
            _graph_name(graph, key, ids[key]),
            graph.nodes[key].get("wnid"),
        )
        for key in graph
        for parent in (list(graph.predecessors(key)) or [_NO_PARENT])
    ]


_NO_PARENT = object()


def collapse_chains(nodes: Iterable[Node]) -> list[Node]:
    """Without the inner nodes that have a single child; their child takes their place.

    A tree that is nothing but a chain keeps its last node, for validation to refuse.
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


def child_id(parent: str | None, name: str) -> str:
    """Id of the group `name` under `parent`: its path, or a digest once that grows long."""
    base = "" if parent in (None, "/") else str(parent)
    path = f"{base}{name}/"
    if len(path) <= 200:
        return path
    return f"{hashlib.sha256(path.encode()).hexdigest()[:16]}…/{name[:100]}/"


def _group(
    nodes: list[Node], groups: dict[tuple[str, str], str], parent: str | None, name: str
) -> str:
    """Id of the group `name` under `parent`, added on its first use."""
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
    """A path that ends where another passes through: "animal" beside "animal/cat"."""
    made = set(groups.values())
    for node in nodes:
        if node.id not in made and (node.parent or "", node.id) in groups:
            raise HierarchyError(
                f"Class {node.id!r} is also an inner node; a class is a leaf: write a path below "
                f"it, such as '{node.id}/{node.id} (other)'."
            )


def _walk_nested(nested: Mapping[str, Any], root: str | None, nodes: list[Node]) -> list[str]:
    """Append the nodes of a nested mapping; return the classes as met."""
    classes: list[str] = []
    groups: dict[tuple[str, str], str] = {}
    stack: list[tuple[str | None, object, object]] = [
        (root, name, value) for name, value in reversed(list(nested.items()))
    ]
    while stack:
        parent, name, value = stack.pop()
        check_word(name, "A name in the nested groups")
        if value is None or value == {}:
            nodes.append(Node(str(name), parent, str(name)))
            classes.append(str(name))
            continue
        group = _group(nodes, groups, parent, str(name))
        stack.extend((group, *member) for member in reversed(_members(str(name), value)))
    _refuse_class_as_group(nodes, groups)
    return classes


def _members(name: str, value: object) -> list[tuple[object, object]]:
    """(name, value) of everything directly inside one group."""
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


def _graph_id(graph: nx.DiGraph[Any], key: object, classes: set[str]) -> str:
    name = graph.nodes[key].get("name")
    if graph.out_degree(key) == 0 and str(key) not in classes and str(name) in classes:
        return str(name)
    return str(key)


def _graph_name(graph: nx.DiGraph[Any], key: object, node_id: str) -> str:
    """Leaves are named by their class; inner nodes by their attribute or key."""
    if graph.out_degree(key) == 0:
        return node_id
    return str(graph.nodes[key].get("name", key))
