"""Labels of images: a node of the hierarchy, a leaf or, where the class is not known, a group.

In tensors a label is one number: a class index, or −1 − node for a group. −1 is the root: no label.
"""

import torch
from torch import Tensor

from .hierarchy import Hierarchy


def label_nodes(hierarchy: Hierarchy) -> Tensor:
    """Return a table (classes + nodes,) whose entry at a label, also below 0, is its node's index."""
    return torch.tensor([*hierarchy.leaf_nodes, *reversed(range(hierarchy.num_nodes))])


def classes_below(hierarchy: Hierarchy) -> Tensor:
    """Return which classes are under each node, (nodes, classes) bool; a leaf is under itself."""
    place = torch.tensor(hierarchy.leaf_order).argsort()
    first = torch.tensor([span.start for span in hierarchy.spans])[:, None]
    end = torch.tensor([span.stop for span in hierarchy.spans])[:, None]
    return (first <= place) & (place < end)


def likeliest_under(scores: Tensor, labels: Tensor, hierarchy: Hierarchy) -> Tensor:
    """Return the class under each label, (images,), with the largest of (images, classes) scores.

    That is the label itself for a class. An answer inside a group, or above it, has this class under
    it just where it does not contradict the group.
    """
    below = classes_below(hierarchy)[label_nodes(hierarchy)[labels]]
    return scores.masked_fill(~below, -torch.inf).argmax(dim=1)
