"""Where a network's last features lie in the picture: feature maps and tokens seen as grids."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from .model import NBDT


def positions(backbone: nn.Module, features: int, values: Tensor) -> Tensor | None:
    """(batch, channels, height, width) of a feature map or of tokens; None if there are none.

    `features` is what the head takes: it tells channels that come last from those that come first.
    """
    if values.ndim == 4:
        last = values.shape[-1] == features != values.shape[1]
        if getattr(backbone, "output_fmt", "") == "NHWC" or last:
            return values.permute(0, 3, 1, 2)
        return values
    if values.ndim != 3:
        return None
    grid, skipped = _grid(backbone, values.shape[1])
    return values[:, skipped:].transpose(1, 2).unflatten(2, grid) if grid else None


def pools_by_average(model: NBDT, feature_map: Tensor) -> bool:
    """Whether the network's pooling is the plain average over the positions of its feature map.

    Asked of a random feature map of that shape, since networks do not say.
    """
    with torch.no_grad():
        probe = torch.randn_like(feature_map[:1]) + 1
        features = model.head.linear.in_features
        seen = positions(model.backbone, features, probe)
        if seen is None or seen.shape[1] != features:
            return False
        pooled, average = model.pool(probe), seen.mean(dim=(2, 3))
    return pooled.shape == average.shape and torch.allclose(pooled, average, 1e-3, 1e-3)


def _grid(backbone: nn.Module, tokens: int) -> tuple[tuple[int, int] | None, int]:
    """Height and width of the patch tokens, and how many other tokens come before them.

    Some networks add their class token only after the blocks.
    """
    prefixes = (0, getattr(backbone, "num_prefix_tokens", 0))
    height, width = getattr(getattr(backbone, "patch_embed", None), "grid_size", None) or (0, 0)
    for skipped in prefixes:
        if height * width == tokens - skipped > 0:
            return (height, width), skipped
    for skipped in reversed(prefixes):
        side = math.isqrt(max(tokens - skipped, 0))
        if side > 1 and side * side == tokens - skipped:
            return (side, side), skipped
    return None, 0
