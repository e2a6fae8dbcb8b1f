"""A network whose answer rests on stripes, so that it is known which cells decide."""

import torch
from torch import nn

from nbdt import NBDT, Hierarchy, NBDTHead
from nbdt.network.preprocessing import Preprocessing

TREE = Hierarchy.from_paths(["animal/cat", "animal/dog", "vehicle/car", "vehicle/bus"])
SIDE, CELL = 32, 4


class Stripes(nn.Module):
    """Two features of each 4 × 4 cell: how striped its first and its second channel are."""

    def __init__(self):
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(()))

    def forward_features(self, images):
        steps = (images[..., 1:] - images[..., :-1]).abs()
        steps = nn.functional.pad(steps, (0, 1))[:, :2]
        return nn.functional.avg_pool2d(steps, CELL) + 0 * self.anchor

    def forward_head(self, features, pre_logits):
        assert pre_logits
        return features.mean(dim=(2, 3))


def model_of(weight, bias, rule="representative"):
    """The network with a last layer of (classes, 2) weights and (classes,) biases."""
    head = NBDTHead(2, TREE, rule=rule)
    with torch.no_grad():
        head.linear.weight[:] = weight
        head.linear.bias[:] = bias
    plain = Preprocessing(SIDE, (0.5,) * 3, (0.5,) * 3, 1.0, "bicubic")
    return NBDT(Stripes(), head, "stripes", plain).eval()
