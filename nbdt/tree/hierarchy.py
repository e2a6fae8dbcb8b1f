"""A class hierarchy: a rooted tree whose leaves are exactly the classes, in a stated order."""

from __future__ import annotations

import hashlib
import html
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import listed, nearest
from ..files import write_atomic
from . import building
from .nodes import HierarchyError, Node, canonical_tree, nfc

if TYPE_CHECKING:
    import networkx as nx

MAX_SHOWN_DEPTH = 250  # levels that printing draws; each costs four columns on every line below
MAX_FILE = 64 * 2**20  # bytes; 100,000 classes take about 20 MB


@dataclass(frozen=True, repr=False)
class Hierarchy:
    """A validated tree over `classes`, in canonical order: equal trees are equal objects.

    Siblings are ordered by their smallest class index and nodes breadth-first, so the root is
    node 0, a parent precedes its children, siblings are neighbours and a level is a slice.
    Prefer the constructors `from_paths`, `from_nested`, `from_networkx` and `load`.

    Args:
        nodes: the nodes in any order.
        classes: class names in the order of the classifier's outputs.

    Raises HierarchyError: the nodes are no such tree; the message names node and remedy.
    """

    nodes: tuple[Node, ...]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        classes = tuple(self.classes)
        made = [node if type(node) is Node else Node(*node) for node in self.nodes]
        nodes = canonical_tree(made, classes)
        object.__setattr__(self, "classes", classes)
        object.__setattr__(self, "nodes", nodes)

    @classmethod
    def from_paths(
        cls, paths: Iterable[str | Sequence[str]], *, collapse: bool = False
    ) -> Hierarchy:
        """Build from one path per class, ``"animal/mammal/cat"`` or ``["animal", "mammal", "cat"]``.

        The order of `paths` is the class order. A root is added unless all paths share their
        first part. `collapse` removes inner nodes that have a single child.

        Raises HierarchyError: no paths, an empty name, a repeated class, a class that is also an
        inner node, or a chain while `collapse` is False.
        """
        return cls._build(*building.nodes_from_paths(paths), collapse)

    @classmethod
    def from_nested(
        cls,
        nested: Mapping[str, Any],
        classes: Sequence[str] | None = None,
        *,
        collapse: bool = False,
    ) -> Hierarchy:
        """Build from nested groups, ``{"animal": ["cat", "dog"], "vehicle": {"road": ["car", "bus"]}}``.

        A group is a mapping from names to groups or a list of class names and mappings; None or
        an empty mapping marks a class. A single outermost group is the root, otherwise one is
        added. `classes` gives the class order; by default the order of appearance.

        Raises HierarchyError: as `from_paths`, or a value that is neither group nor class, or
        `classes` that are not exactly the leaves.
        """
        nodes, order = building.nodes_from_nested(nested)
        return cls._build(nodes, order if classes is None else classes, collapse)

    @classmethod
    def from_networkx(
        cls, graph: nx.DiGraph[Any], classes: Sequence[str], *, collapse: bool = False
    ) -> Hierarchy:
        """Build from a directed graph with edges from parent to child.

        Node attributes ``name`` and ``wnid`` are kept. A leaf is a class by its key or, failing
        that, by its name. Inner nodes keep ``str(key)`` as their id.

        Raises HierarchyError: as `from_paths`, or two parents, two roots, a cycle, an undirected
        graph, or `classes` that are not exactly the leaves.
        """
        leaves = {name for name in classes if isinstance(name, str)}
        return cls._build(building.nodes_from_graph(graph, leaves), classes, collapse)

    @classmethod
    def _build(cls, nodes: list[Node], classes: Sequence[str], collapse: bool) -> Hierarchy:
        nodes, names = building.composed(nodes, classes)
        return cls(tuple(building.collapse_chains(nodes) if collapse else nodes), tuple(names))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Hierarchy:
        """Read what `save` wrote.

        Raises:
            HierarchyError: not such a file, damaged, or written by a newer version.
            OSError: the file cannot be read.
        """
        size = Path(path).stat().st_size
        if size > MAX_FILE:
            raise HierarchyError(
                f"{os.fspath(path)!r} has {size:,} bytes; a hierarchy has at most {MAX_FILE:,}."
            )
        try:
            return cls.from_json(Path(path).read_bytes())
        except HierarchyError as error:
            raise HierarchyError(f"{os.fspath(path)!r}: {error}") from None

    @classmethod
    def from_json(cls, text: str | bytes) -> Hierarchy:
        """Read what `to_json` returned. Raises HierarchyError for anything else."""
        return cls(*building.nodes_from_json(text))

    def to_json(self) -> str:
        """Return readable JSON with a format version, one node a line."""
        return building.nodes_to_json(self.nodes, self.classes)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `to_json` to `path`, atomically. Raises OSError if it cannot be written."""
        write_atomic(path, self.to_json())

    def to_networkx(self) -> nx.DiGraph[Any]:
        """Return a DiGraph keyed by node id, with ``name``, ``wnid`` (where known), ``class_index``."""
        import networkx as nx

        graph: nx.DiGraph[str] = nx.DiGraph()
        for index, node in enumerate(self.nodes):
            attributes: dict[str, Any] = {"name": node.name}
            if node.wnid:
                attributes["wnid"] = node.wnid
            if self.class_indices[index] >= 0:
                attributes["class_index"] = self.class_indices[index]
            graph.add_node(node.id, **attributes)
        graph.add_edges_from((str(node.parent), node.id) for node in self.nodes[1:])
        return graph

    @property
    def num_classes(self) -> int:
        """Number of classes, and of leaves."""
        return len(self.classes)

    @property
    def num_nodes(self) -> int:
        """Number of nodes, leaves included."""
        return len(self.nodes)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Name of each node, for people; names of inner nodes may repeat."""
        return tuple(node.name for node in self.nodes)

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """Id of each node: unique, and kept by edits. A leaf's id is its class name."""
        return tuple(node.id for node in self.nodes)

    @cached_property
    def parents(self) -> tuple[int, ...]:
        """Index of each node's parent, -1 for the root; ``parents[i] < i``."""
        return (-1, *(self._by_id[str(node.parent)] for node in self.nodes[1:]))

    @cached_property
    def children(self) -> tuple[range, ...]:
        """Each node's children, a range of node indices (empty for a leaf)."""
        counts = Counter(self.parents)
        ranges, start = [], 1
        for index in range(self.num_nodes):
            ranges.append(range(start, start + counts[index]))
            start += counts[index]
        return tuple(ranges)

    @cached_property
    def class_indices(self) -> tuple[int, ...]:
        """Class index of each leaf, -1 for inner nodes."""
        position = {name: index for index, name in enumerate(self.classes)}
        return tuple(
            -1 if children else position[node.id]
            for node, children in zip(self.nodes, self.children, strict=True)
        )

    @cached_property
    def leaf_nodes(self) -> tuple[int, ...]:
        """Node index of each class."""
        return tuple(self._by_id[name] for name in self.classes)

    @cached_property
    def class_wnids(self) -> tuple[str | None, ...]:
        """WordNet id of each class, None where unknown."""
        return tuple(self.nodes[leaf].wnid for leaf in self.leaf_nodes)

    @cached_property
    def spans(self) -> tuple[range, ...]:
        """Leaves under each node, as a range of positions in `leaf_order`."""
        parents, children = self.parents, self.children
        sizes = [int(not below) for below in children]
        for node in range(self.num_nodes - 1, 0, -1):  # children before parents
            sizes[parents[node]] += sizes[node]
        starts, free = [0] * self.num_nodes, [0] * self.num_nodes  # free: of the next child
        for node in range(1, self.num_nodes):
            parent = parents[node]
            starts[node] = free[node] = free[parent]
            free[parent] += sizes[node]
        return tuple(range(a, a + size) for a, size in zip(starts, sizes, strict=True))

    @cached_property
    def leaf_order(self) -> tuple[int, ...]:
        """Class indices in depth-first order: the leaves under any node are neighbours."""
        order, spans = [0] * self.num_classes, self.spans
        for class_index, leaf in enumerate(self.leaf_nodes):
            order[spans[leaf].start] = class_index
        return tuple(order)

    @cached_property
    def inner_nodes(self) -> tuple[int, ...]:
        """Indices of the nodes that decide between children."""
        return tuple(index for index, children in enumerate(self.children) if children)

    @cached_property
    def depths(self) -> tuple[int, ...]:
        """Edges between the root and each node."""
        depths = [0] * self.num_nodes
        for index, parent in enumerate(self.parents[1:], start=1):
            depths[index] = depths[parent] + 1
        return tuple(depths)

    @property
    def depth(self) -> int:
        """Edges on the longest path from the root to a leaf."""
        return self.depths[-1]

    @cached_property
    def heights(self) -> tuple[int, ...]:
        """Edges between each node and the deepest leaf under it."""
        heights = [0] * self.num_nodes
        for index in range(self.num_nodes - 1, 0, -1):  # children before parents
            parent = self.parents[index]
            heights[parent] = max(heights[parent], heights[index] + 1)
        return tuple(heights)

    def path_to(self, node: int) -> list[int]:
        """Return node indices from the root to `node`, both included."""
        path = [node]
        while self.parents[path[-1]] >= 0:
            path.append(self.parents[path[-1]])
        return path[::-1]

    def path_of_class(self, class_index: int) -> list[int]:
        """Return node indices from the root to a class's leaf."""
        return self.path_to(self.leaf_nodes[class_index])

    def common_ancestor(self, nodes: Iterable[int]) -> int:
        """Return the lowest node that is above all given nodes, or is one of them."""
        paths = [self.path_to(node) for node in nodes]
        levels: list[tuple[int, ...]] = [*zip(*paths, strict=False)]
        return [level[0] for level in levels if len({*level}) == 1][-1]

    def classes_under(self, node: int) -> list[int]:
        """Return class indices of the leaves under `node`, depth-first; a leaf is under itself."""
        span = self.spans[node]
        return list(self.leaf_order[span.start : span.stop])

    @cached_property
    def _by_id(self) -> dict[str, int]:
        return {node.id: index for index, node in enumerate(self.nodes)}

    def index(self, node: str) -> int:
        """Return the index of the node with this id or, failing that, this unambiguous name.

        Raises HierarchyError: unknown (the nearest names are suggested) or ambiguous.
        """
        if node in self._by_id:
            return self._by_id[node]
        plain = nfc(node)
        matches = [index for index, name in enumerate(self.ids) if nfc(name) == plain] or [
            index for index, name in enumerate(self.names) if nfc(name) == plain
        ]
        if len(matches) == 1:
            return matches[0]
        if matches:
            ids = listed(self.ids[index] for index in matches)
            raise HierarchyError(f"{len(matches)} nodes are named {node!r}; say which id: {ids}.")
        known = {*self.ids, *self.names}
        raise HierarchyError(f"There is no node {node!r}.{nearest(str(node), known)}")

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the content: structure, ids, names, WordNet ids, class order."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def __repr__(self) -> str:
        return (
            f"Hierarchy({self.num_classes} classes, {len(self.inner_nodes)} inner nodes, "
            f"depth {self.depth})"
        )

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        """Yield one line a node, and "…" for what is below MAX_SHOWN_DEPTH levels."""
        stack = [(0, "", "")]
        while stack:
            node, first, rest = stack.pop()
            yield first + self.names[node]
            children = self.children[node]
            if children and len(rest) >= 4 * MAX_SHOWN_DEPTH:
                yield f"{rest}└── …"
                continue
            for child in reversed(children):
                last = child == children[-1]
                branch, below = ("└── ", "    ") if last else ("├── ", "│   ")
                stack.append((child, rest + branch, rest + below))

    def _repr_html_(self) -> str:
        shown = "\n".join(islice(self._lines(), 200))
        rest = f"\n… {self.num_nodes - 200:,} more nodes" if self.num_nodes > 200 else ""
        return f"<pre>{html.escape(repr(self))}\n{html.escape(shown)}{rest}</pre>"
