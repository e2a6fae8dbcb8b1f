"""A `Hierarchy` compiled to index tensors, and the two sums over it that all rules use.

Layout. Sums run on tensors of shape ``(rows, batch)``: a row is then one contiguous vector.
*Edges* are the nodes without the root, one row each, ordered so that sibling groups of equal size
are neighbours: all groups of one size are decided by a single ``log_softmax``.

Sums run over pairs of a class and an edge above it. In a deep tree these would grow with the square
of its depth, so it is cut into *stages* of 32 levels. A stage has as its *ends* the leaves in it and
the *anchors*, inner nodes of its last level, and pairs each end with the edges above it in the stage.
"""

from itertools import pairwise
from typing import Any, NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from .hierarchy import Hierarchy

Ints = NDArray[np.int64]
STRIDE = 32  # levels of a stage
GATHER_ARITY = 16  # up to this many children a descent gathers them; above, it ranks all groups


class Run(NamedTuple):
    """`groups` sibling groups of `size` children each: edge rows from `start`."""

    start: int
    groups: int
    size: int


class TreeIndex(nn.Module):
    """The index tensors of one hierarchy. They move with the module and are never saved."""

    runs: list[Run]  # the edges by size of their sibling group
    levels: list[tuple[int, int]]  # ``[low, high)`` node indices of each level below the root
    node_of_edge: Tensor  # (edges,) node index of each edge row
    edge_of_node: Tensor  # (nodes,) edge row of each node; the root's is one past the last
    group_of_edge: Tensor  # (edges,) the sibling group that an edge belongs to
    group_below: Tensor  # (edges + 1,) the group that decides below an edge, -1 below a leaf
    parent_edge: Tensor  # (edges + 1,) the edge above each; the root's row is its own
    group_start: Tensor  # (groups,) first edge row of a group
    group_size: Tensor  # (groups,) number of edges of a group
    sizes: Tensor  # (edges, 1) number of leaves below each edge
    family: Tensor  # (nodes,) rank of a node's parent among the parents of its level
    class_of_node: Tensor  # (nodes,) class index, -1 for inner nodes
    leaf_nodes: Tensor  # (classes,) node index of each class
    child_edges: Tensor  # (edges + 1, arity) the edges below an edge; empty for wide trees

    def __init__(self, hierarchy: Hierarchy) -> None:
        super().__init__()
        _keep_pages()
        self.num_classes = hierarchy.num_classes
        self.num_nodes = hierarchy.num_nodes
        self.depth = hierarchy.depth
        parents = np.array(hierarchy.parents)
        depths = np.array(hierarchy.depths)
        classes = np.array(hierarchy.class_indices)
        self._add("class_of_node", classes)
        self._add("leaf_nodes", np.array(hierarchy.leaf_nodes))
        node_of_edge, edge_of_node = self._index_edges(parents)
        self._index_descent(parents, node_of_edge, edge_of_node)
        bounds = np.searchsorted(depths, np.arange(1, self.depth + 2)).tolist()
        self.levels = list(pairwise(bounds))
        family = np.zeros_like(parents)
        for low, high in self.levels:
            family[low:high] = np.unique(parents[low:high], return_inverse=True)[1]
        self._add("family", family)
        sizes = np.array([len(span) for span in hierarchy.spans])
        self._add("sizes", sizes[node_of_edge, None])
        self._index_stages(parents, depths, classes, edge_of_node)

    def _add(self, name: str, values: Any) -> None:
        self.register_buffer(name, torch.as_tensor(values), persistent=False)

    def _index_edges(self, parents: Ints) -> tuple[Ints, Ints]:
        arity = np.bincount(parents[1:], minlength=len(parents))
        size_of_group = arity[parents[1:]]
        node_of_edge = 1 + np.argsort(size_of_group, kind="stable")
        edge_of_node = np.full(len(parents), len(node_of_edge))
        edge_of_node[node_of_edge] = np.arange(len(node_of_edge))
        sizes, counts = np.unique(size_of_group, return_counts=True)
        starts = np.cumsum(counts) - counts
        self.runs = [
            Run(int(start), int(count // size), int(size))
            for start, count, size in zip(starts, counts, sizes, strict=True)
        ]
        self.max_arity = self.runs[-1].size
        self._add("node_of_edge", node_of_edge)
        self._add("edge_of_node", edge_of_node)
        return node_of_edge, edge_of_node

    def _index_descent(self, parents: Ints, node_of_edge: Ints, edge_of_node: Ints) -> None:
        """Groups, and the children of every edge, where a leaf's only child is itself."""
        size = np.concatenate([np.full(run.groups, run.size) for run in self.runs])
        start = np.cumsum(size) - size
        below = np.full(len(parents), -1)
        deciding = edge_of_node[parents[node_of_edge[start]]]
        below[deciding] = np.arange(len(start))
        width = self.max_arity if self.max_arity <= GATHER_ARITY else 0
        children = np.repeat(np.arange(len(parents))[:, None], width, axis=1)
        # Shorter groups repeat their last child: a duplicate cannot change which child is best.
        children[deciding] = start[:, None] + np.minimum(np.arange(width), size[:, None] - 1)
        parent_edge = np.append(edge_of_node[parents[node_of_edge]], len(node_of_edge))
        self._add("parent_edge", parent_edge)
        self._add("group_start", start)
        self._add("group_size", size)
        self._add("group_of_edge", np.repeat(np.arange(len(start)), size))
        self._add("group_below", below)
        self._add("child_edges", children)

    def target_paths(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """The edges from each target node, (batch,), up to the root, and their images."""
        steps = [self.edge_of_node[nodes]]
        for _ in range(self.depth - 1):
            steps.append(self.parent_edge.index_select(0, steps[-1]))
        edges = torch.stack(steps, dim=1)
        image, step = (edges < len(self.node_of_edge)).nonzero(as_tuple=True)
        return image, edges[image, step]

    def _index_stages(self, parents: Ints, depths: Ints, classes: Ints, edge_of_node: Ints) -> None:
        """Index the pairs of each stage by end and by edge, and the anchors that its ends are below."""
        anchor, leaf_nodes = _anchors(parents, depths), self.leaf_nodes.numpy()
        self.stages = -(-self.depth // STRIDE)
        self.anchors = [1]  # above each stage; the root is above the first
        position = np.zeros_like(parents)  # of an anchor among those of its stage
        for stage in range(self.stages):
            low, high = stage * STRIDE, (stage + 1) * STRIDE
            leaves = leaf_nodes[(depths[leaf_nodes] > low) & (depths[leaf_nodes] <= high)]
            anchors = np.flatnonzero((depths == high) & (classes < 0))
            ends = np.concatenate([leaves, anchors])
            lengths = depths[ends] - low
            nodes, offsets = _climb(ends, lengths, parents)
            above = edge_of_node[nodes]
            edges, counts = np.unique(above, return_counts=True)
            below = np.repeat(np.arange(len(ends)), lengths)[np.argsort(above, kind="stable")]
            self._add(f"above_{stage}", above.astype(np.int32))
            self._add(f"above_offsets_{stage}", offsets.astype(np.int32))
            self._add(f"below_{stage}", below.astype(np.int32))
            self._add(f"below_offsets_{stage}", (np.cumsum(counts) - counts).astype(np.int32))
            self._add(f"edges_{stage}", edges)
            self._add(f"classes_{stage}", classes[leaves])
            self._add(f"anchor_{stage}", position[anchor[ends]])
            position[anchors] = np.arange(len(anchors))
            self.anchors.append(len(anchors))

    def node_sums(self, values: Tensor) -> Tensor:
        """Sums over the leaves below each edge: (classes, batch) -> (edges, batch)."""
        return _sum(values, self, leaves=True)

    def path_sums(self, values: Tensor) -> Tensor:
        """Sums over the edges from the root to each class: (edges, batch) -> (classes, batch)."""
        return _sum(values, self, leaves=False)

    def gather_leaves(self, values: Tensor) -> Tensor:
        """`node_sums` outside autograd, from the lowest stage up."""
        if self.stages == 1:  # its leaves are all classes, in order, and its edges all edges
            return self._bag("below", 0, values)
        result = values.new_empty(len(self.node_of_edge), values.shape[1])
        anchored = values[:0]
        for stage in reversed(range(self.stages)):
            leaves = values.index_select(0, getattr(self, f"classes_{stage}"))
            ends = torch.cat([leaves, anchored])
            result.index_copy_(0, getattr(self, f"edges_{stage}"), self._bag("below", stage, ends))
            anchored = values.new_zeros(self.anchors[stage], values.shape[1])
            anchored.index_add_(0, getattr(self, f"anchor_{stage}"), ends)
        return result

    def gather_edges(self, values: Tensor) -> Tensor:
        """`path_sums` outside autograd, from the root's stage down."""
        if self.stages == 1:
            return self._bag("above", 0, values)
        result = values.new_empty(self.num_classes, values.shape[1])
        anchored = values.new_zeros(1, values.shape[1])
        for stage in range(self.stages):
            start = anchored.index_select(0, getattr(self, f"anchor_{stage}"))
            ends = self._bag("above", stage, values) + start
            classes = getattr(self, f"classes_{stage}")
            result.index_copy_(0, classes, ends[: len(classes)])
            anchored = ends[len(classes) :]
        return result

    def _bag(self, side: str, stage: int, table: Tensor) -> Tensor:
        """Sums of runs of rows: run i is ``rows[offsets[i]:offsets[i + 1]]``."""
        rows, offsets = getattr(self, f"{side}_{stage}"), getattr(self, f"{side}_offsets_{stage}")
        # For a single column the kernel without weights is far slower.
        weights = table.new_ones(len(rows)) if table.shape[1] == 1 else None
        return F.embedding_bag(rows, table, offsets, mode="sum", per_sample_weights=weights)


def _keep_pages() -> None:
    """Teach glibc to keep freed buffers of a few MB instead of returning them to the system.

    It learns from the largest buffer freed so far. Fresh pages cost more than the sums that fill
    them: soft decisions at batch 128 over 1,000 classes took 14 times log_softmax instead of 8.5.
    Nothing is touched here, so no memory is used.
    """
    torch.empty(24 * 2**20, dtype=torch.uint8)


def _sum(values: Tensor, tree: TreeIndex, *, leaves: bool) -> Tensor:
    """Over the leaves below each edge or the edges above each leaf; autograd only where asked."""
    if values.requires_grad and torch.is_grad_enabled():
        return cast(Tensor, _TreeSum.apply(values, tree, leaves))  # type: ignore[no-untyped-call]
    return tree.gather_leaves(values) if leaves else tree.gather_edges(values)


class _TreeSum(torch.autograd.Function):
    """The gradient of a sum over leaves is the sum over edges, and back."""

    @staticmethod
    def forward(values: Tensor, tree: TreeIndex, leaves: bool) -> Tensor:
        return tree.gather_leaves(values) if leaves else tree.gather_edges(values)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, ctx.tree, ctx.leaves = inputs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _sum(gradient.contiguous(), ctx.tree, leaves=not ctx.leaves), None, None


def _anchors(parents: Ints, depths: Ints) -> Ints:
    """Each node's nearest proper ancestor whose depth is a multiple of the stride."""
    anchor, up = [0] * len(parents), parents.tolist()
    whole = (depths % STRIDE == 0).tolist()
    for node in range(1, len(up)):
        anchor[node] = up[node] if whole[up[node]] else anchor[up[node]]
    return np.array(anchor)


def _climb(ends: Ints, lengths: Ints, parents: Ints) -> tuple[Ints, Ints]:
    """The nodes from each end `lengths` steps up; and where each run of them starts."""
    offsets = np.cumsum(lengths) - lengths
    rows = np.empty(int(lengths.sum()), dtype=np.int64)
    current, active, step = ends, np.arange(len(ends)), 0
    while len(active):
        rows[offsets[active] + step] = current
        step += 1
        remains = lengths[active] > step
        active, current = active[remains], parents[current[remains]]
    return rows, offsets
