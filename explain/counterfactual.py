"""Find the smallest region whose blurring flips a decision.

A decision is flipped if the path to the most probable class still reaches it and then takes another
child: if the most probable class is below its node, and not below the chosen child.

Two regions that flip it are reduced until every cell is needed, and the smaller counts: the first cells
in the order of the decision's map, and the smallest region that was tried before, as a candidate of the
level or for a decision above. Each claim is a forward pass on the blurred picture. Deletion in a
map's order with a blurred baseline follows RISE (Petsiuk et al., 2018); that the smallest such region
explains, Fong and Vedaldi (2017), who optimise a mask where this searches over cells.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nbdt.decide.paths import Decision, Path
from nbdt.model.model import NBDT

from .maps.candidates import Mask, Values, cell_grid
from .maps.hiding import BLURRED, HiddenPictures
from .maps.tested import Search
from .result.explanation import Counterfactual, Explanation
from .result.regions import connected, regrid

MOST = 0.5  # share of the picture that may be blurred
FEW = 16  # cells of which every number is tried

Margins = Callable[[Mask], Values]  # (sets, rows, columns) to (sets,): negative where flipped


def with_counterfactuals(
    model: NBDT, image: Tensor, found: Explanation, search: Search | None = None
) -> Explanation:
    """Return the explanation with what flips each decision, its passes counted; see `counterfactuals`."""
    flips = counterfactuals(model, image, found.path, found.maps, search)
    passes = found.made.get("passes", 1) + 1 + sum(one.passes for one in flips)
    return replace(found, counterfactuals=flips, made={**found.made, "passes": passes})


def counterfactuals(
    model: NBDT,
    image: Tensor,
    path: Path,
    maps: Sequence[NDArray[np.float32]],
    search: Search | None = None,
) -> tuple[Counterfactual, ...]:
    """Return for each decision of a path the small set of regions whose blurring flips it.

    A decision that is not on the path to the most probable class is left as it is.

    Args:
        image: (3, height, width), from `model.preprocess`.
        maps: one per decision, (rows, columns) of any resolution, positive where the picture
            supports the chosen child.
        search: what a level tried: its candidates do not run again.
    """
    blurs = HiddenPictures(model, image.to(model.device))
    if search is not None:
        blurs.add(search.masks, search.logits)
    nothing = np.zeros(cell_grid(maps[0].shape), dtype=bool)
    whole, steps = blurs.log_probs(nothing[None])[0], [_Step(model, one) for one in path]
    ends = [int(whole.where(step.others, -torch.inf).argmax()) for step in steps]
    logits = blurs.logits(nothing[None])
    rivals = model.head.rules.paths(logits.expand(len(ends), -1), ends)
    return tuple(
        _found(blurs, step, index, regrid(values, *nothing.shape), rival)
        for index, (step, values, rival) in enumerate(zip(steps, maps, rivals, strict=True))
    )


def _found(
    blurs: HiddenPictures, step: "_Step", index: int, values: Values, rival: Path
) -> Counterfactual:
    passes, overtaken, nothing = blurs.passes, False, np.zeros(values.shape, dtype=bool)
    (margin,), (reached,) = step.margins(blurs.log_probs(nothing[None]))
    limit = max(1, int(MOST * values.size)) if reached and margin >= 0 else 0

    def margins(masks: Mask) -> Values:
        nonlocal overtaken
        found, reached = step.margins(blurs.log_probs(masks))
        overtaken |= not reached.all()
        return np.where(reached, found, np.inf)  # where a decision above is flipped first

    starts = []
    if limit:
        places = np.argsort(-values, axis=None, kind="stable").argsort().reshape(values.shape)
        starts = [_smallest(blurs, step), _prefix(places, limit, margins)]
    needed = [_needed(start, margins) for start in starts if start.any()]
    mask = min(needed, key=np.sum, default=nothing)
    flipped, (before, after) = bool(mask.any()), blurs.log_probs(np.array([nothing, mask]))
    cells = [(int(row), int(column)) for row, column in np.argwhere(mask)]
    return Counterfactual(
        decision=index,
        margin=float(margin),
        runner_up_path=rival,
        regions=connected(cells, (mask.shape[0], mask.shape[1])),
        flipped=flipped,
        becomes=step.names[int(step.child[after.argmax()])] if flipped else None,
        log_odds=(step.log_odds(before), step.log_odds(after)),
        share=len(cells) / mask.size,
        searched=limit / mask.size,
        passes=blurs.passes - passes,
        baseline=BLURRED,
        picture=blurs.picture(mask) if flipped else None,
        overtaken=overtaken,
    )


def _smallest(blurs: HiddenPictures, step: "_Step") -> Mask:
    """The smallest set that was tried and flips a decision, of these the one that does most; or none."""
    masks = np.array([*blurs.masks.values()])
    margins, reached = step.margins(blurs.log_probs(masks))
    flips = reached & (margins < 0)
    first = np.lexsort((margins, masks.sum(axis=(1, 2)), ~flips))[0]
    smallest: Mask = masks[first] & flips[first]
    return smallest


def _prefix(places: NDArray[np.int64], limit: int, margins: Margins) -> Mask:
    """The first cells that flip the decision, at most `limit`; none if no number tried does.

    Of few cells every number is tried; of more, doubling numbers and then bisection; one cell less
    than the result does not flip it.

    `places`: (rows, columns) of every cell in the order of the map, from 0.
    """
    if limit <= FEW:
        tried = margins(places < np.arange(1, limit + 1)[:, None, None])
        return places <= next(iter(np.flatnonzero(tried < 0)), -1)
    low, high = 0, 1
    while margins((places < high)[None])[0] >= 0:
        if high == limit:
            return places < 0
        low, high = high, min(2 * high, limit)
    while high - low > 1:
        middle = (low + high) // 2
        flips = margins((places < middle)[None])[0] < 0
        low, high = (low, middle) if flips else (middle, high)
    return places < high


def _needed(mask: Mask, margins: Margins) -> Mask:
    """Backward elimination: what is left flips the decision, and no cell of it can be spared."""
    while (size := int(mask.sum())) > 1:
        cells = np.zeros((size, *mask.shape), dtype=bool)
        cells[(np.arange(size), *np.nonzero(mask))] = True
        left_out = margins(mask & ~cells)
        order = np.argsort(left_out, kind="stable")
        spare = cells[order][left_out[order] < 0][: size - 1]
        if not len(spare):
            break
        # As many as can go together, the most dispensable first; one alone can.
        while len(spare) > 1 and margins((mask & ~spare.any(axis=0))[None])[0] >= 0:
            spare = spare[: len(spare) // 2]
        mask = mask & ~spare.any(axis=0)
    return mask


class _Step:
    """A decision, in terms of the log-probabilities of all classes."""

    def __init__(self, model: NBDT, decision: Decision) -> None:
        tree = model.hierarchy
        self.names, self.child = decision.children, torch.full((tree.num_classes,), -1)
        for number, child in enumerate(decision.child_ids):
            self.child[tree.classes_under(tree.index(child))] = number
        self.chosen = self.child == decision.chosen
        self.others = (self.child >= 0) & ~self.chosen

    def margins(self, rows: Tensor) -> tuple[Values, NDArray[np.bool_]]:
        """Return by how much the chosen child leads, and whether the path comes this way, (sets,)."""
        own, other = (rows[:, side].amax(dim=1) for side in (self.chosen, self.others))
        reached = torch.maximum(own, other) == rows.amax(dim=1)
        return (own - other).double().numpy(), reached.numpy()

    def log_odds(self, row: Tensor) -> float:
        """Return the log-odds of the chosen child."""
        own, other = (row[side].logsumexp(dim=0) for side in (self.chosen, self.others))
        return float(own - other)
