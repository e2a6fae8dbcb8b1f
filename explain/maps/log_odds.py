"""Log-odds of decisions: what maps explain, and what perturbed images are judged by."""

from __future__ import annotations

import torch
from torch import Tensor

from nbdt.decide.rules import edge_scores, full_precision
from nbdt.model.model import NBDT
from nbdt.tree.index import TreeIndex

PIXELS_AT_ONCE = 2**21  # of a forward pass: 41 photographs of 224 pixels, 256 (the most) of 32
MOST_AT_ONCE = 256


def log_odds(logits: Tensor, tree: TreeIndex, rule: str) -> Tensor:
    """``log p/(1 − p)`` of every node among its siblings, differentiable.

    ``s_j − logsumexp of the other siblings' s``, without forming ``1 − p``: it stays exact where a
    decision is so sure that ``p`` rounds to 1. Its sigmoid is the decision's probability.

    Args:
        logits: (batch, classes), float32 or float64.

    Returns:
        (batch, nodes), columns as in `Hierarchy.nodes`; the root's is 0, it decides nothing.
    """
    with full_precision(logits):
        scores = edge_scores(logits, tree, rule)
        runs = [
            _among_siblings(scores[start : start + groups * size].view(groups, size, -1))
            for start, groups, size in tree.runs
        ]
        edges = torch.cat(runs).t()
        return torch.cat([edges.new_zeros(len(edges), 1), edges[:, tree.edge_of_node[1:]]], dim=1)


def _among_siblings(scores: Tensor) -> Tensor:
    """(groups, siblings, batch) scores to (groups · siblings, batch) log-odds."""
    best = scores.argmax(dim=1, keepdim=True)
    is_best = torch.zeros_like(scores, dtype=torch.bool).scatter(1, best, True)
    everyone = scores.logsumexp(dim=1, keepdim=True)
    # For the best child the others are summed by themselves; any other one has p of at most 1/2,
    # and 1 - p loses nothing.
    without_best = scores.masked_fill(is_best, -torch.inf).logsumexp(dim=1, keepdim=True)
    p = (scores - everyone).exp().masked_fill(is_best, 0)
    others = torch.where(is_best, without_best, everyone + torch.log1p(-p))
    return (scores - others).flatten(0, 1)


def measured_log_odds(model: NBDT, images: Tensor) -> Tensor:
    """(batch, nodes) float64 (MPS: float32) log-odds of images (batch, 3, height, width).

    Runs in parts that bound the memory, without gradients.
    """
    size = max(1, min(MOST_AT_ONCE, PIXELS_AT_ONCE // (images.shape[-2] * images.shape[-1])))
    with torch.inference_mode():
        parts = [_measured(model, part) for part in images.split(size)]
    return torch.cat(parts).clone()


def _measured(model: NBDT, images: Tensor) -> Tensor:
    device = model.device
    logits = model.logits(images.to(device)).float()
    logits = logits if device.type == "mps" else logits.double()
    return log_odds(logits, model.head.rules.tree, model.rule).cpu()
