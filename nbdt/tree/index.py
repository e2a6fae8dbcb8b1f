"""A `Hierarchy` compiled to index tensors, and the two sums over it that all rules use.

Layout. Sums run on tensors of shape ``(rows, batch)``: a row is then one contiguous vector.
*Edges* are the nodes without the root, one row each, ordered so that sibling groups of equal size
are neighbours: all groups of one size are decided by a single ``log_softmax``.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from .hierarchy import Hierarchy

Ints = NDArray[np.int64]
BLOCK = 32  # leaves summed at once; bounds the terms, and so the rounding, of any float32 sum
STRIDE = 32  # levels between the partial path sums that deeper ones build on
GATHER_ARITY = 16  # up to this many children a descent gathers them; above, it ranks all groups


class Run(NamedTuple):
    """`groups` sibling groups of `size` children each: edge rows from `start`."""

    start: int
    groups: int
    size: int


class TreeIndex(nn.Module):
    """The index tensors of one hierarchy. They move with the module and are never saved.

    Attributes:
        runs: the edges by size of their sibling group.
        node_of_edge: (edges,) node index of each edge row.
        edge_of_node: (nodes,) edge row of each node; the root's is one past the last.
        group_of_edge: (edges,) the sibling group that an edge belongs to.
        parent_edge: (edges + 1,) the edge above each; the root's row is its own.
        group_below: (edges + 1,) the group that decides below an edge, -1 below a leaf.
        group_start, group_size: (groups,) first edge row of a group, and its number of edges.
        sizes: (edges, 1) number of leaves below each edge.
        levels: ``[low, high)`` node indices of each level below the root.
        family: (nodes,) rank of a node's parent among the parents of its level.
        class_of_node: (nodes,) class index, -1 for inner nodes.
        leaf_nodes: (classes,) node index of each class.
    """

    node_of_edge: Tensor
    edge_of_node: Tensor
    group_of_edge: Tensor
    group_below: Tensor
    parent_edge: Tensor
    group_start: Tensor
    group_size: Tensor
    sizes: Tensor
    family: Tensor
    class_of_node: Tensor
    leaf_nodes: Tensor
    child_edges: Tensor

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
        self._index_levels(parents, depths)
        self._index_sums(hierarchy, node_of_edge)
        self._index_paths(parents, depths, classes, edge_of_node)

    def _add(self, name: str, values: Any) -> None:
        self.register_buffer(name, torch.as_tensor(values), persistent=False)

    # ---- edges, groups, levels ------------------------------------------------------------

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

    def _index_levels(self, parents: Ints, depths: Ints) -> None:
        bounds = np.searchsorted(depths, np.arange(1, self.depth + 2)).tolist()
        self.levels = list(pairwise(bounds))
        family = np.zeros_like(parents)
        for low, high in self.levels:
            family[low:high] = np.unique(parents[low:high], return_inverse=True)[1]
        self._add("family", family)

    def target_paths(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """The edges from each target class, (batch,), up to the root, and their images."""
        current = self.edge_of_node[self.leaf_nodes[target]]
        steps = [current]
        for _ in range(self.depth - 1):
            steps.append(self.parent_edge.index_select(0, steps[-1]))
        edges = torch.stack(steps, dim=1)
        image, step = (edges < len(self.node_of_edge)).nonzero(as_tuple=True)
        return image, edges[image, step]

    # ---- sums over the leaves below each edge ---------------------------------------------

    def _index_sums(self, hierarchy: Hierarchy, node_of_edge: Ints) -> None:
        """Cover each edge's leaf range by whole blocks of 32, 32², … leaves and loose ends."""
        order, spans = np.array(hierarchy.leaf_order), hierarchy.spans
        ends = np.array([[span.start for span in spans], [span.stop for span in spans]]).T
        (low, high), edges = ends[node_of_edge].T, np.arange(len(node_of_edge))
        sizes = high - low
        self._add("sizes", sizes[:, None])
        count = len(order)
        self.cover_levels = 0
        while len(edges):
            first, last = -(-low // BLOCK), high // BLOCK
            blocks = last - first >= 2
            loose_until = np.where(blocks, first * BLOCK, high)
            loose_from = np.where(blocks, last * BLOCK, high)
            rows, offsets = _concatenate_ranges([(low, loose_until), (loose_from, high)])
            level = self.cover_levels
            self._add(f"cover_edges_{level}", edges)
            self._add(f"cover_rows_{level}", (rows if level else order[rows]).astype(np.int32))
            self._add(f"cover_offsets_{level}", offsets.astype(np.int32))
            lengths = np.diff(np.append(offsets, len(rows)))
            self._add(f"cover_sizes_{level}", np.repeat(sizes[edges], lengths).astype(np.int32))
            self.cover_levels += 1
            steps = np.arange(count, dtype=np.int32)
            self._add(f"block_rows_{level + 1}", steps if level else order.astype(np.int32))
            self._add(f"block_offsets_{level + 1}", steps[::BLOCK].copy())
            count = len(steps[::BLOCK])
            low, high, edges = first[blocks], last[blocks], edges[blocks]

    def node_means(self, values: Tensor) -> Tensor:
        """Means over the leaves below each edge: (classes, batch) -> (edges, batch)."""
        return _sum(values, self, leaves=True, mean=True)

    def node_sums(self, values: Tensor) -> Tensor:
        """Sums over the leaves below each edge: (classes, batch) -> (edges, batch)."""
        return _sum(values, self, leaves=True, mean=False)

    def gather_leaves(self, values: Tensor, *, mean: bool) -> Tensor:
        """`node_sums` or `node_means` outside autograd."""
        table = values
        sums = self._bag("cover", 0, table, mean=mean)
        for level in range(1, self.cover_levels):
            table = self._blocks(table, level)
            part = self._bag("cover", level, table, mean=mean)
            sums.index_add_(0, getattr(self, f"cover_edges_{level}"), part)
        return sums

    def _blocks(self, table: Tensor, level: int) -> Tensor:
        """Sums of every 32 rows of `table`; the first level reads leaves in depth-first order."""
        starts = getattr(self, f"block_offsets_{level}")
        return _bag(table, getattr(self, f"block_rows_{level}"), starts)

    def _bag(self, kind: str, part: int, table: Tensor, *, mean: bool) -> Tensor:
        rows = getattr(self, f"{kind}_rows_{part}")
        offsets = getattr(self, f"{kind}_offsets_{part}")
        if not mean:
            return _bag(table, rows, offsets)
        # Sizes are kept as integers: module.half() would round their reciprocals.
        sizes = getattr(self, f"{kind}_sizes_{part}")
        return _bag(table, rows, offsets, sizes.to(table.dtype).reciprocal_())

    # ---- sums over the edges above each leaf ----------------------------------------------

    def _index_paths(self, parents: Ints, depths: Ints, classes: Ints, edge_of_node: Ints) -> None:
        """Per stage: the leaves and anchors it ends at, and the edges up to the last anchor."""
        anchor = _anchors(parents, depths)
        leaf_nodes, sizes = self.leaf_nodes.numpy(), self.sizes.numpy()[:, 0]
        self.stages = -(-self.depth // STRIDE)
        position = np.zeros_like(parents)
        for stage in range(self.stages):
            low, high = stage * STRIDE, (stage + 1) * STRIDE
            leaves = leaf_nodes[(depths[leaf_nodes] > low) & (depths[leaf_nodes] <= high)]
            ends = np.concatenate([leaves, np.flatnonzero((depths == high) & (classes < 0))])
            nodes, offsets = _climb(ends, depths[ends] - low, parents)
            rows = edge_of_node[nodes]
            self._add(f"path_rows_{stage}", rows.astype(np.int32))
            self._add(f"path_sizes_{stage}", sizes[rows].astype(np.int32))
            self._add(f"path_offsets_{stage}", offsets.astype(np.int32))
            self._add(f"path_from_{stage}", position[anchor[ends]])
            self._add(f"path_classes_{stage}", classes[leaves])
            position[ends[len(leaves) :]] = np.arange(len(leaves), len(ends))

    def path_sums(self, values: Tensor) -> Tensor:
        """Sums over the edges from the root to each class: (edges, batch) -> (classes, batch)."""
        return _sum(values, self, leaves=False, mean=False)

    def path_shares(self, values: Tensor) -> Tensor:
        """As `path_sums`, each edge's value divided by its number of leaves."""
        return _sum(values, self, leaves=False, mean=True)

    def gather_edges(self, values: Tensor, *, mean: bool) -> Tensor:
        """`path_sums` or `path_shares` outside autograd."""
        ends = self._bag("path", 0, values, mean=mean)
        if self.stages == 1:  # its leaves are all classes, in order
            return ends
        result = values.new_empty(self.num_classes, values.shape[1])
        for stage in range(self.stages):
            if stage:
                start = ends.index_select(0, getattr(self, f"path_from_{stage}"))
                ends = self._bag("path", stage, values, mean=mean) + start
            classes = getattr(self, f"path_classes_{stage}")
            result.index_copy_(0, classes, ends[: len(classes)])
        return result


def _keep_pages() -> None:
    """Teach glibc to keep freed buffers of a few MB instead of returning them to the system.

    It learns from the largest buffer freed so far. Fresh pages cost more than the sums that fill
    them: soft decisions at batch 128 over 1,000 classes took 14 times log_softmax instead of 8.5.
    Nothing is touched here, so no memory is used.
    """
    torch.empty(24 * 2**20, dtype=torch.uint8)


def _bag(table: Tensor, rows: Tensor, offsets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Weighted sums of runs of rows: run i is ``rows[offsets[i]:offsets[i + 1]]``."""
    if weights is None and table.shape[1] == 1:  # where the kernel without weights is far slower
        weights = table.new_ones(len(rows))
    return F.embedding_bag(rows, table, offsets, mode="sum", per_sample_weights=weights)


def _sum(values: Tensor, tree: TreeIndex, *, leaves: bool, mean: bool) -> Tensor:
    """Over the leaves below each edge or the edges above each leaf; autograd only where asked."""
    if values.requires_grad and torch.is_grad_enabled():
        return cast(Tensor, _TreeSum.apply(values, tree, leaves, mean))  # type: ignore[no-untyped-call]
    return (tree.gather_leaves if leaves else tree.gather_edges)(values, mean=mean)


class _TreeSum(torch.autograd.Function):
    """The gradient of a sum over leaves is the sum over edges with the same weights, and back."""

    @staticmethod
    def forward(values: Tensor, tree: TreeIndex, leaves: bool, mean: bool) -> Tensor:
        return (tree.gather_leaves if leaves else tree.gather_edges)(values, mean=mean)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, ctx.tree, ctx.leaves, ctx.mean = inputs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        result = _sum(gradient.contiguous(), ctx.tree, leaves=not ctx.leaves, mean=ctx.mean)
        return result, None, None, None


# ---- index arithmetic, once per tree, in NumPy ----------------------------------------------


def _concatenate_ranges(pieces: list[tuple[Ints, Ints]]) -> tuple[Ints, Ints]:
    """Rows of run i: the union of its ranges in every piece; and where each run starts."""
    lows = np.stack([low for low, _ in pieces], axis=1).ravel()
    lengths = np.stack([high - low for low, high in pieces], axis=1).ravel()
    ends = np.cumsum(lengths)
    rows = np.arange(ends[-1]) + np.repeat(lows - (ends - lengths), lengths)
    return rows, (ends - lengths)[:: len(pieces)]


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
