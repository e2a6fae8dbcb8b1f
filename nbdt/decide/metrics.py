"""Quality of answers: pure functions of predictions and targets."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from ..errors import NBDTError
from ..tree.hierarchy import Hierarchy


def accuracy(predicted: Tensor, target: Tensor) -> float:
    """Return the share of equal entries of two (count,) index tensors.

    Raises NBDTError: no entries, or other shapes.
    """
    _check_pair(predicted, target)
    return float((predicted == target).double().mean())


def hierarchical_distance(predicted: Tensor, target: Tensor, hierarchy: Hierarchy) -> Tensor:
    """Return the edges up from each answer to where it is right, (count,) int64.

    The height of the lowest common ancestor of two classes, 0 where they are the same. Its mean over
    all answers is the average hierarchical distance, over the wrong ones the severity of mistakes
    (Bertinetto et al., Making Better Mistakes, CVPR 2020). The latter alone misleads: a model that
    gets the hard images right as well can only have worse mistakes left.

    Raises NBDTError: no entries, other shapes, or an index that is no class of the hierarchy.
    """
    _check_pair(predicted, target)
    for index in (int(values) for pair in (predicted, target) for values in pair.aminmax()):
        if not 0 <= index < hierarchy.num_classes:
            raise NBDTError(f"Expected indices of {hierarchy.num_classes} classes, got {index}.")
    return distance_table(hierarchy).to(target.device)[predicted, target].long()


@lru_cache(maxsize=4)
def distance_table(hierarchy: Hierarchy) -> Tensor:
    """Return the height of the lowest common ancestor of any two classes, (classes, classes) int16."""
    size, order = hierarchy.num_classes, torch.tensor(hierarchy.leaf_order)
    table = torch.zeros(size, size, dtype=torch.int16)
    for node in hierarchy.inner_nodes:  # parents come before their children
        below = order[hierarchy.spans[node].start : hierarchy.spans[node].stop]
        table[below[:, None], below] = hierarchy.heights[node]
    return table.fill_diagonal_(0)


def calibration_error(probability: Tensor, right: Tensor, bins: int = 15) -> float:
    """Return the expected calibration error: how far probabilities are from the share of right answers.

    The mean over bins of equal width, by how many answers fall into each, of the difference between
    their mean probability and the share of them that is right (Guo et al., On Calibration of Modern
    Neural Networks, ICML 2017).

    Args:
        probability: (count,) of the answer given, in [0, 1].
        right: (count,) whether it was right, bool.
        bins: how many.

    Raises:
        NBDTError: no entries, other shapes, no bins, or a probability outside [0, 1].
    """
    _check_pair(probability, right)
    if bins < 1:
        raise NBDTError(f"Expected at least one bin, got {bins}.")
    if not ((probability >= 0) & (probability <= 1)).all():  # NaN included
        raise NBDTError("Expected probabilities in [0, 1].")
    place = (probability.double() * bins).long().clamp(max=bins - 1)
    excess = probability.double() - right.double()
    return float(excess.new_zeros(bins).index_add(0, place, excess).abs().sum() / len(right))


def _check_pair(first: Tensor, second: Tensor) -> None:
    if first.ndim != 1 or first.shape != second.shape or not len(second):
        raise NBDTError(
            f"Expected two tensors of one length above 0, got shapes {tuple(first.shape)} and "
            f"{tuple(second.shape)}."
        )
