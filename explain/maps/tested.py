"""Tested regions: for each decision of a path, a region whose hiding moves that decision most.

Maps of one path look alike, so a map cannot say what decided *this* step. A test can: candidates are
blurred one by one, and every picture shows what happens to all decisions. Fixed windows come first;
maps fitted to their outcomes propose further regions. A decision's region is the candidate that lowers
it more than it changes most of the others. It is shown only if it passes under the mean colour too,
which took no part in the choice. A wide blur and sharp edges choose regions that pass most often there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from nbdt.decide.paths import Path
from nbdt.model.model import NBDT

from ..result.regions import TestedRegion, connected
from .candidates import Mask, Values, beyond_others, distinct, grown, windows
from .hiding import blurred, hidden_logits, mean_coloured
from .log_odds import fixed_spread, of_logits
from .node_maps import chosen_nodes

LEAST = 0.15  # fall that counts, in spreads
STEADY = 0.25  # what a ratio adds to the largest change of another decision
LENGTH = 1.5  # of the prior's covariance, in cells
NOISE = 0.3  # variance of an outcome that cells do not explain, as a share of a typical outcome's


@dataclass(frozen=True, eq=False)
class Search:
    """What hiding candidates did to the decisions of one image's path."""

    before: Values  # (decisions,) log-odds of the chosen children in the whole picture
    spread: Values  # (decisions,) of these log-odds over many photographs
    prior: Values  # (decisions, rows, columns): where the evidence was thought to be
    masks: Mask  # (sets, rows, columns), bool: the candidates
    after: Values  # (sets, decisions) log-odds with each candidate blurred
    logits: Tensor  # (sets, classes) of the same pictures

    def with_more(self, masks: Mask, after: Values, logits: Tensor) -> "Search":
        """Return the search with the outcomes of further candidates."""
        return replace(
            self,
            masks=np.concatenate([self.masks, masks]),
            after=np.concatenate([self.after, after]),
            logits=torch.cat([self.logits, logits]),
        )

    @cached_property
    def maps(self) -> Values:
        """(decisions, rows, columns), in log-odds: fitted to the outcomes, guided by the prior."""
        falls = (self.before - self.after).T
        return np.array([
            fitted(prior, self.masks, own) for prior, own in zip(self.prior, falls, strict=True)
        ])  # fmt: skip

    def proposals(self) -> Mask:
        """Return new candidates: a piece of each map where it exceeds those of the other decisions."""
        excess = beyond_others(self.maps / self.spread[:, None, None])
        tried = len(self.masks)
        return distinct([*self.masks, *map(grown, excess)])[tried:]

    @cached_property
    def falls(self) -> Values:
        """(sets, decisions) falls of the log-odds, in spreads, with each candidate blurred."""
        falls: Values = (self.before - self.after) / self.spread
        return falls

    @cached_property
    def best(self) -> list[int]:
        """For each decision the candidate that lowers it more than it changes most of the others.

        Among equals, the one that lowers it most in proportion to the largest change of another.
        """
        wins, largest = own_falls(self.falls)
        ratios = self.falls / (STEADY + largest)
        return [int(row) for row in np.lexsort((ratios, wins), axis=0)[-1]]

    @property
    def claims(self) -> list[int]:
        """The candidates that pass for a decision where they were chosen: to be verified."""
        passed = self.falls > np.maximum(own_falls(self.falls)[1], LEAST)
        return sorted({row for index, row in enumerate(self.best) if passed[row, index]})

    def regions(self, verified: Values) -> tuple[TestedRegion | None, ...]:
        """Return each decision's region, None where none passes both tests.

        `verified`: (claims, decisions) log-odds with `claims` hidden in the other way.
        """
        rows = dict(zip(self.claims, verified, strict=True))
        found = []
        for index, row in enumerate(self.best):
            after = np.array([self.after[row], rows.get(row, self.before)])
            falls = (self.before - after) / self.spread
            own, others = falls[:, index], own_falls(falls)[1][:, index]
            passed = bool((own > np.maximum(others, LEAST)).all())
            found.append(self._region(index, after, own, others) if passed else None)
        return tuple(found)

    def _region(self, index: int, after: Values, own: Values, others: Values) -> TestedRegion:
        mask = self.masks[self.best[index]]
        cells = [(int(row), int(column)) for row, column in np.argwhere(mask)]
        before, blurred, coloured = (float(self.before[index]), *map(float, after[:, index]))
        return TestedRegion(
            connected(cells, (mask.shape[0], mask.shape[1])),
            (before, blurred, coloured),
            ((float(own[0]), float(others[0])), (float(own[1]), float(others[1]))),
            float(mask.mean()),
        )


def own_falls(falls: Values) -> tuple[Values, Values]:
    """Compare the fall of each decision with the changes of the others on its path.

    `falls`: (sets, decisions) of log-odds, in spreads, with each set of cells hidden.

    Returns:
        How many of the others change by less than each decision falls, and the largest absolute change
        of another: (sets, decisions) both.
    """
    others = ~np.eye(falls.shape[1], dtype=bool)
    sizes = np.abs(falls)[:, None] * others
    wins: Values = ((falls[:, :, None] > sizes) & others).sum(axis=2).astype(np.float64)
    return wins, sizes.max(axis=2)


def search(
    model: NBDT,
    images: Tensor,
    paths: Sequence[Path],
    priors: Sequence[Values],
    *,
    along: int,
    rounds: int,
) -> list[Search]:
    """Blur candidates in each image, those of all images together.

    Args:
        model: in evaluation mode.
        images: (batch, 3, height, width), preprocessed, on the model's device.
        paths: of the images.
        priors: for every image (decisions, rows, columns): maps that say where evidence is, on the
            grid of cells; zeros if nothing is known.
        along: windows along a side of the picture.
        rounds: how often the fitted maps propose further regions.
    """
    nodes, spread = [chosen_nodes(model, path) for path in paths], fixed_spread(model)
    masks = [windows((prior.shape[1], prior.shape[2]), along) for prior in priors]
    outcomes = hide(model, images, nodes, masks)
    found = [
        Search(
            np.array([decision.log_odds for decision in path]), spread[own], prior, sets, *outcome
        )
        for path, own, outcome, prior, sets in zip(
            paths, nodes, outcomes, priors, masks, strict=True
        )
    ]
    for _ in range(rounds):
        masks = [one.proposals() for one in found]
        outcomes = hide(model, images, nodes, masks)
        found = [
            one.with_more(own, *outcome)
            for one, own, outcome in zip(found, masks, outcomes, strict=True)
        ]
    return found


def verified_regions(
    model: NBDT, images: Tensor, paths: Sequence[Path], found: Sequence[Search]
) -> list[tuple[TestedRegion | None, ...]]:
    """Return for each image the regions that pass in a way of hiding that did not choose them."""
    nodes = [chosen_nodes(model, path) for path in paths]
    outcomes = hide(model, images, nodes, [one.masks[one.claims] for one in found], mean_coloured)
    return [one.regions(verified) for one, (verified, _) in zip(found, outcomes, strict=True)]


def hide(
    model: NBDT,
    images: Tensor,
    nodes: Sequence[list[int]],
    masks: Sequence[Mask],
    way: Callable[[Tensor], Tensor] = blurred,
) -> list[tuple[Values, Tensor]]:
    """Return for every image the outcomes of hiding each of its sets.

    They are the log-odds of its nodes, (sets, decisions), and the logits, (sets, classes).
    """
    counts = [len(own) for own in masks]
    rows = torch.arange(len(masks)).repeat_interleave(torch.tensor(counts))
    together = torch.from_numpy(np.concatenate(masks))
    logits = hidden_logits(model, images, way(images), rows, together)
    log_odds = of_logits(model, logits.to(model.device)).cpu().double().numpy()
    parts = zip(
        np.split(log_odds, np.cumsum(counts)[:-1]), logits.split(counts), nodes, strict=True
    )
    return [(part[:, path], own) for part, own, path in parts]


def fitted(prior: Values, masks: Mask, falls: Values) -> Values:
    """Return the map of one decision, (rows, columns), in units of the outcomes.

    The outcome of hiding a set of cells is modelled as the sum of their values. The map is the
    posterior mean of a Gaussian process over cells whose mean is another map, scaled to the outcomes;
    it is the idea of LIME (Ribeiro et al., 2016) and kernel SHAP (Lundberg and Lee, 2017) with a prior.

    Args:
        prior: (rows, columns), in any unit: where the decision's evidence is thought to be.
        masks: (sets, rows, columns): the cells that were hidden.
        falls: (sets,): how far the decision's log-odds fell.
    """
    places = np.argwhere(np.ones(prior.shape, dtype=bool))
    distances = ((places[:, None] - places) ** 2).sum(axis=2)
    covariance = np.exp(-distances / (2 * LENGTH**2))
    hidden, mean = masks.reshape(len(masks), -1).astype(np.float64), prior.ravel()
    expected = hidden @ mean
    scale = max(0.0, float(expected @ falls)) / max(float(expected @ expected), 1e-12)
    outcomes = hidden @ covariance @ hidden.T
    outcomes += NOISE * outcomes.trace() / len(outcomes) * np.eye(len(outcomes))
    gain = covariance @ hidden.T @ np.linalg.solve(outcomes, falls - scale * expected)
    found: Values = (scale * mean + gain).reshape(prior.shape)
    return found
