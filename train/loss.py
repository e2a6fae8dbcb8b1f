"""Tree supervision: losses on flat logits that teach every decision on the way to a class."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nbdt.errors import NBDTError
from nbdt.hierarchy import Hierarchy
from nbdt.rules import check_logits, check_rule, decide, edge_scores, full_precision, path_nll
from nbdt.tree import Tree

_NONE_IGNORED = torch.iinfo(torch.int64).min  # every index outside the classes is an error


class TreeSupervisionLoss(nn.Module):
    """``β · CE(z, y) + ω · Σ along the path of λ · (−log p(child | parent))``, batch mean.

    ``λ = exp(−α · height of the child)``, its height above the leaves divided by the tree's
    (Bertinetto et al., Making Better Mistakes, CVPR 2020). With ``α = 0`` the sum is
    ``−log p(y)``: the soft loss of NBDT (Wan et al., ICLR 2021). The paper's published code feeds
    probabilities to a cross-entropy that expects logits; this loss takes the path's log-likelihood
    and tends to 0 for a confident right answer.

    Args:
        hierarchy: the tree whose decisions are taught.
        rule: "representative"; "marginal" only with ``alpha > 0``, because its path likelihood
            is the cross-entropy itself.
        beta: weight of the flat cross-entropy.
        omega: weight of the path.
        alpha: how much less a decision counts the higher it stands.

    Raises:
        NBDTError: an unknown rule, ``marginal`` with ``alpha = 0``, or a weight that is negative or
            not finite.
    """

    edge_weights: Tensor

    def __init__(
        self,
        hierarchy: Hierarchy,
        *,
        rule: str,
        beta: float = 1.0,
        omega: float = 1.0,
        alpha: float = 0.0,
    ) -> None:
        super().__init__()
        self.rule = check_rule(rule)
        if rule == "marginal" and alpha == 0:
            raise NBDTError(
                "Under 'marginal' the path's likelihood is the flat softmax, so this loss is just "
                "(β + ω) · cross-entropy: use torch.nn.CrossEntropyLoss, or alpha > 0, or 'rule"
                '="representative"\'.'
            )
        if not all(0 <= value < float("inf") for value in (beta, omega, alpha)):
            raise NBDTError(f"β, ω and α are finite and ≥ 0, got {beta}, {omega}, {alpha}.")
        self.beta, self.omega, self.alpha = beta, omega, alpha
        self.tree = Tree(hierarchy)
        weights = torch.exp(-alpha * _relative_heights(hierarchy))[self.tree.node_of_edge]
        self.register_buffer("edge_weights", weights, persistent=False)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar loss.

        Args:
            logits: (batch, classes), flat.
            target: (batch,) class indices, or (batch, classes) distributions, where a decision
                weighs as the target mass below its child.

        Raises:
            NBDTError: logits or target of another shape.
            IndexError: a class index outside the hierarchy's.
        """
        with full_precision(logits):
            logits = check_logits(logits, self.tree)
            if target.shape not in (logits.shape, logits.shape[:1]):
                raise NBDTError(
                    f"Expected targets of shape ({len(logits)},) or {tuple(logits.shape)}, got "
                    f"{tuple(target.shape)}."
                )
            loss = self.beta * F.cross_entropy(logits, target, ignore_index=_NONE_IGNORED)
            if self.omega:
                loss = loss + self.omega * self._path_term(logits, target)
            return loss

    def _path_term(self, logits: Tensor, target: Tensor) -> Tensor:
        if target.ndim == 1:
            values, _, edge = path_nll(logits, target, self.tree, self.rule)
            weights = self.edge_weights.to(values.dtype)[edge]
            return values.dot(weights) / len(target)
        mass = self.tree.node_sums(target.to(logits.dtype).t().contiguous())
        log_probs = decide(edge_scores(logits, self.tree, self.rule), self.tree)
        weighted = mass * self.edge_weights.to(logits.dtype)[:, None]
        return -(weighted * log_probs).sum() / len(target)


def _relative_heights(hierarchy: Hierarchy) -> Tensor:
    """Each node's height above the leaves, divided by the tree's: (nodes,) in [0, 1]."""
    heights = [0] * hierarchy.num_nodes
    for node in range(hierarchy.num_nodes - 1, 0, -1):
        parent = hierarchy.parents[node]
        heights[parent] = max(heights[parent], heights[node] + 1)
    return torch.tensor(heights) / heights[0]
