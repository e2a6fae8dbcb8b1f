"""What takes the place of a region: a blur without foreign colours, under soft masks."""

from __future__ import annotations

import torch
from torch import Tensor

SOFTNESS = 1 / 8  # standard deviation of a mask's edge, as a share of a cell


def gaussian_blur(image: Tensor, sigma: float) -> Tensor:
    """Each pixel as the Gaussian-weighted mean of those there are: no colour enters from outside.

    Args:
        image: (…, height, width).
        sigma: standard deviation in pixels.
    """
    height, width = image.shape[-2:]
    rows, columns = (_gaussian(length, sigma).to(image) for length in (height, width))
    return rows @ image @ columns.t()


def soft_masks(masks: Tensor, height: int, width: int) -> Tensor:
    """Masks over cells as masks over pixels, from 0 to 1, their edges smoothed.

    Args:
        masks: (batch, rows, columns), 0 or 1.
        height, width: in pixels, no fewer than rows and columns.

    Returns:
        (batch, height, width). Masks of cells that cover the picture sum to 1 everywhere.
    """
    rows, columns = masks.shape[-2:]
    return _spread(height, rows) @ masks @ _spread(width, columns).t()


def _spread(pixels: int, cells: int) -> Tensor:
    """(pixels, cells): how much each pixel belongs to each cell; rows sum to 1."""
    owner = (torch.arange(pixels) + 0.5) * cells / pixels
    member = torch.nn.functional.one_hot(owner.long(), cells).float()
    return _gaussian(pixels, SOFTNESS * pixels / cells) @ member


def _gaussian(length: int, sigma: float) -> Tensor:
    """(length, length): Gaussian weights of all positions around each; rows sum to 1."""
    places = torch.arange(length, dtype=torch.float64)
    weights: Tensor = (-0.5 * ((places[:, None] - places) / sigma) ** 2).softmax(dim=1)
    return weights.float()
