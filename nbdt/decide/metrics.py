"""Quality of answers and of lists of the likeliest classes: pure functions."""

from functools import lru_cache

import torch
from torch import Tensor

from ..errors import NBDTError
from ..tree.hierarchy import Hierarchy

REORDERED = 8  # classes of a list that `reordered` puts in order


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


def calibration_error(probability: Tensor, right: Tensor, bins: int = 15) -> float:
    """Return the expected calibration error: how far probabilities are from the share of right answers.

    The mean over bins of equal width, by how many answers fall into each, of the difference between
    their mean probability and the share of them that is right (Guo et al., On Calibration of Modern
    Neural Networks, ICML 2017).

    Args:
        probability: (count,) of the answer given, in [0, 1].
        right: (count,) whether it was right, bool.

    Raises NBDTError: no entries, other shapes, no bins, or a probability outside [0, 1].
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
