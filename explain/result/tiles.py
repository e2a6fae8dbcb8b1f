"""Tiles: which decisions of a path share one picture, and what was measured for each.

A decision with a tested region has a tile of its own. Consecutive others whose maps agree are one
tile, so the number of tiles says how many different reasons there are.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nbdt.decide.paths import Decision, percent

from .explanation import Explanation, Map
from .facts import is_close
from .regions import TestedRegion
from .words import count, effect, say, with_article

LEVELS = (1 / 3, 2 / 3)  # of the largest value of a map: its contours
AGREE = 0.9  # rank correlation above which two maps show the same
OUTLINE = (
    "In colour, with an outline: a region that was blurred and then, as a check, painted over. Each "
    "time this lowered the step more than it changed any other."
)
LINES = (
    "Red lines: a third and two thirds of the strongest support for the step. Dashed blue lines: a tenth "
    "of that against it. Each picture has its own scale. The network sees {} positions."
)
SIDES = "Side by side, they show where one of the two has more evidence than the other."
PAIR = " Both pictures have the same scale, their own."
BESIDE = " Beside it, lines show where the runner-up has more evidence."


@dataclass(frozen=True)
class Tile:
    """One picture and the decisions that it stands for."""

    decisions: tuple[int, ...]  # their positions on the path, consecutive
    shown: int  # the closest of them, whose region or map is drawn
    title: str  # the chosen children with their probabilities
    # the same for the runner-up, whose picture is drawn beside this one; empty where the decision shown
    # is neither close, nor against the likeliest child, nor where the answer stops, or where no part
    # has more evidence for it
    rival: str
    words: str  # what was measured, in one or two sentences

    @property
    def steps(self) -> str:
        """Which steps of the path these are, counted from 1: ``"Step 4"``, ``"Steps 1 to 3"``."""
        first, last = self.decisions[0] + 1, self.decisions[-1] + 1
        return f"Step {first}" if first == last else f"Steps {first} to {last}"


def tiles(explanation: Explanation) -> list[Tile]:
    """Return the tiles of a path, the one with the closest decision (smallest margin) first."""
    groups: list[list[int]] = []
    for index in range(len(explanation.path)):
        if groups and all(_same(explanation, index, other) for other in groups[-1]):
            groups[-1].append(index)
        else:
            groups.append([index])
    made = [of_decisions(explanation, group) for group in groups]
    return sorted(made, key=lambda tile: explanation.path.decisions[tile.shown].margin)


def of_decisions(explanation: Explanation, group: Sequence[int]) -> Tile:
    """Return one tile for these decisions of a path."""
    path, answer = explanation.path.decisions, explanation.answer
    shown = min(group, key=lambda index: path[index].margin)
    decision = path[shown]
    stops = answer is not None and not answer.is_leaf and answer.depth == shown
    rival, words = "", _words(explanation, group)
    near = stops or is_close(decision) or not decision.is_likeliest
    if explanation.child_maps and near:
        against, other = contrast(explanation, shown), _share(decision, decision.runner_up)
        if against.max() > LEVELS[0] * np.abs(against).max():
            rival = f"not {other}"
            words += BESIDE if region(explanation, shown) else PAIR
        else:
            words += f" No part has clearly more evidence for {other}."
    return Tile(
        decisions=tuple(group),
        shown=shown,
        title=", ".join(_share(path[index], path[index].chosen) for index in group),
        rival=rival,
        words=words,
    )


def legend(explanation: Explanation) -> str:
    """Return what the lines of the tiles mean, those that are drawn."""
    made, (rows, columns) = tiles(explanation), explanation.resolution
    found = [region(explanation, tile.shown) for tile in made]
    contours = any(tile.rival or not one for tile, one in zip(made, found, strict=True))
    parts = {
        OUTLINE: any(found),
        LINES.format(f"{columns} × {rows}"): contours,
        SIDES: any(tile.rival for tile in made),
    }
    return " ".join(text for text, shown in parts.items() if shown)


def contrast(explanation: Explanation, index: int) -> Map:
    """Return, for a decision with maps of its children, the runner-up's minus the chosen child's."""
    decision, maps = explanation.path.decisions[index], explanation.child_maps[index]
    difference: Map = maps[decision.runner_up] - maps[decision.chosen]
    return difference


def region(explanation: Explanation, index: int) -> TestedRegion | None:
    """Return the tested region of a decision; None where none was found, or nothing was tested."""
    return explanation.tested[index] if explanation.tested else None


def agree(one: Map, other: Map) -> bool:
    """Return whether two maps, or what their contours show, have a rank correlation above `AGREE`.

    Below the lowest contour, ranks are mostly noise. Constant maps agree with each other.
    """
    if np.ptp(one) == np.ptp(other) == 0:
        return True
    drawn = [np.maximum(values, LEVELS[0] * np.abs(values).max()) for values in (one, other)]
    return any(_rank_correlation(*pair) > AGREE for pair in ((one, other), drawn))


def _rank_correlation(one: Map, other: Map) -> float:
    ranks = np.array([ranked(one), ranked(other)])
    return float(np.corrcoef(ranks)[0, 1]) if np.ptp(ranks, axis=1).all() else 0.0


def ranked(values: Map) -> NDArray[np.float64]:
    """Return the rank of each value, flat; equal values have their mean rank, as in `scipy.stats`.

    Importing that takes 0.4 s.
    """
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = (counts.cumsum() - (counts - 1) / 2)[places.ravel()]
    return ranks


def _same(explanation: Explanation, one: int, other: int) -> bool:
    """Whether two decisions share a picture."""
    if region(explanation, one) or region(explanation, other):
        return False
    return agree(explanation.maps[one], explanation.maps[other])


def _share(decision: Decision, child: int) -> str:
    return f"{say(decision.children[child])} {percent(math.exp(decision.log_probs[child]))}"


def _words(explanation: Explanation, group: Sequence[int]) -> str:
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
    return effect(explanation.path, group[0], found, this)


def alike_words(explanation: Explanation) -> list[str]:
    """Return captions: of what was compared with the nearest photographs, and of each of them."""
    words: list[str] = []
    for alike in explanation.alike:
        decision = explanation.path.decisions[alike.decision]
        child = decision.chosen if alike.side == "chosen" else decision.runner_up
        name, chosen = with_article(decision.children[child]), decision.children[decision.chosen]
        words = words or [f"What moved the step to {say(chosen)}."]
        values = f"{alike.similarity:.2f}, elsewhere {alike.elsewhere:.2f}"
        words.append(f"Most like it in the nearest photograph of {name}: {values}.")
    return words
