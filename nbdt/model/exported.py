"""The head, the rules and the answer for export, of gathers and scatters, which every runtime has.

The fast path of `nbdt.tree.index` sums with kernels that ONNX does not know. Values are float32,
with rows centred first, so that they agree with `nbdt.decide.rules` to 1e-4 as long as logits stay
within a thousand of each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..decide.answer import Calibration
from ..decide.head import NBDTHead
from ..decide.rules import check_rule
from ..decide.stopping import information, path_table
from ..decide.unknown import FALSE_ALARMS, familiarity
from ..tree.hierarchy import Hierarchy
from .saved import SCALE, stored, widened

ALWAYS_ROOT = 1e9  # stands for an infinite threshold, which would give NaN for a probability of 0


class ExportedTree(nn.Module):
    """Scores, decisions and maps of all nodes, in columns as in `Hierarchy.nodes`."""

    pair_class: Tensor  # (pairs,) every class with every node above it, the leaf included
    pair_node: Tensor  # (pairs,) that node
    sizes: Tensor  # (nodes,) number of classes under each node
    parents: Tensor  # (nodes,) the root's is itself

    def __init__(self, hierarchy: Hierarchy, rule: str) -> None:
        super().__init__()
        self.rule = check_rule(rule)
        self.num_classes, self.num_nodes = hierarchy.num_classes, hierarchy.num_nodes
        routes = [hierarchy.path_of_class(index) for index in range(self.num_classes)]
        pairs = torch.tensor([(k, node) for k, route in enumerate(routes) for node in route])
        sizes = torch.tensor([len(span) for span in hierarchy.spans])
        parents = torch.tensor([0, *hierarchy.parents[1:]])
        for name, values in (("pair_class", pairs[:, 0]), ("pair_node", pairs[:, 1]),
                             ("sizes", sizes), ("parents", parents)):  # fmt: skip
            self.register_buffer(name, values.contiguous(), persistent=False)

    def scores(self, logits: Tensor) -> Tensor:
        """Return node scores, (batch, classes) to (batch, nodes)."""
        centred = logits - logits.amax(dim=1, keepdim=True)
        values = centred.index_select(1, self.pair_class)
        if self.rule == "marginal":
            return _logsumexp(values, self.pair_node, self.num_nodes)
        return _sums(values, self.pair_node, self.num_nodes) / self.sizes

    def decisions(self, scores: Tensor) -> Tensor:
        """Return log-probabilities among siblings, (batch, nodes); the root's is 0."""
        siblings = _logsumexp(scores[:, 1:], self.parents[1:], self.num_nodes)
        found = scores[:, 1:] - siblings.index_select(1, self.parents[1:])
        return torch.cat([torch.zeros_like(scores[:, :1]), found], dim=1)

    def log_probs(self, logits: Tensor, decisions: Tensor) -> Tensor:
        """Return leaf log-probabilities (batch, classes): sums along the paths."""
        if self.rule == "marginal":
            return logits.log_softmax(dim=1)
        return _sums(decisions.index_select(1, self.pair_node), self.pair_class, self.num_classes)

    def log_odds_maps(self, class_maps: Tensor, logits: Tensor, scores: Tensor) -> Tensor:
        """Return the map of every node's log-odds: (batch, classes, height, width) to (batch, nodes, …).

        A node's map is the mean of its classes', evenly (`representative`) or by their
        probabilities (`marginal`). That of log-odds is the node's less the mean of its siblings',
        see `nbdt.decide.maps.log_odds_coefficients`.
        """
        values = class_maps.index_select(1, self.pair_class)
        if self.rule == "marginal":
            centred = logits - logits.amax(dim=1, keepdim=True)
            own = centred.index_select(1, self.pair_class)
            share = (own - scores.index_select(1, self.pair_node)).exp()
            values = values * share[..., None, None]
        else:
            values = values / self.sizes[self.pair_node][:, None, None]
        maps = _sums(values, self.pair_node, self.num_nodes)[:, 1:]
        rest = self._siblings(maps, scores[:, 1:])
        return torch.cat([torch.zeros_like(maps[:, :1]), maps - rest], dim=1)

    def _siblings(self, maps: Tensor, scores: Tensor) -> Tensor:
        """Return the mean map of each node's siblings, by their probabilities among themselves.

        ``(Σ p·map − p_j map_j)/(1 − p_j)`` loses all digits as ``p_j`` nears 1; only one child can
        exceed a half, so its siblings are averaged on their own. The maps are (batch, nodes − 1, height,
        width), the scores (batch, nodes − 1), without the root's.
        """
        parents = self.parents[1:]

        def mean(scores: Tensor) -> tuple[Tensor, Tensor]:
            total = _logsumexp(scores, parents, self.num_nodes).index_select(1, parents)
            chances = (scores - total).exp()[..., None, None]
            return chances, _sums(chances * maps, parents, self.num_nodes).index_select(1, parents)

        chances, every = mean(scores)
        likely = chances > 0.5
        without = torch.where(likely[..., 0, 0], torch.full_like(scores, -torch.inf), scores)
        return torch.where(likely, mean(without)[1], (every - chances * maps) / (1 - chances))


def _sums(values: Tensor, index: Tensor, count: int) -> Tensor:
    """Return sums of the columns with the same index: (batch, columns, …) to (batch, count, …)."""
    shape = (values.shape[0], count, *values.shape[2:])
    return values.new_zeros(shape).index_add(1, index, values)


def _logsumexp(values: Tensor, index: Tensor, count: int) -> Tensor:
    """Return logsumexp of the columns with the same index: (batch, columns) to (batch, count)."""
    top = values.new_full((values.shape[0], count), -torch.inf)
    top = top.scatter_reduce(1, index.expand_as(values), values, "amax")
    return _sums((values - top.index_select(1, index)).exp(), index, count).log() + top


class ExportedHead(nn.Module):
    """From the feature map and pooled features to all outputs.

    Args:
        head: its weights stay in int8 where they were stored so.
        grid: a feature map as (batch, features, height, width); None: no maps.
        answer: what says where an answer stops; None: nothing does.
    """

    weight: Tensor  # (classes, features), float32 or int8
    scale: Tensor  # (classes, 1), of weights in int8
    bias: Tensor  # (classes,)

    def __init__(
        self,
        head: NBDTHead,
        grid: Callable[[Tensor], Tensor | None] | None,
        answer: ExportedAnswer | None,
    ) -> None:
        super().__init__()
        self.grid, self.answer = grid, answer
        linear, self.tree = head.linear, ExportedTree(head.hierarchy, head.rule)
        weight = linear.weight.detach().float()
        kept = stored("weight", weight, torch.int8)
        if not torch.allclose(widened(kept)["weight"], weight, rtol=1e-5, atol=0):
            kept = {"weight": weight, "weight" + SCALE: weight.new_ones(len(weight))}
        self.register_buffer("weight", kept["weight"])
        self.register_buffer("scale", kept["weight" + SCALE][:, None])
        none = weight.new_zeros(len(weight))
        self.register_buffer("bias", none if linear.bias is None else linear.bias.detach().float())

    def forward(self, feature_map: Tensor, features: Tensor) -> tuple[Tensor, ...]:
        """Return log-probabilities, decisions, and answers and maps where they were asked for."""
        weight = self.weight
        if weight.dtype == torch.int8:
            weight = weight.float() * self.scale
        logits = functional.linear(features.float(), weight, self.bias)
        scores = self.tree.scores(logits)
        decisions = self.tree.decisions(scores)
        log_probs = self.tree.log_probs(logits, decisions)
        outputs = [log_probs, decisions]
        if self.answer is not None:
            outputs += self.answer(logits, log_probs, decisions)
        if self.grid is not None:
            shares = cast(Tensor, self.grid(feature_map)).float()
            shares = shares / (shares.shape[2] * shares.shape[3])
            class_maps = functional.linear(shares.movedim(1, 3), weight).movedim(3, 1)
            outputs.append(self.tree.log_odds_maps(class_maps, logits, scores))
        return tuple(outputs)


class ExportedAnswer(nn.Module):
    """From log-probabilities to the node of each answer: `nbdt.decide.answer` at one target."""

    nodes: Tensor
    information: Tensor
    thresholds: Tensor

    def __init__(self, hierarchy: Hierarchy, calibration: Calibration, accuracy: float) -> None:
        super().__init__()
        self.register_buffer("nodes", path_table(hierarchy))
        self.register_buffer("information", information(hierarchy).float())
        of_class = calibration.thresholds(accuracy, torch.arange(hierarchy.num_classes))
        limits = of_class.clamp(-ALWAYS_ROOT, ALWAYS_ROOT).float()
        self.register_buffer("thresholds", limits)
        rank = math.floor(FALSE_ALARMS * (len(calibration) + 1))
        self.least = float(calibration.known[rank - 1]) if rank else -math.inf

    def forward(
        self, logits: Tensor, log_probs: Tensor, decisions: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return node, probability and whether the image is unknown, (batch,) each.

        The logits and leaf log-probabilities are (batch, classes), the decisions (batch, nodes): the
        log-probability of each node among its siblings.
        """
        leaves = log_probs.argmax(dim=1)
        path = self.nodes[leaves]
        steps = decisions.gather(1, path)
        repeated = torch.cat(
            [torch.zeros_like(path[:, :1]), (path[:, 1:] == path[:, :-1]).long()], 1
        )
        mass = (steps * (1 - repeated)).cumsum(dim=1).exp()
        scores = (self.information[path] + self.thresholds[leaves, None]) * mass
        depth = scores.argmax(dim=1, keepdim=True)
        unknown = familiarity(logits) < self.least
        return path.gather(1, depth)[:, 0], mass.gather(1, depth)[:, 0], unknown
