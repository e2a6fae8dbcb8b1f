"""The residual networks that CIFAR results are usually given for, registered with timm.

Three stages of 16, 32 and 64 channels and shortcuts without weights: every second position, and zeros
for the new channels (He et al., Deep Residual Learning, 2015, section 4.2, option A). Layers carry the
names that published weights use.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from timm.models import build_model_with_cfg, register_model
from timm.models._registry import generate_default_cfgs
from timm.models.resnet import BasicBlock
from torch import Tensor, nn

from .small import CIFAR_INPUT

WIDTHS = (16, 32, 64)


class PaddedShortcut(nn.Module):
    """Every second position, with zero channels on both sides."""

    def __init__(self, added: int) -> None:
        super().__init__()
        self.added = added

    def forward(self, values: Tensor) -> Tensor:
        """(batch, channels, height, width) to (batch, channels + added, height / 2, width / 2)."""
        side = self.added // 2
        return F.pad(values[:, :, ::2, ::2], (0, 0, 0, 0, side, side))


class CifarResNet(nn.Module):
    """A 3 × 3 stem, three stages of `blocks` basic blocks, average pool, a linear layer."""

    def __init__(self, blocks: int = 3, num_classes: int = 10, in_chans: int = 3) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.num_features = self.head_hidden_size = WIDTHS[-1]
        self.conv1 = nn.Conv2d(in_chans, WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.layer1 = _stage(WIDTHS[0], WIDTHS[0], blocks)
        self.layer2 = _stage(WIDTHS[0], WIDTHS[1], blocks)
        self.layer3 = _stage(WIDTHS[1], WIDTHS[2], blocks)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
        self.reset_classifier(num_classes)

    def get_classifier(self) -> nn.Module:
        """The last linear layer."""
        return self.linear

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A fresh linear layer with `num_classes` outputs, or none for 0."""
        self.num_classes = num_classes
        linear = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        self.linear: nn.Module = linear

    def forward_features(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) to (batch, 64, height / 4, width / 4)."""
        values = F.relu(self.bn1(self.conv1(images)))
        feature_map: Tensor = self.layer3(self.layer2(self.layer1(values)))
        return feature_map

    def forward_head(self, feature_map: Tensor, *, pre_logits: bool = False) -> Tensor:
        """Average pool, then the linear layer unless `pre_logits`."""
        pooled = feature_map.mean(dim=(2, 3))
        logits: Tensor = pooled if pre_logits else self.linear(pooled)
        return logits

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) to (batch, classes) logits."""
        return self.forward_head(self.forward_features(images))


def _stage(inputs: int, outputs: int, blocks: int) -> nn.Sequential:
    stride = outputs // inputs
    shortcut = PaddedShortcut(outputs - inputs) if stride > 1 else None
    first = BasicBlock(inputs, outputs, stride, shortcut)
    return nn.Sequential(first, *(BasicBlock(outputs, outputs) for _ in range(blocks - 1)))


_INPUT = {
    **CIFAR_INPUT,
    "mean": (0.485, 0.456, 0.406),  # what the published weights were trained with
    "std": (0.229, 0.224, 0.225),
    "first_conv": "conv1",
    "classifier": "linear",
}
default_cfgs = generate_default_cfgs(
    {"resnet20_cifar.untrained": _INPUT, "resnet56_cifar.untrained": _INPUT}
)


@register_model
def resnet20_cifar(pretrained: bool = False, **options: Any) -> CifarResNet:
    """ResNet-20 for CIFAR: 0.27 million weights with ten classes."""
    return _network("resnet20_cifar", pretrained, {"blocks": 3, **options})


@register_model
def resnet56_cifar(pretrained: bool = False, **options: Any) -> CifarResNet:
    """ResNet-56 for CIFAR: 0.85 million weights with ten classes."""
    return _network("resnet56_cifar", pretrained, {"blocks": 9, **options})


def _network(name: str, pretrained: bool, options: dict[str, Any]) -> CifarResNet:
    network: CifarResNet = build_model_with_cfg(CifarResNet, name, pretrained, **options)
    return network
