"""The rules for export: gathers, sums and softmaxes level by level, which every runtime has.

The fast path of `nbdt.tree.index` sums with kernels that ONNX does not know. Here a level is one padded
table of children; values are float32, with rows centred first, so that they agree with
`nbdt.decide.rules` to 1e-4 as long as logits stay within a thousand of each other.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from ..decide.rules import check_rule
from ..tree.hierarchy import Hierarchy


class Level(nn.Module):
    """The nodes of one depth, and the children of those that have some.

    Attributes:
        classes: (leaves,) class index of the level's leaves.
        order: (nodes,) positions in [leaves, inner nodes] that give the level's own order.
        table: (inner, arity) positions of children in the level below, the first one repeated.
        blank: (inner, arity) 0, and -inf at repetitions.
        share: (inner, arity) each child's part of its parent's classes, 0 at repetitions.
        real: (nodes below,) positions in the flattened table that are no repetitions.
    """

    classes: Tensor
    order: Tensor
    table: Tensor
    blank: Tensor
    share: Tensor
    real: Tensor

    def __init__(self, hierarchy: Hierarchy, nodes: range, below: int, sizes: list[int]) -> None:
        super().__init__()
        leaves = [node for node in nodes if not hierarchy.children[node]]
        self.inner = [node for node in nodes if hierarchy.children[node]]
        self.leaves = len(leaves)
        order = np.argsort([*leaves, *self.inner])
        arity = max((len(hierarchy.children[node]) for node in self.inner), default=0)
        table = np.zeros((len(self.inner), arity), dtype=np.int64)
        share = np.zeros(table.shape, dtype=np.float32)
        for row, node in enumerate(self.inner):
            children = hierarchy.children[node]
            table[row] = children.start - below
            table[row, : len(children)] = [child - below for child in children]
            share[row, : len(children)] = [sizes[child] / sizes[node] for child in children]
        self._add("classes", np.array([hierarchy.class_indices[n] for n in leaves], dtype=np.int64))
        self._add("order", order)
        self._add("table", table)
        self._add("blank", np.where(share > 0, 0, -np.inf).astype(np.float32))
        self._add("share", share)
        self._add("real", np.flatnonzero(share.reshape(-1) > 0))

    def _add(self, name: str, values: np.ndarray) -> None:
        if values.size:  # torch.export cannot save empty tensors
            self.register_buffer(name, torch.from_numpy(values), persistent=False)

    def gather(self, below: Tensor) -> Tensor:
        """(batch, nodes below, …) to (batch, inner, arity, …)."""
        shape = tuple(self.table.shape)
        groups: Tensor = below.index_select(1, self.table.flatten()).unflatten(1, shape)
        return groups

    def spread(self, groups: Tensor) -> Tensor:
        """(batch, inner, arity, …) to (batch, nodes below, …): `gather` undone."""
        return groups.flatten(1, 2).index_select(1, self.real)

    def join(self, of_classes: Tensor, inner: Tensor | None) -> Tensor:
        """(batch, classes, …) and (batch, inner, …) to (batch, nodes, …)."""
        parts = [of_classes.index_select(1, self.classes)] if self.leaves else []
        parts += [inner] if inner is not None else []
        return torch.cat(parts, dim=1).index_select(1, self.order)


class ExportedTree(nn.Module):
    """Scores, decisions and maps of all nodes; each is a list of levels, the root's first."""

    leaf_nodes: Tensor

    def __init__(self, hierarchy: Hierarchy, rule: str) -> None:
        super().__init__()
        self.rule = check_rule(rule)
        depths = np.array(hierarchy.depths)
        bounds = np.searchsorted(depths, np.arange(hierarchy.depth + 2)).tolist()
        sizes = [len(span) for span in hierarchy.spans]
        spans = [range(*pair) for pair in pairwise(bounds)]
        self.levels = nn.ModuleList(Level(hierarchy, span, span.stop, sizes) for span in spans)
        self.register_buffer("leaf_nodes", torch.tensor(hierarchy.leaf_nodes), persistent=False)
        for low, span in enumerate(spans[1:]):
            parents = [hierarchy.parents[node] - spans[low].start for node in span]
            self.register_buffer(f"parents_{low}", torch.tensor(parents), persistent=False)

    def _up(self, of_classes: Tensor, merge: Callable[[int, Tensor], Tensor]) -> list[Tensor]:
        """Return values of all nodes from those of the classes, from the lowest level up."""
        found: list[Tensor] = []
        for depth in reversed(range(len(self.levels))):
            level = self._level(depth)
            inner = merge(depth, level.gather(found[-1])) if level.inner else None
            found.append(level.join(of_classes, inner))
        return found[::-1]

    def _level(self, depth: int) -> Level:
        return cast(Level, self.levels[depth])

    def scores(self, logits: Tensor) -> list[Tensor]:
        """Return node scores of (batch, classes), each level (batch, nodes)."""
        centred = logits - logits.amax(dim=1, keepdim=True)
        if self.rule == "marginal":
            return self._up(
                centred, lambda depth, groups: (groups + self._level(depth).blank).logsumexp(dim=2)
            )
        return self._up(centred, lambda depth, groups: (groups * self._level(depth).share).sum(2))

    def decisions(self, scores: list[Tensor]) -> list[Tensor]:
        """Return log-probabilities among siblings, each level (batch, nodes); the root's is 0."""
        found = [torch.zeros_like(scores[0])]
        for depth, below in enumerate(scores[1:]):
            level = self._level(depth)
            groups = level.gather(below) + level.blank
            found.append(level.spread(groups.log_softmax(dim=2)))
        return found

    def columns(self, levels: list[Tensor]) -> Tensor:
        """Join levels to (batch, nodes, …), as in `Hierarchy.nodes`."""
        return torch.cat(levels, dim=1)

    def log_probs(self, logits: Tensor, decisions: list[Tensor]) -> Tensor:
        """Return leaf log-probabilities (batch, classes): sums along the paths."""
        if self.rule == "marginal":
            return logits.log_softmax(dim=1)
        sums = [decisions[0]]
        for low, decision in enumerate(decisions[1:]):
            sums.append(sums[-1].index_select(1, getattr(self, f"parents_{low}")) + decision)
        return self.columns(sums).index_select(1, self.leaf_nodes)

    def log_odds_maps(
        self, class_maps: Tensor, scores: list[Tensor], decisions: list[Tensor]
    ) -> Tensor:
        """Return the map of every node's log-odds: (batch, classes, height, width) to (batch, nodes, …).

        A node's map is the mean of its children's, by their number of classes
        (`representative`) or by their probabilities (`marginal`). That of log-odds is the node's
        less the mean of its siblings', see `nbdt.decide.maps.log_odds_coefficients`.
        """

        def merge(depth: int, groups: Tensor) -> Tensor:
            return (groups * self._shares(depth, decisions)[..., None, None]).sum(dim=2)

        maps = self._up(class_maps, merge)
        found = [torch.zeros_like(maps[0])]
        for depth, below in enumerate(maps[1:]):
            level = self._level(depth)
            own = level.gather(below)
            rest = _others(own, level.gather(scores[depth + 1]) + level.blank)
            found.append(level.spread(own - rest))
        return self.columns(found)

    def _shares(self, depth: int, decisions: list[Tensor]) -> Tensor:
        level = self._level(depth)
        if self.rule == "representative":
            return level.share
        return (level.gather(decisions[depth + 1]) + level.blank).exp()


def _others(maps: Tensor, scores: Tensor) -> Tensor:
    """Return the mean map of each child's siblings, by their probabilities among themselves.

    ``(Σ p·map − p_j map_j)/(1 − p_j)`` loses all digits as ``p_j`` nears 1; only the best child
    can exceed a half, so its siblings are averaged on their own.

    Args:
        maps: (batch, inner, arity, height, width).
        scores: (batch, inner, arity), -inf where there is no child.
    """
    places = torch.arange(scores.shape[2], device=scores.device)
    best = (places == scores.argmax(dim=2, keepdim=True))[..., None, None]
    chance = scores.softmax(dim=2)[..., None, None]
    without = torch.where(best[..., 0, 0], torch.full_like(scores, -torch.inf), scores)
    beside_best = (without.softmax(dim=2)[..., None, None] * maps).sum(dim=2, keepdim=True)
    total = (chance * maps).sum(dim=2, keepdim=True)
    left = torch.where(best, torch.ones_like(chance), 1 - chance)
    return torch.where(best, beside_best, (total - chance * maps) / left)
