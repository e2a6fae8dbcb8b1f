"""Networks for 32-pixel images, registered with timm.

`SmallConvNet` is that of Jordan (94 % on CIFAR-10 in 3.29 seconds, 2024) with an 8 × 8 feature map and an
average pool at its end, so that a node map has something to show. Convolutions start as the identity
(Dirac), which lets a shallow network train at high learning rates from the first step; the stem may start
by whitening patches (`SmallConvNet.whiten`).
"""

from typing import Any, TypeVar, cast

import torch
import torch.nn.functional as F
from timm.models import build_model_with_cfg, register_model
from timm.models._registry import generate_default_cfgs
from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor, nn

_Network = TypeVar("_Network", bound=nn.Module)


class ConvNorm(nn.Sequential):
    """3 × 3 convolution, optional 2 × 2 max pool, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, *, pool: bool = False) -> None:
        convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        nn.init.dirac_(convolution.weight.data[:inputs])
        layers = [nn.MaxPool2d(2)] if pool else []
        super().__init__(convolution, *layers, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class SmallConvNet(nn.Module):
    """A stem of 2 × 2 patches, then six convolutions, two of which halve the resolution.

    `widths` are the channels of the stem and of the three stages of two convolutions.
    """

    def __init__(
        self,
        widths: tuple[int, int, int, int] = (24, 64, 256, 256),
        num_classes: int = 10,
        in_chans: int = 3,
    ) -> None:
        stem, first, second, third = widths
        super().__init__()
        self.num_features = self.head_hidden_size = third
        patches = nn.Conv2d(in_chans, stem, 2, padding="same", padding_mode="replicate")
        self.stem = nn.Sequential(patches, nn.ReLU())
        self.stages = nn.Sequential(
            ConvNorm(stem, first, pool=True),
            ConvNorm(first, first),
            ConvNorm(first, second, pool=True),
            ConvNorm(second, second),
            ConvNorm(second, third),
            ConvNorm(third, third),
        )
        self.reset_classifier(num_classes)

    def whiten(self, images: Tensor, floor: float) -> None:
        """Set the stem to the main axes of patches, of unit variance and in both signs; freeze it.

        The patches' first principal components are what any first layer has to find; given them, a
        short run spends its steps on the rest. The smallest components are of fine colour, which depends
        on how a file was encoded: half of it is gone from a WebP of quality 95. A higher floor, which is
        added to each component's variance, lets them count for less.

        `images` are a few thousand, (batch, 3, height, width), preprocessed.
        """
        stem = cast(nn.Conv2d, self.stem[0])
        patches = F.unfold(images, stem.kernel_size, stride=stem.stride)
        values = patches.transpose(1, 2).flatten(0, 1).double()
        variances, axes = torch.linalg.eigh(values.T.cov())
        count = len(stem.weight) // 2
        axes = axes[:, -count:] / (variances[-count:] + floor).sqrt()
        filters = axes.T.reshape(count, *stem.weight.shape[1:]).to(stem.weight)
        stem.weight.data.copy_(torch.cat([filters, -filters]))
        stem.weight.requires_grad_(False)

    def forward_features(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) to (batch, features, height / 4, width / 4)."""
        return cast(Tensor, self.stages(self.stem(images)))

    def forward_head(self, feature_map: Tensor, *, pre_logits: bool = False) -> Tensor:
        """Average pool, then the linear layer unless `pre_logits`."""
        pooled = F.adaptive_avg_pool2d(feature_map, 1).flatten(1)
        return pooled if pre_logits else cast(Tensor, self.fc(pooled))

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) to (batch, classes) logits."""
        return self.forward_head(self.forward_features(images))

    def get_classifier(self) -> nn.Module:
        """Return the last linear layer."""
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a fresh linear layer with `num_classes` outputs at the end, or none for 0."""
        self.num_classes = num_classes
        self.fc = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()


CIFAR_INPUT = {
    "url": "",
    "num_classes": 10,
    "input_size": (3, 32, 32),
    "pool_size": (8, 8),
    "crop_pct": 1.0,
    "interpolation": "bicubic",
    "mean": (0.4914, 0.4822, 0.4465),
    "std": (0.2470, 0.2435, 0.2616),
    "first_conv": "stem.0",
    "classifier": "fc",
}
_RESNET_INPUT = {**CIFAR_INPUT, "pool_size": (4, 4), "first_conv": "conv1"}
default_cfgs = generate_default_cfgs(
    {"small_convnet.untrained": CIFAR_INPUT, "resnet18_32px.untrained": _RESNET_INPUT}
)


@register_model
def small_convnet(pretrained: bool = False, **options: Any) -> SmallConvNet:
    """Seven layers, 2.0 million weights with ten classes: the network of the bundled models."""
    return _built(SmallConvNet, "small_convnet", pretrained, options)


class SmallStemResNet(ResNet):
    """timm's ResNet with a 3 × 3 stem of stride 1 and no max pool, as is usual for 32 pixels."""

    def __init__(self, block: Any, layers: tuple[int, ...], **options: Any) -> None:
        super().__init__(block, layers, **options)
        stem = nn.Conv2d(options.get("in_chans", 3), 64, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
        self.add_module("conv1", stem)
        self.add_module("maxpool", nn.Identity())


@register_model
def resnet18_32px(pretrained: bool = False, **options: Any) -> SmallStemResNet:
    """ResNet-18 for 32-pixel images: 11.2 million weights with ten classes."""
    kind = {"block": BasicBlock, "layers": (2, 2, 2, 2), **options}
    return _built(SmallStemResNet, "resnet18_32px", pretrained, kind)


def _built(kind: type[_Network], name: str, pretrained: bool, options: dict[str, Any]) -> _Network:
    return build_model_with_cfg(kind, name, pretrained, **options)
