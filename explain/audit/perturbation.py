"""What hiding the regions of a map changes: deletion, insertion, specificity and swap.

A region is one cell of a grid, the same for every method, as in Samek et al., *Evaluating the
visualization of what a deep neural network has learned* (2017). Curves and areas are those of RISE
(Petsiuk et al., 2018), with two differences: the probability is that of the map's decision, and
ties are broken at random instead of by position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nbdt.model.model import NBDT

from ..maps.hiding import BASELINES, hidden_logits
from ..maps.log_odds import measured_log_odds, of_logits
from ..result.regions import regrid
from .methods import Maps, Nodes
from .result import Values

Grid = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Rankings:
    """The order of regions in every map of a batch."""

    image: Tensor  # (rankings,) index of each ranking's image
    ranks: Tensor  # (rankings, cells) 0 for the first cell; cells are counted row by row
    of_decision: Tensor  # (decisions,) index of each decision's ranking; equal maps share one
    node: Tensor  # (decisions,) the chosen child of each decision
    grid: Grid  # cells down and across


def ranked(maps: Maps, nodes: Nodes, grid: Grid, rng: np.random.Generator) -> Rankings:
    """Rank the cells of the maps of a batch, one (height, width) map for each node."""
    image, ranks, of_decision = [], [], []
    for row, path_maps in enumerate(maps):
        for index, values in enumerate(path_maps):
            if index == 0 or not np.array_equal(values, path_maps[index - 1]):
                image.append(row)
                ranks.append(_ranks(regrid(values, *grid).ravel(), rng))
            of_decision.append(len(ranks) - 1)
    return Rankings(
        torch.tensor(image),
        torch.from_numpy(np.stack(ranks)),
        torch.tensor(of_decision),
        torch.tensor([node for path in nodes for node in path]),
        grid,
    )


def _ranks(values: Values, rng: np.random.Generator) -> NDArray[np.int64]:
    order = np.lexsort((rng.random(len(values)), -values))  # the highest first, ties at random
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.arange(len(order))
    return ranks


def curves(
    model: NBDT, images: Tensor, rankings: Rankings, baseline: str, steps: int
) -> tuple[Values, Values]:
    """Return deletion and insertion curves of every decision, (decisions, steps + 1) each.

    They are probabilities of the decision, from no region to all regions, in `steps` equal shares that
    are hidden or shown one after the other.

    Args:
        images: (batch, 3, height, width), preprocessed.
        rankings: of their decisions.
        baseline: one of `BASELINES`.
    """
    cells = rankings.ranks.shape[1]
    hidden = BASELINES[baseline](images)
    counts = [round(cells * step / steps) for step in range(1, steps)]
    image, node = rankings.image[rankings.of_decision], rankings.node[:, None]
    whole, nothing = (
        measured_log_odds(model, values)[image].gather(1, node) for values in (images, hidden)
    )
    deleted = _decided(composed(model, hidden, images, rankings, counts), rankings)
    inserted = _decided(composed(model, images, hidden, rankings, counts), rankings)
    deletion = torch.cat([whole, deleted, nothing], dim=1).sigmoid()
    insertion = torch.cat([nothing, inserted, whole], dim=1).sigmoid()
    return deletion.numpy(), insertion.numpy()


def without_top(
    model: NBDT, images: Tensor, rankings: Rankings, baseline: str, share: float
) -> Values:
    """Return (decisions, nodes) log-odds with each map's top `share` of regions hidden."""
    count = max(1, round(share * rankings.ranks.shape[1]))
    log_odds = composed(model, BASELINES[baseline](images), images, rankings, [count])
    return log_odds[rankings.of_decision, 0].numpy()


def composed(
    model: NBDT, top: Tensor, rest: Tensor, rankings: Rankings, counts: Sequence[int]
) -> Tensor:
    """Return (rankings, counts, nodes) log-odds of images made of two, (batch, 3, height, width) each.

    The first `count` regions come from `top`, the others from `rest`.
    """
    ranks, limits = rankings.ranks, torch.tensor(counts)[:, None]
    masks = (ranks[:, None] < limits).view(-1, *rankings.grid)  # (rankings · counts, rows, columns)
    rows = rankings.image.repeat_interleave(len(counts))
    logits = hidden_logits(model, rest, top, rows, masks, softness=0)
    log_odds = of_logits(model, logits.to(model.device)).cpu()
    return log_odds.view(len(ranks), len(counts), -1)


def _decided(log_odds: Tensor, rankings: Rankings) -> Tensor:
    """Select each decision's node: (rankings, counts, nodes) to (decisions, counts)."""
    values = log_odds[rankings.of_decision]
    return values.gather(2, rankings.node[:, None, None].expand(-1, values.shape[1], 1))[..., 0]


def area(curve: Values) -> Values:
    """Return the area under curves (…, points) over the share of regions from 0 to 1: (…)."""
    areas: Values = ((curve[..., 1:] + curve[..., :-1]) / 2).mean(axis=-1)
    return areas


def swap(before: Values, after: Values, nodes: Nodes) -> Values:
    """Return the share of the path's other regions whose hiding lowers a decision less than its own.

    It is (decisions,), NaN where a path has no other decision; equal falls count as half, so one map
    for all decisions reaches exactly a half. Arguments are those of `specificity`.
    """
    shares, ends = [], np.cumsum([len(path) for path in nodes])
    for image, path, end in zip(before, nodes, ends, strict=True):
        falls = image[list(path)] - after[end - len(path) : end, list(path)]  # (hidden, decisions)
        wins = (np.sign(falls.diagonal() - falls) + 1) / 2
        others = len(path) - 1
        shares += [*((wins.sum(axis=0) - 0.5) / others if others else [np.nan])]
    return np.array(shares, dtype=np.float64)


def specificity(before: Values, after: Values, nodes: Nodes, spread: Values) -> Values:
    """Return the share of the other decisions on its path that change less than each one falls.

    It is (decisions,), NaN where a path has no other decision. Does a map show what matters to its
    decision, or the object in general? The top regions of one decision's map are hidden; its log-odds
    should fall more than those of the others change. One map for all decisions wins at most half of the
    comparisons: each win is another's loss.

    Args:
        before: (images, nodes) log-odds.
        after: (decisions, nodes) log-odds without each decision's top regions.
        nodes: for every image the chosen children on its path.
        spread: (nodes,), see `nbdt.explain.maps.log_odds.fixed_spread`.
    """
    shares, rows = [], iter(after)
    for image, path in zip(before, nodes, strict=True):
        for node in path:
            fall = (image - next(rows)) / spread
            less = np.abs(fall[[other for other in path if other != node]]) < fall[node]
            shares.append(less.mean() if len(less) else np.nan)
    return np.array(shares, dtype=np.float64)
