"""Lists of the likeliest classes: their order, and how far they are from the label."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import NBDTError
from ..tree.hierarchy import Hierarchy
from .metrics import distance_table

REORDERED = 8


def reordered(log_probs: Tensor, hierarchy: Hierarchy, count: int = REORDERED) -> Tensor:
    """Return all classes of each image, likeliest first, the first few in order of expected distance.

    The first class stays. The next ones, up to `count`, are put in order of the mean height of their
    lowest common ancestor with the label, under the model's own probabilities (Karthik et al., No
    Cost Likelihood Manipulation at Test Time, ICLR 2021, who reorder all classes). The lists get
    nearer to the label and miss it a little more often: see docs/results.md. Leaf log-probabilities and
    class indices are (batch, classes).

    Raises NBDTError: another number of classes, or a count below 1.
    """
    if log_probs.ndim != 2 or log_probs.shape[1] != hierarchy.num_classes or count < 1:
        raise NBDTError(
            f"Expected (batch, {hierarchy.num_classes}) log-probabilities and a count of at least 1, "
            f"got shape {tuple(log_probs.shape)} and {count}."
        )
    order = log_probs.argsort(dim=1, descending=True, stable=True)
    few = order[:, 1:count]
    probs = log_probs.double().exp()
    rows = distance_table(hierarchy).to(log_probs.device)[few].double()
    expected = torch.einsum("bkc,bc->bk", rows, probs)
    order[:, 1:count] = few.gather(1, expected.argsort(dim=1, stable=True))
    return order


def distance_at(order: Tensor, labels: Tensor, hierarchy: Hierarchy, count: int) -> Tensor:
    """Return the mean distance of the first classes of each list to the label, (batch,) float64.

    The hierarchical distance at k (Bertinetto et al., Making Better Mistakes, CVPR 2020). Read it
    beside the share of lists that have the label: siblings of the first class lower the distance,
    whatever the label is.

    Args:
        order: (batch, classes) class indices, as from `reordered`; `labels` are (batch,).
        count: how many classes of each list; all if there are fewer.
    """
    table = distance_table(hierarchy).to(order.device)
    return table[order[:, :count], labels[:, None]].double().mean(dim=1)
