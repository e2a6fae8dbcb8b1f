"""Tiles: which decisions of a path share one picture, and what was measured for each.

A decision with a tested region has a tile of its own. Consecutive others whose maps agree are one
tile, so the number of tiles says how many different reasons there are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nbdt.decide.paths import Decision, percent

from .explanation import Explanation, Map
from .facts import is_close
from .regions import TestedRegion
from .words import count, say

AGREE = 0.9  # rank correlation above which two maps show the same
MOST_ODDS = 1e6


@dataclass(frozen=True)
class Tile:
    """One picture and the decisions that it stands for.

    Attributes:
        decisions: their positions on the path, consecutive.
        shown: the closest of them, whose region or map is drawn.
        title: the chosen children with their probabilities.
        rival: the same for the runner-up, whose picture is drawn beside this one; empty where the
            decision shown is not close.
        words: what was measured, in one or two sentences.
    """

    decisions: tuple[int, ...]
    shown: int
    title: str
    rival: str
    words: str


def tiles(explanation: Explanation) -> list[Tile]:
    """Return the tiles of a path, the one with the closest decision (smallest margin) first."""
    groups: list[list[int]] = []
    for index in range(len(explanation.path)):
        if groups and all(_same(explanation, index, other) for other in groups[-1]):
            groups[-1].append(index)
        else:
            groups.append([index])
    margins = [decision.margin for decision in explanation.path]
    made = [_tile(explanation, group, min(group, key=margins.__getitem__)) for group in groups]
    return sorted(made, key=lambda tile: margins[tile.shown])


def region(explanation: Explanation, index: int) -> TestedRegion | None:
    """Return the tested region of a decision; None where none was found, or nothing was tested."""
    return explanation.tested[index] if explanation.tested else None


def agree(one: Map, other: Map) -> bool:
    """Return whether two maps have a rank correlation above `AGREE`; maps without ranks agree."""
    from scipy.stats import rankdata

    ranks = np.array([rankdata(one), rankdata(other)])
    flat = np.ptp(ranks, axis=1) == 0
    return bool(flat.all() if flat.any() else np.corrcoef(ranks)[0, 1] > AGREE)


def effect(decision: Decision, found: TestedRegion) -> str:
    """Return what blurring did to a child, such as ``"viper falls from 94 to 18 %"``.

    Probabilities are those among its siblings. Where both round to the same, these are odds.
    """
    name = say(decision.children[decision.chosen])
    whole, blurred, _ = found.log_odds
    before, after = (percent(1 / (1 + math.exp(-odds))) for odds in (whole, blurred))
    if before != after:
        return f"{name} falls from {before.removesuffix(' %')} to {after}"
    return f"the odds of {name} fall from {_odds(whole)} to {_odds(blurred)}"


def _odds(log_odds: float) -> str:
    odds = math.exp(min(log_odds, math.log(MOST_ODDS)))
    most = "more than " if odds >= MOST_ODDS else ""
    return f"{most}{odds:,.{0 if odds >= 10 else 2}f} : 1"


def _same(explanation: Explanation, one: int, other: int) -> bool:
    """Whether two decisions share a picture."""
    if region(explanation, one) or region(explanation, other):
        return False
    return agree(explanation.maps[one], explanation.maps[other])


def _tile(explanation: Explanation, group: list[int], shown: int) -> Tile:
    path, answer = explanation.path.decisions, explanation.answer
    decision = path[shown]
    stops = answer is not None and not answer.is_leaf and answer.depth == shown
    has_rival = bool(explanation.child_maps) and (stops or is_close(decision))
    words = _words(explanation, group)
    if has_rival:
        words += " Both pictures share a scale of their own."
    return Tile(
        decisions=tuple(group),
        shown=shown,
        title=", ".join(_share(path[index], path[index].chosen) for index in group),
        rival=f"not {_share(decision, decision.runner_up)}" if has_rival else "",
        words=words,
    )


def _share(decision: Decision, child: int) -> str:
    return f"{say(decision.children[child])} {percent(math.exp(decision.log_probs[child]))}"


def _words(explanation: Explanation, group: list[int]) -> str:
    """What was tested for these decisions."""
    steps = f"these {count(len(group))} steps"
    if not explanation.tested:
        same = f"The maps of {steps} agree. " if len(group) > 1 else ""
        return f"{same}Nothing was hidden to test {'them' if same else 'it'}."
    found = region(explanation, group[0])
    if found is None and len(group) == 1:
        return "No region was found that matters to this step alone."
    if found is None:
        return f"No region was found that matters to one of {steps} alone: they rest on the same parts."
    this = "this" if len(found.regions) == 1 else "these"
    alone = "; no other step moves as much" if len(explanation.path) > 1 else ""
    return f"With {this} hidden, {effect(explanation.path.decisions[group[0]], found)}{alone}."
