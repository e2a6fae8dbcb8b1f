"""An explanation in words: one short paragraph, built from measured facts only.

Every number in it is one of the explanation's own, rounded; every "mostly", "close" or "small" has
a threshold below. It speaks of the decisions that matter and counts the others.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from nbdt.decide.paths import Decision, percent

from .explanation import CLOSED_FORM, Explanation
from .regions import regrid
from .wording import count, say, with_article

SURE = 0.9  # probability from which the deepest such node leads the paragraph
UNCERTAIN = 0.5  # the answer's probability below which it is called uncertain
CLOSE = 2 / 3  # below this share of the two best children's probability, the better is close
MOSTLY = 0.5  # above this share of a map's positive mass, one ninth of the picture is "mostly"
MOSTLY_BAND = 0.7  # the same for one third of it
MOSTLY_HALF = 3 / 4  # the same for one half of it
SPREAD = 0.25  # the mass is all over the picture if no ninth holds more than this share,
EVERYWHERE = 0.2  # and no row or column of ninths less than this
AGAINST = 0.6  # a map speaks against its decision if more than this share of its mass does
PLACED = 0.5  # share of the log-odds that a map must hold to be the reason
SMALL = 0.1  # share of the picture up to which regions are small
TIE = 1e-5  # relative difference of probabilities up to which they are the same
ALIKE = 0.05  # difference of similarities up to which they are almost the same
SENTENCES = 5  # at most

_NINTHS = (
    ("at the top left", "at the top centre", "at the top right"),
    ("at the middle left", "in the centre", "at the middle right"),
    ("at the bottom left", "at the bottom centre", "at the bottom right"),
)
_ROWS = ("along the top", "across the middle", "along the bottom")
_COLUMNS = ("along the left side", "down the middle", "along the right side")
_HALVES = (("in the upper half", "in the lower half"), ("in the left half", "in the right half"))


def words(explanation: Explanation) -> str:
    """At most five sentences for a person who knows nothing of networks.

    What they say: how sure the model is and which part of the picture made it so; which decisions
    were close; whether another class is likelier over all paths (from ``made["soft_answer"]`` or
    the counterfactuals); which maps speak mostly against their own decision; what blurring changes;
    how near the training images of both sides are. Thresholds are this module's constants.
    """
    lead = _asked(explanation) if _was_asked(explanation) else _lead(explanation)
    found = {  # by importance; read in the order of `_ORDER`
        "lead": lead,
        "other answer": _other_answer(explanation),
        "against": _against(explanation),
        "change": _change(explanation),
        "training": _training(explanation),
        "close": _close(explanation),
    }
    kept = [name for name, sentence in found.items() if sentence][:SENTENCES]
    return " ".join(str(found[name]) for name in _ORDER if name in kept)


_ORDER = ("lead", "close", "other answer", "against", "change", "training")


def place(values: NDArray[np.float32]) -> tuple[str, float] | None:
    """Where a map's positive mass lies, in words, and the share of it that lies there.

    A ninth of the picture that holds more than `MOSTLY`, else a third that holds more than
    `MOSTLY_BAND`, else a half that holds more than `MOSTLY_HALF`, else "all over the picture" if no
    ninth holds more than `SPREAD` and no third less than `EVERYWHERE`; None between these, for maps
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
    even = shares.max() <= SPREAD and min(share for _, share in bands) >= EVERYWHERE
    return ("all over the picture", 1.0) if even else None


# ---- sentences ---------------------------------------------------------------------------------


def _lead(explanation: Explanation) -> str:
    path = explanation.path
    chances = np.exp(np.cumsum([d.log_probs[d.chosen] for d in path]))
    index = max([0, *np.flatnonzero(chances >= SURE).tolist()])
    last = index == len(path) - 1
    only = "only " if chances[index] < UNCERTAIN else ""
    text = f"It is {only}{percent(chances[index])} sure this is {with_article(_name(path, index))}"
    text += _because(explanation, index)
    doubtful = path.probability < UNCERTAIN
    if not last:
        link = "but only" if doubtful else "and"
        answer = with_article(path.class_name)
        text += f", {link} {percent(path.probability)} sure that it is {answer}"
    return text + (", so its answer is uncertain." if doubtful else ".")


def _because(explanation: Explanation, index: int) -> str:
    values = explanation.maps[index]
    found = place(values)
    if found is None or _share_against(values) > AGAINST or _is_constant(explanation, index):
        return ""
    name, share = found
    if share == 1 and name == "all over the picture":
        return ", because of parts all over the picture"
    return f", mostly because of the region {name}"


def _was_asked(explanation: Explanation) -> bool:
    """Whether the path was asked for and is not the one that the model would take."""
    return any(decision.margin < 0 for decision in explanation.path)


def _asked(explanation: Explanation) -> str:
    path = explanation.path
    left = next(decision for decision in path if decision.margin < 0)  # it never gets further
    return (
        f"This is the way to {with_article(path.class_name)}, to which it gives "
        f"{percent(path.probability)}; left to itself it would have taken "
        f"{say(left.children[left.runner_up])} rather than {say(left.children[left.chosen])}, "
        f"{_odds(left, reverse=True)}."
    )


def _close(explanation: Explanation) -> str | None:
    path = explanation.path
    close = sorted((d for d in path if _is_close(d)), key=lambda d: d.margin)
    if not close:
        several = len(path) > 1 and not _was_asked(explanation)
        return f"None of its {count(len(path))} decisions was close." if several else None
    rest = [d for d in path if d not in close]
    clear = f"; {_clear(len(rest))}" if rest and all(d.probability >= SURE for d in rest) else ""
    if len(close) == 1:
        one, other = _sides(close[0])
        return f"Between {one} and {other} it was close: {_odds(close[0])}{clear}."
    pairs = " and ".join(
        f"{one} against {other} ({_odds(d)})" for d in close[:2] for one, other in [_sides(d)]
    )
    if len(close) == 2:
        return f"Two decisions were close: {pairs}{clear}."
    return f"{count(len(close)).capitalize()} decisions were close, most of all {pairs}{clear}."


def _clear(number: int) -> str:
    return (
        "the other decision was clear" if number == 1 else f"the other {count(number)} were clear"
    )


def _other_answer(explanation: Explanation) -> str | None:
    """Whether the answer of the greedy descent is not the likeliest class."""
    path = explanation.path
    if _was_asked(explanation):
        return None
    soft = explanation.made.get("soft_answer")
    if soft:
        name, chance = str(soft["class"]), float(soft["probability"])
        if name == path.class_name or chance <= path.probability * (1 + TIE):
            return None
    else:
        rivals = [c.runner_up_path for c in explanation.counterfactuals]
        best = max(rivals, key=lambda rival: rival.log_prob, default=path)
        if best.log_prob <= path.log_prob:
            return None
        name, chance = best.class_name, best.probability
    return (
        f"Step by step it arrives at {say(path.class_name)}, yet {say(name)} is the likelier class "
        f"over all paths: {percent(chance)} against {percent(path.probability)}."
    )


def _against(explanation: Explanation) -> str | None:
    path = explanation.path
    shares = [_share_against(values) for values in explanation.maps]
    wrong = [index for index, share in enumerate(shares) if share > AGAINST]
    if not wrong:
        return None
    worst = max(wrong, key=shares.__getitem__)
    text = f"At the step to {say(_name(path, worst))}, {percent(shares[worst])} of its map speaks"
    others = len(wrong) - 1
    more = f" (so do most of the maps of {count(others)} more)" if others else ""
    return f"{text} against it{more}."


def _change(explanation: Explanation) -> str | None:
    tried = [c for c in explanation.counterfactuals if c.margin >= 0 and c.searched]
    flips = [c for c in tried if c.flipped]
    if not tried:
        return None
    if not flips and any(c.overtaken for c in tried):
        return None  # not "none": a decision that the model did not come to may have changed
    if not flips:
        return (
            f"Blurring up to {percent(min(c.searched for c in tried))} of the picture, what spoke "
            f"most for {'it' if len(tried) == 1 else 'each'} first, changed "
            f"{'no decision' if len(tried) == 1 else f'none of {count(len(tried))} decisions'}."
        )
    best = min(flips, key=lambda c: (c.margin, c.share))
    number = len(best.regions)
    size = "small " if best.share <= SMALL else ""
    before = _name(explanation.path, best.decision)
    return (
        f"Blurring {count(number)} {size}region{'s' if number > 1 else ''} "
        f"({percent(best.share)} of the picture) turns {say(before)} into {say(str(best.becomes))}."
    )


def _training(explanation: Explanation) -> str | None:
    """The nearest training images of both sides, at the closest decision that has both."""
    both = [
        (decision, found)
        for decision, found in zip(explanation.path, explanation.evidence, strict=False)
        if found.chosen and found.rejected
    ]
    if not both:
        return None
    decision, found = min(both, key=lambda pair: abs(pair[0].margin))
    own, other = (max(n.similarity for n in side) for side in (found.chosen, found.rejected))
    one = with_article(decision.children[decision.chosen])
    rival = with_article(decision.children[decision.runner_up])
    if f"{own:.2f}" == f"{other:.2f}":
        return (
            f"The nearest training photograph of {one} is just as similar as that of {rival}: "
            f"{own:.2f}."
        )
    if other > own:
        return (
            f"The nearest training photograph of {rival} is even more similar than that of {one}: "
            f"{other:.2f} against {own:.2f}."
        )
    if own - other <= ALIKE:
        return (
            f"The nearest training photograph of {rival} is almost as similar as that of {one}: "
            f"{other:.2f} against {own:.2f}."
        )
    return (
        f"The nearest training photograph of {one} is more similar than that of {rival}: "
        f"{own:.2f} against {other:.2f}."
    )


# ---- facts -------------------------------------------------------------------------------------


def _name(path: Iterable[Decision], index: int) -> str:
    decision = list(path)[index]
    return decision.children[decision.chosen]


def _sides(decision: Decision) -> tuple[str, str]:
    return say(decision.children[decision.chosen]), say(decision.children[decision.runner_up])


def _is_close(decision: Decision) -> bool:
    """The chosen child is ahead, but by less than two to one."""
    return 0 <= decision.margin < math.log(CLOSE / (1 - CLOSE))


def _odds(decision: Decision, *, reverse: bool = False) -> str:
    pair = [decision.probability, math.exp(decision.log_probs[decision.runner_up])]
    one, other = (percent(p).removesuffix(" %") for p in (reversed(pair) if reverse else pair))
    return f"{one} to {other}"


def _is_constant(explanation: Explanation, index: int) -> bool:
    """Whether less than `PLACED` of a decision's log-odds comes from anywhere in the picture.

    Asked of maps in closed form alone: others need not add up to the log-odds.
    """
    decision, total = list(explanation.path)[index], float(explanation.maps[index].sum())
    closed = str(explanation.made.get("method", "")).startswith(CLOSED_FORM)
    return closed and total < PLACED * decision.log_odds


def _share_against(values: NDArray[np.float32]) -> float:
    """The part of a map's mass that is negative."""
    total = float(np.abs(values.astype(np.float64)).sum())
    return float(np.maximum(-values.astype(np.float64), 0).sum()) / total if total else 0.0
