"""Find a few regions whose blurring flips a decision.

A decision is flipped if the path to the most probable class still reaches it and then takes another
child: if the most probable class is below its node, and not below the chosen child.

Cells are blurred in the order of the decision's map until the decision falls, then every cell that
is not needed is given back; the same from the decision's tested region, if its blur flips it. The map
only proposes; each claim is a forward pass of the model on the
blurred picture. Deletion in a map's order with a blurred baseline follows RISE (Petsiuk et al.,
2018); that the smallest such region explains, Fong and Vedaldi (2017), who optimise a mask where
this searches over cells.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from nbdt.decide.paths import Decision, Path
from nbdt.model.model import NBDT

from .maps.hiding import BLURRED, blurred, hidden, hidden_logits
from .result.explanation import Counterfactual
from .result.regions import Cell, TestedRegion, connected, regrid

FINEST = 16  # cells a side; finer maps are summed to it, or single pixels would be searched
MOST = 0.5  # share of the picture that may be blurred
FEW = 16  # cells of which every number is tried

Cells = tuple[Cell, ...]
Outcome = tuple[float, float, str]  # margin, log-odds of the chosen child, the winner's name


def counterfactuals(
    model: NBDT,
    image: Tensor,
    path: Path,
    maps: Sequence[NDArray[np.float32]],
    tested: Sequence[TestedRegion | None] = (),
) -> tuple[Counterfactual, ...]:
    """Return for each decision of a path the small set of regions whose blurring flips it.

    A decision that is not on the path to the most probable class is left as it is.

    Args:
        model: in evaluation mode.
        image: (3, height, width), from `model.preprocess`.
        path: the image's path, from `explain` or `model.paths`.
        maps: one per decision, (rows, columns) of any resolution, positive where the picture
            supports the chosen child.
        tested: one per decision: a region to begin with as well; the smaller result is returned.
    """
    image = image.to(model.device)
    with torch.inference_mode():
        logits = model.logits(image[None]).float()
        untouched = model.head.rules(logits)[0].cpu()
        pair = image[None], blurred(image[None])
        trials = [_Trial(model, pair, *found) for found in zip(path, maps, strict=True)]
        ends = [trial.best_elsewhere(untouched) for trial in trials]
        rivals = model.head.rules.paths(logits.expand(len(ends), -1), ends)
        starts = tested or [None] * len(trials)
        return tuple(
            _search(trial, untouched, index, rival, start)
            for index, (trial, rival, start) in enumerate(zip(trials, rivals, starts, strict=True))
        )


def _search(
    trial: _Trial, untouched: Tensor, index: int, rival: Path, start: TestedRegion | None
) -> Counterfactual:
    before, odds_before, _ = trial.outcome(untouched)
    order = trial.order()
    limit = max(1, int(MOST * len(order))) if before >= 0 and trial.is_reached(untouched) else 0
    found = [_needed(_prefix(order[:limit], trial.margins), trial.margins)]
    if start and limit and start.regions[0].grid == trial.grid:
        region = tuple(cell for piece in start.regions for cell in piece.cells)
        if trial.margins([region])[0] < 0:
            found.append(_needed(region, trial.margins))
    cells = min(filter(None, found), key=len, default=())
    _, odds, winner = trial.outcome(trial.run([cells])[0] if cells else untouched)
    return Counterfactual(
        decision=index,
        margin=before,
        runner_up_path=rival,
        regions=connected(cells, trial.grid),
        flipped=bool(cells),
        becomes=winner if cells else None,
        log_odds=(odds_before, odds),
        share=len(cells) / len(order),
        searched=limit / len(order),
        passes=trial.passes,
        baseline=BLURRED,
        picture=trial.picture(cells) if cells else None,
        overtaken=trial.overtaken,
    )


def _prefix(order: Cells, margins: Callable[[Sequence[Cells]], list[float]]) -> Cells:
    """The first cells of `order` that flip the decision; empty if no length tried does.

    With few cells every length is tried; with more, doubling lengths and then bisection; one cell less
    than the result does not flip it.
    """
    if len(order) <= FEW:
        tried = margins([order[:length] for length in range(1, len(order) + 1)])
        return next((order[: n + 1] for n, margin in enumerate(tried) if margin < 0), ())
    low, high = 0, 1
    while margins([order[:high]])[0] >= 0:
        if high == len(order):
            return ()
        low, high = high, min(2 * high, len(order))
    while high - low > 1:
        middle = (low + high) // 2
        if margins([order[:middle]])[0] < 0:
            high = middle
        else:
            low = middle
    return order[:high]


def _needed(cells: Cells, margins: Callable[[Sequence[Cells]], list[float]]) -> Cells:
    """Backward elimination: what is left flips the decision, and no cell of it can be spared."""
    while len(cells) > 1:
        left_out = margins([_without(cells, (cell,)) for cell in cells])
        ranked = sorted(zip(left_out, cells, strict=True))
        spare = tuple(cell for margin, cell in ranked if margin < 0)[: len(cells) - 1]
        if not spare:
            break
        # As many as can go together, the most dispensable first; one alone can.
        while len(spare) > 1 and margins([_without(cells, spare)])[0] >= 0:
            spare = spare[: len(spare) // 2]
        cells = _without(cells, spare)
    return cells


def _without(cells: Cells, gone: Cells) -> Cells:
    return tuple(cell for cell in cells if cell not in gone)


class _Trial:
    """One decision of one picture: blurs sets of cells, runs the model, counts."""

    def __init__(
        self,
        model: NBDT,
        pair: tuple[Tensor, Tensor],  # the image and its blur, (1, 3, height, width) each
        decision: Decision,
        values: NDArray[np.float32],
    ) -> None:
        self.model, self.pair = model, pair
        self.chosen, self.names = decision.chosen, decision.children
        tree = model.hierarchy
        classes = (tree.classes_under(tree.index(child)) for child in decision.child_ids)
        self.below = [torch.tensor(below) for below in classes]
        sides = zip(values.shape, pair[0].shape[2:], strict=True)
        rows, columns = (min(FINEST, cells, pixels) for cells, pixels in sides)
        self.grid = (rows, columns)
        self.values = regrid(values, rows, columns)
        self.passes, self.overtaken = 0, False

    def order(self) -> Cells:
        """All cells, the one that supports the chosen child most first."""
        places = np.argsort(-self.values, axis=None, kind="stable")
        rows, columns = np.unravel_index(places, self.grid)
        return tuple(zip(rows.tolist(), columns.tolist(), strict=True))

    def margins(self, sets: Sequence[Cells]) -> list[float]:
        """The decision's margin after blurring each set; negative where it is flipped.

        Infinite where a decision above it is flipped first: the path does not reach this one.
        """
        rows = self.run(sets)
        reached = [self.is_reached(row) for row in rows]
        self.overtaken |= not all(reached)
        return [
            self.outcome(row)[0] if comes else math.inf
            for row, comes in zip(rows, reached, strict=True)
        ]

    def run(self, sets: Sequence[Cells]) -> list[Tensor]:
        """The log-probabilities of all classes, for each set blurred."""
        masks = self.masks(sets)
        rows = torch.zeros(len(sets), dtype=torch.long)
        logits = hidden_logits(self.model, *self.pair, rows, masks).to(self.model.device)
        self.passes += len(sets)
        return [*self.model.head.rules(logits).cpu()]

    def is_reached(self, row: Tensor) -> bool:
        """Whether the most probable class is below this decision's node."""
        return bool(row.max() == max(row[classes].max() for classes in self.below))

    def best_elsewhere(self, row: Tensor) -> int:
        """The most probable class below the other children."""
        others = torch.cat([c for child, c in enumerate(self.below) if child != self.chosen])
        return int(others[row[others].argmax()])

    def outcome(self, row: Tensor) -> Outcome:
        """Of the log-probabilities of all classes, (classes,), once the decision is reached."""
        best = [float(row[classes].max()) for classes in self.below]
        mass = [row[classes].logsumexp(0) for classes in self.below]
        chosen, odds = best[self.chosen], float(mass.pop(self.chosen))
        rival = max(value for child, value in enumerate(best) if child != self.chosen)
        odds -= float(torch.stack(mass).logsumexp(0))
        return chosen - rival, odds, self.names[best.index(max(best))]

    def masks(self, sets: Sequence[Cells]) -> Tensor:
        """(sets, rows, columns): 1 in the cells of each set."""
        masks = torch.zeros(len(sets), *self.grid)
        for mask, cells in zip(masks, sets, strict=True):
            mask[tuple(zip(*cells, strict=True))] = 1
        return masks

    def picture(self, cells: Cells) -> Image.Image:
        """What the model saw, as colours again."""
        preprocess = self.model.preprocess
        mean, std = (torch.tensor(v)[:, None, None] for v in (preprocess.mean, preprocess.std))
        colours = hidden(*self.pair, self.masks([cells]))[0].cpu() * std + mean
        pixels = (colours.clamp(0, 1) * 255).round().byte().permute(1, 2, 0)
        return Image.fromarray(pixels.contiguous().numpy())
