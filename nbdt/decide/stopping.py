"""Nodes, probabilities and critical thresholds on the path to each image's most probable leaf."""

import math
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from ..tree.hierarchy import Hierarchy
from .head import DecisionRules
from .rules import check_finite

BLOCK = 2**22  # values of one comparison of nodes; bounds the memory on deep trees


class PathMasses:
    """Nodes and probabilities on the path to each image's most probable leaf, of (batch, classes) logits.

    Attributes:
        leaves: (batch,) class index of the most probable leaf.
        nodes: (batch, depth + 1) node indices from the root down; a shorter path repeats its leaf.
        log_mass: (batch, depth + 1) natural log-probability of each, float64.
        information: (batch, depth + 1) from 0 (root) to 1 (leaf).

    Raises NBDTError: another shape, or logits that are not finite.
    """

    def __init__(self, rules: DecisionRules, logits: Tensor) -> None:
        tree = rules.hierarchy
        check_finite(logits)
        log_probs = rules(logits.double())
        self.leaves = log_probs.argmax(dim=1)
        self.nodes = path_table(tree).to(logits.device)[self.leaves]
        # Leaves under a node are neighbours, so a node's probability is a difference of two sums.
        order, bounds = leaf_spans(tree)
        sums = log_probs.exp()[:, order.to(logits.device)].cumsum(dim=1)
        sums = torch.nn.functional.pad(sums, (1, 0))
        low, high = bounds.to(logits.device)[self.nodes].unbind(dim=2)
        mass = (sums.gather(1, high) - sums.gather(1, low)).clamp(1e-300, 1.0)
        mass[:, 0] = 1.0
        self.log_mass = mass.cummin(dim=1).values.log()
        self.information = information(tree).to(logits.device)[self.nodes]

    @cached_property
    def critical(self) -> Tensor:
        """Smallest λ at which the answer is at a depth or above it, (batch, depth + 1).

        It falls with depth, and is −∞ at the leaf.
        """
        mass = self.log_mass.exp()
        value = self.information * mass
        size = mass.shape[1]
        depths = torch.arange(size, device=mass.device)
        result = torch.full_like(mass, -math.inf)
        for lower in depths.split(max(1, BLOCK // max(1, mass.numel()))):
            gain = value[:, lower, None] - value[:, None, :]
            price = mass[:, None, :] - mass[:, lower, None]
            # From which λ on each upper node is preferred to each lower one.
            beats = torch.where(price > 0, gain / price, torch.where(gain > 0, math.inf, -math.inf))
            best = beats.cummin(dim=2).values.masked_fill(depths >= lower[:, None], -math.inf)
            result = torch.maximum(result, best.amax(dim=1))
        return result

    def stop(self, threshold: float | Tensor) -> Tensor:
        """Return the depth of each answer, (batch,) int64, for one λ or for one an image, (batch,)."""
        limit = torch.as_tensor(threshold, dtype=torch.float64).to(self.critical.device)
        return (self.critical <= limit.reshape(-1, 1)).int().argmax(dim=1)

    def needed(self, depths: Tensor, threshold: Tensor) -> Tensor:
        """Return `Answer.needed` for answers at these depths, (batch,); NaN where it is None.

        The probabilities of all nodes below the decision are in proportion to the child's.
        """
        mass, at = self.log_mass.exp(), depths[:, None]
        value = (self.information + threshold[:, None]) * mass
        places = torch.arange(mass.shape[1], device=mass.device)
        best = value.masked_fill(places <= at, -math.inf).amax(dim=1)
        child = mass.gather(1, (at + 1).clamp(max=len(places) - 1)) / mass.gather(1, at)
        found = (child * value.gather(1, at))[:, 0] / best
        return found.where(best > 0, math.nan)

    def true_depth(self, labels: Tensor, rules: DecisionRules) -> Tensor:
        """Return how deep each path is right, (batch,) int64, for (batch,) class indices."""
        there = path_table(rules.hierarchy).to(labels.device)[labels]
        return (there == self.nodes).int().cumprod(dim=1).sum(dim=1) - 1


def weakest_decision(rules: DecisionRules, logits: Tensor, *, depth: int | None = None) -> Tensor:
    """Return the smallest probability of a decision on each image's path, (batch,) float64.

    Args:
        rules: of the tree.
        logits: (batch, classes).
        depth: the number of decisions from the root that count, at least 1; None: all.
    """
    with torch.no_grad():
        masses = PathMasses(rules, logits).log_mass
        counted = masses if depth is None else masses[:, : depth + 1]
        return counted.diff(dim=1).amin(dim=1).exp()


@lru_cache(maxsize=4)
def path_table(tree: Hierarchy) -> Tensor:
    """Return the nodes from the root to each class, (classes, depth + 1); short paths repeat the leaf."""
    routes = [tree.path_of_class(index) for index in range(tree.num_classes)]
    with torch.inference_mode(False):  # it is kept
        return torch.tensor([[*r, *[r[-1]] * (tree.depth + 1 - len(r))] for r in routes])


@lru_cache(maxsize=4)
def leaf_spans(tree: Hierarchy) -> tuple[Tensor, Tensor]:
    """Return the class of each leaf in order, (classes,), and where each node's leaves begin and end.

    The ends are (nodes, 2).
    """
    with torch.inference_mode(False):
        spans = [[span.start, span.stop] for span in tree.spans]
        return torch.tensor(tree.leaf_order), torch.tensor(spans)


@lru_cache(maxsize=4)
def information(tree: Hierarchy) -> Tensor:
    """Return ``1 − ln|L(j)| / ln C`` of each node, (nodes,) float64."""
    with torch.inference_mode(False):
        low, high = leaf_spans(tree)[1].double().unbind(dim=1)
        return 1 - (high - low).log() / math.log(tree.num_classes)
