"""What hiding the regions of a map changes: deletion, insertion, specificity and swap.

A region is one cell of a grid, the same for every method, as in Samek et al., *Evaluating the
visualization of what a deep neural network has learned* (2017). Curves and areas are those of RISE
(Petsiuk et al., 2018), with two differences: the probability is that of the map's decision, and
ties are broken at random instead of by position.
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import trapezoid
from scipy.special import expit
from torch import Tensor

from nbdt.model.model import NBDT

from ..maps.candidates import Grid, Mask
from ..maps.hiding import BASELINES, HiddenPictures
from ..maps.log_odds import of_logits
from ..maps.tested import own_falls
from ..result.explanation import Map
from ..result.regions import regrid
from .result import Values

Ranks = NDArray[np.int64]


class Trials:
    """What a model says of one image's path with regions hidden; no picture runs twice.

    Args:
        image: (3, height, width), preprocessed.
        nodes: the chosen children of the path.
    """

    def __init__(self, model: NBDT, image: Tensor, nodes: Sequence[int], grid: Grid) -> None:
        self.model, self.image, self.nodes, self.grid = model, image[None], list(nodes), grid
        self.ways = {name: HiddenPictures(model, image, way) for name, way in BASELINES.items()}

    def log_odds(self, masks: Mask, baseline: str) -> Values:
        """Return log-odds (…, decisions) with the cells of masks (…, rows, columns) hidden."""
        logits = self.ways[baseline].logits(masks.reshape(-1, *self.grid))
        found: Values = of_logits(self.model, logits)[:, self.nodes].cpu().double().numpy()
        return found.reshape(*masks.shape[:-2], -1)

    @cached_property
    def before(self) -> Values:
        """(decisions,) log-odds of the whole picture."""
        return self.log_odds(np.zeros(self.grid, dtype=bool), next(iter(BASELINES)))


def ranked(maps: Sequence[Map], grid: Grid, rng: np.random.Generator) -> Ranks:
    """Return the rank of every cell in the maps of a path: (maps, rows, columns), 0 for the highest.

    Equal maps share their ranks.
    """
    ranks: list[Ranks] = []
    for index, values in enumerate(maps):
        if index and np.array_equal(values, maps[index - 1]):
            ranks.append(ranks[-1])
            continue
        flat = regrid(values, *grid).ravel()
        order = np.lexsort((rng.random(len(flat)), -flat))  # the highest first, ties at random
        ranks.append(order.argsort().reshape(grid))
    return np.stack(ranks)


def curves(trials: Trials, ranks: Ranks, baseline: str, steps: int) -> tuple[Values, Values]:
    """Return deletion and insertion curves of every decision, (decisions, steps + 1) each.

    They are probabilities of the decision, from no region to all regions, in `steps` equal shares that
    are hidden or shown one after the other.
    """
    counts = np.round(ranks[0].size * np.arange(steps + 1) / steps)
    first = ranks[:, None] < counts[:, None, None]  # (decisions, steps + 1, rows, columns)
    pair = (trials.log_odds(masks, baseline) for masks in (first, ~first))
    deletion, insertion = (expit(np.einsum("dsd->ds", values)) for values in pair)
    return deletion, insertion


def top(ranks: Ranks, share: float) -> Mask:
    """Return masks of the `share` of cells that come first, of the shape of `ranks`."""
    masks: Mask = ranks < max(1, round(share * ranks[0].size))
    return masks


def area(curve: Values) -> Values:
    """Return the area under curves (…, points) over the share of regions from 0 to 1: (…)."""
    areas: Values = trapezoid(curve, dx=1 / (curve.shape[-1] - 1))
    return areas


def swap(before: Values, after: Values) -> Values:
    """Return the share of the path's other regions whose hiding lowers a decision less than its own.

    It is (decisions,), NaN where a path has no other decision; equal falls count as half, so one map
    for all decisions reaches exactly a half.

    Args:
        before: (decisions,) log-odds of a path.
        after: (decisions, decisions), those with each decision's top regions hidden.
    """
    falls = before - after
    wins = (np.sign(falls.diagonal() - falls) + 1) / 2
    return _of_others(wins.sum(axis=0) - 0.5)


def specificity(before: Values, after: Values, spread: Values) -> Values:
    """Return the share of the other decisions on its path that change less than each one falls.

    It is (decisions,), NaN where a path has no other decision. Does a map show what matters to its
    decision, or the object in general? The top regions of one decision's map are hidden; its log-odds
    should fall more than those of the others change. One map for all decisions wins at most half of the
    comparisons: each win is another's loss.

    Args:
        before, after: as in `swap`.
        spread: (decisions,), see `nbdt.explain.maps.log_odds.fixed_spread`.
    """
    wins, _ = own_falls((before - after) / spread)
    return _of_others(wins.diagonal())


def _of_others(counts: Values) -> Values:
    """Divide by the number of other decisions; NaN if there is none."""
    others = len(counts) - 1
    return counts / others if others else np.full(1, np.nan)
