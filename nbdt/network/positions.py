"""Feature maps and tokens as grids over the picture."""

import math
from typing import Any, cast

import torch
from torch import Tensor, nn

ODD = 0.35  # log of the ratio up to which a grid's shape may differ from the picture's

Size = tuple[int, int]  # height, width


def positions(backbone: nn.Module, values: Tensor, picture: Size) -> Tensor | None:
    """Return features as (batch, channels, height, width), or None if they form no grid.

    Networks seldom document the order of their axes. Channels come first or last, whichever leaves
    a grid of the picture's shape; tokens, (batch, tokens, channels), form a grid of that shape.
    `picture` is in pixels.
    """
    shape = _patches(backbone, picture)
    if values.ndim == 4:
        first, last = oddness(values.shape[2:], shape), oddness(values.shape[1:3], shape)
        named_last = getattr(backbone, "output_fmt", "") == "NHWC"
        return (
            values.permute(0, 3, 1, 2) if (last, not named_last) < (first, named_last) else values
        )
    if values.ndim != 3:
        return None
    grid, skipped = _grid(backbone, values.shape[1], shape)
    return values[:, skipped:].transpose(1, 2).unflatten(2, grid) if grid else None


def pools_by_average(
    backbone: nn.Module, features: int, feature_map: Tensor, picture: Size
) -> bool:
    """Return whether the network pools by a plain average over its feature map.

    Networks do not document it, so this pools a random feature map. Its channels are far on both
    sides of zero, so that a ReLU or a limit after the pool shows.
    """
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        probe = torch.randn(feature_map[:1].shape, generator=draw).to(feature_map)
        seen = positions(backbone, probe, picture)
        if seen is None or seen.shape[1] != features:
            return False
        seen += 10 * torch.randn(seen.shape[1], 1, 1, generator=draw).to(seen)  # a view of `probe`
        pooled: Tensor = cast(Any, backbone).forward_head(probe, pre_logits=True)
        average = seen.mean(dim=(2, 3))
    near = max(1e-3, 4 * torch.finfo(probe.dtype).eps)
    return pooled.shape == average.shape and torch.allclose(pooled, average, near, near)


def _patches(backbone: nn.Module, picture: Size) -> tuple[float, float]:
    """Return the picture's height and width in patches, or in pixels for networks without patches."""
    patch = getattr(getattr(backbone, "patch_embed", None), "patch_size", None) or 1
    height, width = patch if isinstance(patch, tuple | list) else (patch, patch)
    return picture[0] / height, picture[1] / width


def oddness(grid: tuple[int, ...], shape: tuple[float, float]) -> float:
    """Return how much a grid's aspect ratio differs from a shape's, as a log ratio."""
    return abs(math.log(grid[0] * shape[1]) - math.log(grid[1] * shape[0]))


def _grid(backbone: nn.Module, tokens: int, shape: tuple[float, float]) -> tuple[Size | None, int]:
    """Return height and width of the patch tokens, and the number of tokens before them.

    Some networks add their class token only after the blocks, so both counts are tried.
    """
    best: tuple[float, Size | None, int] = (ODD, None, 0)
    for skipped in (getattr(backbone, "num_prefix_tokens", 0), 0):
        count = tokens - skipped
        for height in (h for h in range(1, count + 1) if count % h == 0):
            found = oddness((height, count // height), shape)
            if count > 1 and found < best[0]:
                best = found, (height, count // height), skipped
    return best[1], best[2]
