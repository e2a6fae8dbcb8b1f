"""Late interaction: match each region of the query to the most similar region of another image.

As in ColBERT (Khattab and Zaharia, 2020), which matches words: the score of a query with regions
``q_i`` and an image with regions ``e_j``, all of unit length, is ``Σ_i w_i max_j q_i · e_j``. Here
the weights sum to one, so scores are in [−1, 1]. A region is a position of the last feature map;
its box is the position's share of the picture, although the network sees more around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from nbdt.errors import NBDTError
from nbdt.model.model import NBDT
from nbdt.network.positions import positions

Floats = NDArray[np.float32]
Grid = tuple[int, int]  # height and width of a feature map, in positions


@dataclass(frozen=True)
class Box:
    """A rectangle as shares, 0 to 1, of the square picture that the network sees."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class RegionMatch:
    """One region of the query and its best region in the other image.

    Attributes:
        query: where in the query.
        evidence: where in the other image.
        similarity: the cosine of their vectors.
        weight: the region's weight in the score; all weights sum to 1.
    """

    query: Box
    evidence: Box
    similarity: float
    weight: float


@dataclass(frozen=True)
class LateInteraction:
    """How a query resembles another image, region by region.

    Attributes:
        score: Σ weight · similarity over all regions, in [−1, 1].
        matches: regions with positive weight, largest share of the score first.
    """

    score: float
    matches: tuple[RegionMatch, ...]


def forward(
    model: NBDT, images: Sequence[Image.Image], *, framed: bool = False
) -> tuple[Tensor, Tensor]:
    """Return the last feature map and the pooled features of photographs.

    Args:
        model: in evaluation mode.
        images: photographs.
        framed: the photographs are already cropped to what the network sees, at any size.
    """
    prepare = replace(model.preprocess, crop_pct=1.0) if framed else model.preprocess
    batch = torch.stack([prepare(image) for image in images])
    with torch.inference_mode():
        feature_map = model.feature_map(batch.to(model.device))
        return feature_map, model.pool(feature_map)


def feature_grid(model: NBDT, feature_map: Tensor) -> Tensor:
    """Return a last feature map of a square picture as (batch, features, height, width).

    Channels may be first or last, or tokens; class tokens and registers are left out.

    Raises:
        NBDTError: the values have no positions in the picture.
    """
    side = model.preprocess.size
    grid = positions(model.backbone, feature_map, (side, side))
    if grid is None:
        raise NBDTError(
            f"{model.architecture!r} has a last feature map of shape {tuple(feature_map.shape)}, "
            "not a grid of positions. Use evidence of whole images."
        )
    return grid


def region_vectors(grid: Tensor) -> Floats:
    """(batch, height · width, features) of unit length, row by row, from a `feature_grid`."""
    vectors = torch.nn.functional.normalize(grid.detach().float().flatten(2), dim=1, eps=1e-12)
    regions: Floats = vectors.transpose(1, 2).cpu().numpy()
    return np.ascontiguousarray(regions)


def late_interactions(
    query: Floats, evidence: Floats, grid: Grid, weights: Floats | None = None
) -> tuple[LateInteraction, ...]:
    """Match each query region to its most similar region in each image.

    Args:
        query: (regions, features), of unit length.
        evidence: (images, regions of an image, features), of unit length.
        grid: of all regions.
        weights: (regions,); by default equal.

    Returns:
        One result an image.
    """
    weights = np.full(len(query), 1 / len(query)) if weights is None else weights
    results = []
    for cosines in evidence @ query.T:  # (regions of an image, regions)
        best, values = cosines.argmax(axis=0).tolist(), cosines.max(axis=0)
        shares = weights * values
        matches = tuple(
            RegionMatch(box(at, grid), box(best[at], grid), float(values[at]), float(weights[at]))
            for at in np.argsort(-shares, kind="stable").tolist()
            if weights[at] > 0
        )
        results.append(LateInteraction(float(shares.sum()), matches))
    return tuple(results)


def box(position: int, grid: Grid) -> Box:
    """The box of a position, counted row by row."""
    height, width = grid
    row, column = divmod(position, width)
    return Box(column / width, row / height, (column + 1) / width, (row + 1) / height)


def strongest(node_map: Floats, count: int = 5) -> Floats:
    """Return (height · width,) weights for the positions where a node map supports its child most.

    The `count` largest positive values, scaled to sum 1; equal weights if no value is positive.
    """
    values = np.asarray(node_map, dtype=np.float32).ravel()
    weights = np.zeros_like(values)
    top = [at for at in np.argsort(-values, kind="stable")[:count] if values[at] > 0]
    if not top:
        return np.full_like(values, 1 / values.size)
    weights[top] = values[top] / values[top].sum()
    return weights
