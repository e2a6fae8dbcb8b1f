"""The measured facts that an explanation's paragraph reports, the thresholds, and places in a map.

Each "mostly", "close" or "small" has a threshold here. `nbdt.explain.result.words` renders the facts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nbdt.decide.paths import Decision
from nbdt.decide.unknown import FALSE_ALARMS

from .explanation import CLOSED_FORM, Explanation
from .regions import regrid

SURE = 0.9  # probability from which the deepest such node leads the paragraph
UNCERTAIN = 0.5  # the answer's probability below which it is called uncertain
CLOSE = 2 / 3  # below this share of the two best children's probability, the better is close
MOSTLY = 0.5  # above this share of a map's positive mass, one ninth of the picture is "mostly"
MOSTLY_BAND = 0.7  # the same for one third of it
MOSTLY_HALF = 3 / 4  # the same for one half of it
SPREAD = 0.25  # the mass is all over the picture if no ninth holds more than this share,
EVERYWHERE_LEAST = 0.2  # and no row or column of ninths less than this
AGAINST = 0.6  # a map argues against its decision if more than this share of its mass does
PLACED = 0.5  # share of the log-odds that a map must hold to be the reason
SMALL = 0.1  # share of the picture up to which regions are small
TIE = 1e-5  # relative difference of probabilities up to which they are the same
FACTS = 5  # at most

EVERYWHERE = "all over the picture"
_NINTHS = (
    ("at the top left", "at the top centre", "at the top right"),
    ("at the middle left", "in the centre", "at the middle right"),
    ("at the bottom left", "at the bottom centre", "at the bottom right"),
)
_ROWS = ("along the top", "across the middle", "along the bottom")
_COLUMNS = ("along the left side", "down the middle", "along the right side")
_HALVES = (("in the upper half", "in the lower half"), ("in the left half", "in the right half"))

KINDS = (  # in the order of the paragraph
    "unknown", "sure", "asked", "stops", "likelier", "close", "none close", "against", "flip", "no flip", "training",
)  # fmt: skip


@dataclass(frozen=True)
class Fact:
    """One measured fact, of one of `KINDS`, and the values that its sentence needs."""

    kind: str
    values: Mapping[str, Any]


def facts(explanation: Explanation) -> list[Fact]:
    """Return at most `FACTS` facts about an explanation, the most important ones, in reading order.

    They say whether the picture is unlike what the model knows; how sure the model is and which part
    of the picture made it so; where the answer stops; where the path goes
    against the likeliest child; which decisions were close; which maps argue mostly against their
    own decision; what blurring changes; how near the training images of both sides are.
    """
    by_importance = (_unknown, _lead, _stops, _likelier, _against, _change, _training, _close)
    measured = [fact for measure in by_importance if (fact := measure(explanation))]
    return sorted(measured[:FACTS], key=lambda fact: KINDS.index(fact.kind))


def place(values: NDArray[np.float32]) -> tuple[str, float] | None:
    """Return the place of a map's positive mass in words, and the share of it that is there.

    A ninth of the picture that holds more than `MOSTLY`, else a third that holds more than
    `MOSTLY_BAND`, else a half that holds more than `MOSTLY_HALF`, else `EVERYWHERE` if no ninth
    holds more than `SPREAD` and no third less than `EVERYWHERE_LEAST`. None between these, for maps
    of fewer than 3 × 3 positions, and where nothing is positive.
    """
    positive = np.maximum(values, 0).astype(np.float64)
    if min(values.shape) < 3 or not positive.sum() > 0:
        return None
    shares = regrid(positive / positive.sum(), 3, 3)
    row, column = np.unravel_index(int(shares.argmax()), shares.shape)
    if shares[row, column] > MOSTLY:
        return _NINTHS[row][column], float(shares[row, column])
    bands = [*zip(_ROWS, shares.sum(axis=1), strict=True)]
    bands += [*zip(_COLUMNS, shares.sum(axis=0), strict=True)]
    halves = [
        half
        for names, axis in zip(_HALVES, (1, 0), strict=True)
        for half in zip(names, regrid(positive, 2, 2).sum(axis) / positive.sum(), strict=True)
    ]
    for parts, least in ((bands, MOSTLY_BAND), (halves, MOSTLY_HALF)):
        name, share = max(parts, key=lambda part: part[1])
        if share > least:
            return name, float(share)
    even = shares.max() <= SPREAD and min(share for _, share in bands) >= EVERYWHERE_LEAST
    return (EVERYWHERE, 1.0) if even else None


def share_against(values: NDArray[np.float32]) -> float:
    """Return the share of a map's mass that is negative."""
    total = float(np.abs(values.astype(np.float64)).sum())
    return float(np.maximum(-values.astype(np.float64), 0).sum()) / total if total else 0.0


def is_close(decision: Decision) -> bool:
    """Return whether the chosen child is ahead, but by less than two to one."""
    return 0 <= decision.margin < math.log(CLOSE / (1 - CLOSE))


# ---- one kind each -----------------------------------------------------------------------------


def _unknown(explanation: Explanation) -> Fact | None:
    answer = explanation.answer
    return Fact("unknown", {"alarms": FALSE_ALARMS}) if answer and answer.unknown else None


def _stops(explanation: Explanation) -> Fact | None:
    """Where the answer stops above the class, unless nothing above it says more than "all"."""
    answer = explanation.answer
    if answer is None or answer.is_leaf or answer.accuracy is None or answer.unknown:
        return None
    return Fact(
        "stops", {"name": answer.name if answer.depth else None, "accuracy": answer.accuracy}
    )


def _lead(explanation: Explanation) -> Fact:
    path = explanation.path
    if other := _likelier_class(explanation):
        return Fact("asked", {"answer": path.class_name, "probability": path.probability,
                              "other": other[0], "other_probability": other[1]})  # fmt: skip
    chances = np.exp(np.cumsum([d.log_probs[d.chosen] for d in path]))
    index = max([0, *np.flatnonzero(chances >= SURE).tolist()])
    return Fact("sure", {
        "name": _name(explanation, index), "probability": float(chances[index]),
        "where": _reason(explanation, index), "is_answer": index == len(path) - 1,
        "answer": path.class_name, "answer_probability": path.probability,
    })  # fmt: skip


def _reason(explanation: Explanation, index: int) -> str | None:
    """The place in the picture that decided, unless the map argues against, or constants decided."""
    decision, values = explanation.path.decisions[index], explanation.maps[index]
    found = place(values)
    # Only maps in closed form add up to the log-odds.
    closed = str(explanation.made.get("method", "")).startswith(CLOSED_FORM)
    constant = closed and float(values.sum()) < PLACED * decision.log_odds
    return None if found is None or constant or share_against(values) > AGAINST else found[0]


def _likelier_class(explanation: Explanation) -> tuple[str, float] | None:
    """The most probable class, if the path leads to another one.

    The caller asked for that path, or a version that showed greedy descent wrote it.
    """
    path, soft = explanation.path, explanation.made.get("soft_answer")
    if not soft or str(soft["class"]) == path.class_name:
        return None
    chance = float(soft["probability"])
    return (str(soft["class"]), chance) if chance > path.probability * (1 + TIE) else None


def _close(explanation: Explanation) -> Fact | None:
    path = explanation.path
    close = sorted(filter(is_close, path), key=lambda d: d.margin)
    if not close:
        likeliest = len(path) > 1 and all(decision.is_likeliest for decision in path)
        return Fact("none close", {"decisions": len(path)}) if likeliest else None
    rest = [d for d in path if not is_close(d)]
    clear = len(rest) if all(d.probability >= SURE for d in rest) else 0
    pairs = [(*_sides(d), *_probabilities(d)) for d in close]
    return Fact("close", {"pairs": pairs, "clear": clear})


def _likelier(explanation: Explanation) -> Fact | None:
    """The first decision against the likeliest child, and the class that one leads to, if known."""
    against = next((d for d in explanation.path if not d.is_likeliest), None)
    if against is None:
        return None
    # Above this decision greedy descent and the path are the same, unless it was asked for.
    hard = None if _likelier_class(explanation) else explanation.made.get("hard_answer")
    answer = (str(hard["class"]), float(hard["probability"])) if hard else None
    return Fact("likelier", {
        "names": _sides(against), "shares": _probabilities(against), "hard": answer,
    })  # fmt: skip


def _against(explanation: Explanation) -> Fact | None:
    shares = [share_against(values) for values in explanation.maps]
    worst = int(np.argmax(shares))
    if shares[worst] <= AGAINST:
        return None
    others = sum(share > AGAINST for share in shares) - 1
    return Fact(
        "against", {"name": _name(explanation, worst), "share": shares[worst], "others": others}
    )


def _change(explanation: Explanation) -> Fact | None:
    tried = [c for c in explanation.counterfactuals if c.margin >= 0 and c.searched]
    flips = [c for c in tried if c.flipped]
    if flips:
        best = min(flips, key=lambda c: (c.margin, c.share))
        before = _name(explanation, best.decision)
        return Fact("flip", {"regions": len(best.regions), "share": best.share,
                             "before": before, "after": str(best.becomes)})  # fmt: skip
    # With `overtaken`, a decision that the model did not reach may have changed.
    if not tried or any(c.overtaken for c in tried):
        return None
    return Fact("no flip", {"share": min(c.searched for c in tried), "tried": len(tried)})


def _training(explanation: Explanation) -> Fact | None:
    """The nearest training images of both sides, at the closest decision that has both."""
    both = [
        (decision, evidence)
        for decision, evidence in zip(explanation.path, explanation.evidence, strict=False)
        if evidence.chosen and evidence.rejected
    ]
    if not both:
        return None
    decision, evidence = min(both, key=lambda pair: abs(pair[0].margin))
    nearest = tuple(
        max(n.similarity for n in side) for side in (evidence.chosen, evidence.rejected)
    )
    return Fact("training", {"names": _sides(decision), "similarities": nearest})


def _name(explanation: Explanation, index: int) -> str:
    return _sides(explanation.path.decisions[index])[0]


def _sides(decision: Decision) -> tuple[str, str]:
    """The names of the chosen child and of the best other one."""
    return decision.children[decision.chosen], decision.children[decision.runner_up]


def _probabilities(decision: Decision) -> tuple[float, float]:
    return decision.probability, math.exp(decision.log_probs[decision.runner_up])
