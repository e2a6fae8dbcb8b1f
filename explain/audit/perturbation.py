"""Deletion and insertion: how a decision's probability follows from the regions a map ranks first.

A region is one cell of a grid, the same for every method, so that a map in pixels is not rewarded for
scattering what it hides: whole regions are hidden, as in Samek et al., *Evaluating the visualization
of what a deep neural network has learned* (2017). Curves and areas are those of RISE (Petsiuk et al.,
2018), with two differences: the probability is that of the decision the map is about, and equal
values are ordered at random instead of by position.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from nbdt.model.model import NBDT

from ..maps.log_odds import MOST_AT_ONCE, PIXELS_AT_ONCE, measured_log_odds
from ..result.regions import regrid

BLUR = 1 / 12  # of the image's side: the standard deviation of the blur that hides a region
Grid = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Ranked:
    """What a method ranks first, for every audited decision of a batch.

    Attributes:
        image: (rankings,) the image each ranking belongs to.
        ranks: (rankings, cells) 0 for the cell to go first; cells row by row.
        of_decision: (decisions,) each decision's ranking: decisions with one map share it.
        node: (decisions,) the chosen child that each decision is about.
        grid: cells down and across.
    """

    image: Tensor
    ranks: Tensor
    of_decision: Tensor
    node: Tensor
    grid: Grid


def ranked(
    maps: Sequence[Sequence[NDArray[np.float32]]],
    nodes: Sequence[Sequence[int]],
    grid: Grid,
    rng: np.random.Generator,
) -> Ranked:
    """The rankings behind the maps of a batch: one (height, width) map for each node."""
    image, ranks, of_decision = [], [], []
    for row, own in enumerate(maps):
        for place, values in enumerate(own):
            if place == 0 or not np.array_equal(values, own[place - 1]):
                image.append(row)
                ranks.append(_ranks(regrid(values, *grid).ravel(), rng))
            of_decision.append(len(ranks) - 1)
    return Ranked(
        torch.tensor(image),
        torch.from_numpy(np.stack(ranks)),
        torch.tensor(of_decision),
        torch.tensor([node for own in nodes for node in own]),
        grid,
    )


def _ranks(values: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    order = np.lexsort((rng.random(len(values)), -values))  # the highest first, ties at random
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.arange(len(order))
    return ranks


# ---- what takes a region's place ---------------------------------------------------------------


def blurred(images: Tensor) -> Tensor:
    """Each image under a Gaussian blur of `BLUR` of its longer side."""
    sigma = BLUR * max(images.shape[-2:])
    reach = min(math.ceil(3 * sigma), *(side - 1 for side in images.shape[-2:]))
    places = torch.arange(-reach, reach + 1, dtype=images.dtype, device=images.device)
    kernel = (-(places**2) / (2 * sigma**2)).exp()
    kernel = (kernel / kernel.sum()).expand(images.shape[1], 1, 1, -1)
    padded = F.pad(images, (reach, reach, reach, reach), mode="reflect")
    across = F.conv2d(padded, kernel, groups=images.shape[1])
    return F.conv2d(across, kernel.transpose(2, 3), groups=images.shape[1])


def mean_coloured(images: Tensor) -> Tensor:
    """Each image as one field of its own mean colour."""
    return images.mean(dim=(2, 3), keepdim=True).expand_as(images)


BASELINES: Mapping[str, Callable[[Tensor], Tensor]] = {"blur": blurred, "mean": mean_coloured}


# ---- measured -----------------------------------------------------------------------------------


def pixel_ranks(ranks: Tensor, grid: Grid, size: tuple[int, int]) -> Tensor:
    """(…, cells) ranks to (…, height, width): each pixel has the rank of the cell it lies in."""
    rows, columns = (
        torch.arange(side) * count // side for side, count in zip(size, grid, strict=True)
    )
    return ranks[..., rows[:, None] * grid[1] + columns]


def curves(
    model: NBDT, images: Tensor, given: Ranked, baseline: str, steps: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Deletion and insertion curves of every decision.

    Args:
        images: (batch, 3, height, width), preprocessed.
        given: the rankings of their decisions.
        baseline: one of `BASELINES`.
        steps: equal shares of the regions that are hidden, or shown, one after the other.

    Returns:
        deletion, insertion: (decisions, steps + 1) probabilities of the decision, from nothing to
        all of the regions.
    """
    cells = given.ranks.shape[1]
    hidden = BASELINES[baseline](images)
    counts = [round(cells * step / steps) for step in range(1, steps)]
    whole, nothing = (
        measured_log_odds(model, values)[given.image[given.of_decision]].gather(
            1, given.node[:, None]
        )
        for values in (images, hidden)
    )
    deleted = _own(composed(model, hidden, images, given, counts), given)
    inserted = _own(composed(model, images, hidden, given, counts), given)
    deletion = torch.cat([whole, deleted, nothing], dim=1).sigmoid()
    insertion = torch.cat([nothing, inserted, whole], dim=1).sigmoid()
    return deletion.numpy(), insertion.numpy()


def without_top(
    model: NBDT, images: Tensor, given: Ranked, baseline: str, share: float
) -> NDArray[np.float64]:
    """(decisions, nodes) log-odds of all nodes once each map's top `share` of regions is hidden."""
    count = max(1, round(share * given.ranks.shape[1]))
    found = composed(model, BASELINES[baseline](images), images, given, [count])
    return found[given.of_decision, 0].numpy()


def composed(
    model: NBDT, top: Tensor, rest: Tensor, given: Ranked, counts: Sequence[int]
) -> Tensor:
    """(rankings, counts, nodes) log-odds of images whose first `count` regions are from `top`.

    Args:
        top, rest: (batch, 3, height, width): the other regions are those of `rest`.
    """
    ranks = pixel_ranks(given.ranks, given.grid, (top.shape[-2], top.shape[-1]))
    jobs = [(row, count) for row in range(len(ranks)) for count in counts]
    parts = []
    for some in _parts(jobs, top.shape[-2] * top.shape[-1]):
        rows, limits = torch.tensor(some).T
        chosen = (ranks[rows] < limits[:, None, None])[:, None].to(top.device)
        image = given.image[rows].to(top.device)
        parts.append(measured_log_odds(model, torch.where(chosen, top[image], rest[image])))
    return torch.cat(parts).view(len(ranks), len(counts), -1)


def _parts(jobs: Sequence[tuple[int, int]], pixels: int) -> Iterator[Sequence[tuple[int, int]]]:
    size = max(1, min(MOST_AT_ONCE, PIXELS_AT_ONCE // pixels))
    for start in range(0, len(jobs), size):
        yield jobs[start : start + size]


def _own(found: Tensor, given: Ranked) -> Tensor:
    """(rankings, counts, nodes) to (decisions, counts): each decision's own node."""
    values = found[given.of_decision]
    return values.gather(2, given.node[:, None, None].expand(-1, values.shape[1], 1))[..., 0]


def area(curve: NDArray[np.float64]) -> NDArray[np.float64]:
    """Area under curves (…, points) over the share of regions from 0 to 1, by trapezia: (…)."""
    found: NDArray[np.float64] = ((curve[..., 1:] + curve[..., :-1]) / 2).mean(axis=-1)
    return found
