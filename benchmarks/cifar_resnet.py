"""ResNets of CIFAR-10 that fit weights which others published, registered with timm on import.

Three stages of 16, 32 and 64 channels and shortcuts without weights (He et al., Deep Residual Learning,
2015, section 4.2, option A). Layers have the names that the published weights use.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from timm.models import build_model_with_cfg, register_model
from timm.models._registry import generate_default_cfgs
from timm.models.resnet import BasicBlock
from torch import Tensor, nn

from nbdt.network.small_networks import CIFAR_INPUT

WIDTHS = (16, 32, 64)


class PaddedShortcut(nn.Module):
    """Every second position, with zero channels on both sides."""

    def __init__(self, added: int) -> None:
        super().__init__()
        self.side = added // 2

    def forward(self, values: Tensor) -> Tensor:
        return F.pad(values[:, :, ::2, ::2], (0, 0, 0, 0, self.side, self.side))


class CifarResNet(nn.Module):
    """A 3 × 3 stem, three stages of `blocks` basic blocks, average pool, a linear layer."""

    def __init__(self, blocks: int = 3, num_classes: int = 10, in_chans: int = 3) -> None:
        super().__init__()
        self.num_features = self.head_hidden_size = WIDTHS[-1]
        self.conv1 = nn.Conv2d(in_chans, WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.layer1 = _stage(WIDTHS[0], WIDTHS[0], blocks)
        self.layer2 = _stage(WIDTHS[0], WIDTHS[1], blocks)
        self.layer3 = _stage(WIDTHS[1], WIDTHS[2], blocks)
        self.reset_classifier(num_classes)

    def get_classifier(self) -> nn.Module:
        return self.linear

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        self.num_classes = num_classes
        self.linear = nn.Linear(WIDTHS[-1], num_classes) if num_classes else nn.Identity()

    def forward_features(self, images: Tensor) -> Tensor:
        values = F.relu(self.bn1(self.conv1(images)))
        return self.layer3(self.layer2(self.layer1(values)))

    def forward_head(self, feature_map: Tensor, *, pre_logits: bool = False) -> Tensor:
        pooled = feature_map.mean(dim=(2, 3))
        return pooled if pre_logits else self.linear(pooled)

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))


def _stage(inputs: int, outputs: int, blocks: int) -> nn.Sequential:
    stride = outputs // inputs
    shortcut = PaddedShortcut(outputs - inputs) if stride > 1 else None
    first = BasicBlock(inputs, outputs, stride, shortcut)
    return nn.Sequential(first, *(BasicBlock(outputs, outputs) for _ in range(blocks - 1)))


INPUT = {
    **CIFAR_INPUT,
    "mean": (0.485, 0.456, 0.406),  # what the published weights were trained with
    "std": (0.229, 0.224, 0.225),
    "first_conv": "conv1",
    "classifier": "linear",
}
default_cfgs = generate_default_cfgs(
    {"resnet20_cifar.untrained": INPUT, "resnet56_cifar.untrained": INPUT}
)


@register_model
def resnet20_cifar(pretrained: bool = False, **options: Any) -> CifarResNet:
    """0.27 million weights with ten classes."""
    return build_model_with_cfg(CifarResNet, "resnet20_cifar", pretrained, blocks=3, **options)


@register_model
def resnet56_cifar(pretrained: bool = False, **options: Any) -> CifarResNet:
    """0.85 million weights with ten classes."""
    return build_model_with_cfg(CifarResNet, "resnet56_cifar", pretrained, blocks=9, **options)
