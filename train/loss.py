"""Tree supervision: losses on flat logits that teach each decision, and schedules of their weights."""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nbdt.decide.rules import (
    check_logits,
    check_rule,
    decide,
    edge_scores,
    full_precision,
    mass_nll,
    path_nll,
)
from nbdt.errors import NBDTError, check_known
from nbdt.tree.hierarchy import Hierarchy
from nbdt.tree.index import TreeIndex

_NONE_IGNORED = torch.iinfo(torch.int64).min  # every index outside the classes is an error


class TreeSupervisionLoss(nn.Module):
    """``β · CE(z, y) + ω · Σ along the path of λ · (−log p(child | parent))``, batch mean.

    ``λ = exp(−α · height of the child)``, its height above the leaves divided by the tree's
    (Bertinetto et al., Making Better Mistakes, CVPR 2020). With ``α = 0`` the sum is
    ``−log p(y)``: the soft loss of NBDT (Wan et al., ICLR 2021). The paper's published code feeds
    probabilities to a cross-entropy that expects logits; this loss takes the path's log-likelihood
    and tends to 0 for a confident right answer.

    `beta` and `omega` may be assigned between steps; `weight_at` has schedules for them.

    Args:
        hierarchy: its decisions are trained.
        rule: "representative"; "marginal" only with ``alpha > 0`` or `node_weights`, because its
            path likelihood is the cross-entropy itself.
        beta: weight of the flat cross-entropy.
        omega: weight of the path.
        alpha: how much less a decision counts the higher it is in the tree.
        class_weights: (classes,) how much an image of each class counts. The mean is weighted, as in
            ``torch.nn.CrossEntropyLoss``: by ``w_y`` for an image of class ``y``, and by
            ``Σ t_c w_c`` for one with a distribution ``t``.
        node_weights: weight of an inner node's decision, by node id or name; 1 for the others.
        label_smoothing: share of the target that the *flat* cross-entropy spreads over all classes,
            as in ``torch.nn.CrossEntropyLoss``. Decisions are trained without it: mass spread over
            classes would pull each decision towards its larger child. To smooth them too, pass
            smoothed distributions as targets.

    Raises NBDTError: an unknown rule or node, a weight that is negative or not finite, or
    ``marginal`` where the loss would be the cross-entropy.
    """

    edge_weights: Tensor
    class_weights: Tensor | None

    def __init__(
        self,
        hierarchy: Hierarchy,
        *,
        rule: str,
        beta: float = 1.0,
        omega: float = 1.0,
        alpha: float = 0.0,
        class_weights: Sequence[float] | Tensor | None = None,
        node_weights: Mapping[str, float] | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self.rule = check_rule(rule)
        if rule == "marginal" and alpha == 0 and not node_weights:
            raise NBDTError(
                "Under 'marginal' the path's likelihood is the flat softmax, so this loss is just "
                "(β + ω) · cross-entropy: use torch.nn.CrossEntropyLoss, or alpha > 0, or 'rule"
                '="representative"\'.'
            )
        if not all(0 <= value < math.inf for value in (beta, omega, alpha)):
            raise NBDTError(f"β, ω and α are finite and ≥ 0, got {beta}, {omega}, {alpha}.")
        if not 0 <= label_smoothing < 1:
            raise NBDTError(f"label_smoothing is at least 0 and below 1, got {label_smoothing}.")
        self.beta, self.omega, self.alpha = beta, omega, alpha
        self.label_smoothing = label_smoothing
        self.tree = TreeIndex(hierarchy)
        heights = torch.tensor(hierarchy.heights)
        nodes = torch.exp(-alpha * heights / heights[0])
        nodes[1:] *= _decision_weights(hierarchy, node_weights or {})[list(hierarchy.parents[1:])]
        self.register_buffer("edge_weights", nodes[self.tree.node_of_edge], persistent=False)
        weights = None if class_weights is None else _checked(class_weights, hierarchy)
        self.register_buffer("class_weights", weights, persistent=False)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the scalar loss.

        Args:
            logits: (batch, classes), flat.
            target: (batch,) class indices; (batch, classes) distributions, where the weight of a
                decision is the target mass below its child; or (batch, nodes) distributions, in which
                a group is "one of these classes": it costs ``−log`` of the probability mass under
                it, weighs as the mean of its classes, and is not smoothed.

        Raises:
            NBDTError: logits or target of another shape.
            IndexError: a class index outside the hierarchy's.
        """
        with full_precision(logits):
            logits = check_logits(logits, self.tree)
            if target.shape == (len(logits), self.tree.num_nodes):
                return self._node_loss(logits, target)
            if target.shape not in (logits.shape, logits.shape[:1]):
                raise NBDTError(
                    f"Expected targets of shape ({len(logits)},), {tuple(logits.shape)} or "
                    f"({len(logits)}, {self.tree.num_nodes}), got {tuple(target.shape)}."
                )
            loss = self.beta * self._flat_term(logits, target)
            if self.omega:
                loss = loss + self.omega * self._path_term(logits, target)
            return loss

    def _node_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of distributions over nodes, one row for each node with a share."""
        row, node = target.nonzero(as_tuple=True)
        share, logits, tree = target[row, node].to(logits.dtype), logits[row], self.tree
        weights = self.class_weights
        weights = torch.ones(tree.num_classes, device=logits.device) if weights is None else weights
        weights = weights.to(logits.dtype)
        of_edge = tree.node_sums(weights[:, None])[:, 0] / tree.sizes[:, 0]
        weight = torch.cat([of_edge, weights.mean()[None]])[tree.edge_of_node[node]]
        flat = weight * mass_nll(logits, node, tree)
        if self.label_smoothing:
            smoothing = self.label_smoothing * (tree.class_of_node[node] >= 0)
            spread = -(logits.log_softmax(dim=1) * weights).mean(dim=1)
            flat = (1 - smoothing) * flat + smoothing * spread
        loss = self.beta * flat
        if self.omega:
            values, image, edge = path_nll(logits, node, tree, self.rule)
            values = values * self.edge_weights.to(values.dtype)[edge]
            path = torch.zeros_like(weight).index_add(0, image, values)
            loss = loss + self.omega * weight * path
        return share.dot(loss) / share.dot(weight)

    def _flat_term(self, logits: Tensor, target: Tensor) -> Tensor:
        weights = None if self.class_weights is None else self.class_weights.to(logits.dtype)
        loss = F.cross_entropy(
            logits,
            target,
            weights,
            ignore_index=_NONE_IGNORED,
            label_smoothing=self.label_smoothing,
        )
        if weights is None or target.ndim == 1:
            return loss
        # torch divides by the batch size here, and by the weights for indices. Without this, a one-hot
        # distribution would have another loss than its index.
        return loss * len(target) / (target @ weights).sum()

    def _path_term(self, logits: Tensor, target: Tensor) -> Tensor:
        if target.ndim == 1:
            return self._index_path_term(logits, target)
        target = target.to(logits.dtype)
        if self.class_weights is not None:
            target = target * self.class_weights.to(logits.dtype)
        mass = self.tree.node_sums(target.t().contiguous())
        log_probs = decide(edge_scores(logits, self.tree, self.rule), self.tree)
        weighted = mass * self.edge_weights.to(logits.dtype)[:, None]
        count = len(target) if self.class_weights is None else target.sum()
        return -(weighted * log_probs).sum() / count

    def _index_path_term(self, logits: Tensor, target: Tensor) -> Tensor:
        values, image, edge = path_nll(logits, self.tree.leaf_nodes[target], self.tree, self.rule)
        weights = self.edge_weights.to(values.dtype)[edge]
        if self.class_weights is None:
            return values.dot(weights) / len(target)
        of_image = self.class_weights.to(values.dtype)[target]
        return values.dot(weights * of_image[image]) / of_image.sum()


def _checked(weights: Sequence[float] | Tensor, hierarchy: Hierarchy) -> Tensor:
    values = torch.as_tensor(weights, dtype=torch.float32).detach().clone()
    if values.shape != (hierarchy.num_classes,):
        raise NBDTError(
            f"Expected {hierarchy.num_classes} class weights, one a class, got "
            f"{tuple(values.shape)}."
        )
    if not (values.isfinite().all() and (values >= 0).all() and values.any()):
        raise NBDTError("Class weights are finite and ≥ 0, and not all of them 0.")
    return values


def _decision_weights(hierarchy: Hierarchy, given: Mapping[str, float]) -> Tensor:
    """Return the weight of each inner node's decision: (nodes,)."""
    weights = torch.ones(hierarchy.num_nodes)
    for key, value in given.items():
        if not 0 <= value < math.inf:
            raise NBDTError(f"A node's weight is finite and ≥ 0, got {value} for {key!r}.")
        node = hierarchy.index(key)
        if not hierarchy.children[node]:
            raise NBDTError(f"{key!r} is a class: only inner nodes decide.")
        weights[node] = value
    return weights


SCHEDULES: Mapping[str, Callable[[float], float]] = {  # share of the way at a progress from 0 to 1
    "constant": lambda _: 0.0,
    "linear": lambda progress: progress,
    "cosine": lambda progress: (1 - math.cos(math.pi * progress)) / 2,
}


def weight_at(schedule: str, progress: float, start: float, end: float) -> float:
    """Return the weight on its way from `start` to `end`, at `progress`, which is clamped to [0, 1].

    "cosine" moves on half a cosine wave, slowest at both ends.

    Raises NBDTError: there is no schedule of this name.
    """
    check_known("schedule", schedule, SCHEDULES)
    return start + (end - start) * SCHEDULES[schedule](min(1.0, max(0.0, progress)))
