"""An explanation in words: one short paragraph that renders measured facts, and nothing else.

Each "mostly", "close" or "small" has a threshold here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from nbdt.decide.paths import Decision, percent
from nbdt.decide.unknown import FALSE_ALARMS

from .explanation import Counterfactual, Explanation
from .regions import TestedRegion, cell_mask, regrid
from .words import count, effect, likelier, say, with_article

SURE = 0.9  # probability from which the deepest such node leads the paragraph
CLOSE = 2 / 3  # below this share of the two best children's probability, the better is close
MOSTLY = 0.5  # above this share of a map's positive mass, one ninth of the picture is "mostly"
MOSTLY_BAND = 0.7  # the same for one third of it
MOSTLY_HALF = 3 / 4  # the same for one half of it
SPREAD = 0.25  # the mass is all over the picture if no ninth holds more than this share,
EVERYWHERE_LEAST = 0.2  # and no row or column of ninths less than this
AGAINST = 0.6  # a map argues against its decision if more than this share of its mass does
SMALL = 0.1  # share of the picture up to which regions are small
TIE = 1e-5  # relative difference of probabilities up to which they are the same
FACTS = 5  # at most
ALIKE = 0.05  # difference of similarities up to which they are almost the same
UNCERTAIN = 0.5  # the answer's probability below which it is called uncertain

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
    "unknown", "sure", "asked", "tested", "stops", "likelier", "close", "none close", "against", "flip", "no flip", "training",
)  # fmt: skip


@dataclass(frozen=True)
class Fact:
    """One measured fact.

    Attributes:
        kind: one of `KINDS`.
        text: its sentence.
        values: what was measured.
    """

    kind: str
    text: str
    values: Mapping[str, Any]


def words(explanation: Explanation) -> str:
    """Return at most five sentences for a person who knows nothing of networks; see `facts`."""
    return " ".join(fact.text for fact in facts(explanation))


def facts(explanation: Explanation) -> list[Fact]:
    """Return at most `FACTS` facts about an explanation, the most important ones, in reading order.

    They say whether the picture is unlike what the model knows; how sure the model is; what hiding a
    tested region did; where the answer stops; where the path goes against the likeliest child; which decisions were close; which maps argue mostly against their
    own decision; what blurring changes; how near the training images of both sides are.
    """
    by_importance = (
        _unknown, _lead, _stops, _likelier, _tested, _against, _change, _training, _close,
    )  # fmt: skip
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


def blurred(change: Counterfactual, size: str = "") -> str:
    """Return what was blurred in words, such as ``"two regions (4 % of the picture)"``."""
    number = len(change.regions)
    regions = f"{count(number)} {size}region{'s' if number > 1 else ''}"
    return f"{regions} ({percent(change.share)} of the picture)"


# ---- one kind each -----------------------------------------------------------------------------


def _unknown(explanation: Explanation) -> Fact | None:
    answer = explanation.answer
    if not answer or not answer.unknown:
        return None
    text = (
        "This picture is unlike those that the model knows, so it may be nothing that it knows: only "
        f"{percent(FALSE_ALARMS)} of known things look this strange to it."
    )
    return Fact("unknown", text, {"alarms": FALSE_ALARMS})


def _stops(explanation: Explanation) -> Fact | None:
    """Where the answer stops above the class, unless nothing above it says more than "all"."""
    answer = explanation.answer
    if answer is None or answer.is_leaf or answer.accuracy is None or answer.unknown:
        return None
    name = answer.name if answer.depth else None
    where = f"no further than {with_article(name)}" if name else "to nothing"
    text = f"To be right in {percent(answer.accuracy)} of all cases, its answer commits {where}."
    return Fact("stops", text, {"name": name, "accuracy": answer.accuracy})


def _lead(explanation: Explanation) -> Fact:
    path = explanation.path
    if other := _likelier_class(explanation):
        text = (
            f"This is the path to {with_article(path.class_name)}, to which it gives "
            f"{percent(path.probability)}; the most probable class is {say(other[0])}, with "
            f"{percent(other[1])}."
        )
        return Fact("asked", text, {"other": other[0], "other_probability": other[1]})
    chances = np.exp(np.cumsum([d.log_probs[d.chosen] for d in path]))
    index = max([0, *np.flatnonzero(chances >= SURE).tolist()])
    name, chance = _name(explanation, index), chances[index]
    only = "only " if chance < UNCERTAIN else ""
    text = f"It is {only}{percent(chance)} sure this is {with_article(name)}"
    doubtful, is_answer = path.probability < UNCERTAIN, index == len(path) - 1
    if not is_answer:
        link = f"{'and' if only else 'but'} only" if doubtful else "and"
        text += (
            f", {link} {percent(path.probability)} sure that it is {with_article(path.class_name)}"
        )
    text += ", so its answer is uncertain." if doubtful else "."
    values = {"name": name, "probability": float(chance), "is_answer": is_answer}
    return Fact("sure", text, values)


def _tested(explanation: Explanation) -> Fact | None:
    """The tested region that lowers the probability of its step most."""
    falls = {
        index: found.probabilities[0] - found.probabilities[1]
        for index, found in enumerate(explanation.tested)
        if found
    }
    if not falls:
        return None
    index = max(falls, key=falls.__getitem__)
    found = cast(TestedRegion, explanation.tested[index])
    where = place(cell_mask(found.regions))
    parts = "the region" if len(found.regions) == 1 else "the regions"
    shown = (
        f"{parts} {where[0]}"
        if where and where[0] != EVERYWHERE
        else parts.replace("the", "the outlined")
    )
    text = effect(explanation.path, index, found, shown)
    return Fact("tested", text, {"name": _name(explanation, index), "log_odds": found.log_odds})


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
        answer = explanation.answer
        open_ = answer is not None and (answer.unknown or not answer.is_leaf)
        if open_ or path.probability < UNCERTAIN or len(path) < 2:
            return None  # beside "not sure" or "unknown" it would sound sure
        text = f"None of its {count(len(path))} decisions was close."
        return Fact("none close", text, {}) if all(d.is_likeliest for d in path) else None
    rest = [d for d in path if not is_close(d)]
    clear = len(rest) if all(d.probability >= SURE for d in rest) else 0
    others = f"; the other {'decision was' if clear == 1 else f'{count(clear)} were'} clear"
    end = f"{others if clear else ''}."
    if len(close) == 1:
        one, other = map(say, _sides(close[0]))
        text = f"Between {one} and {other} it was close: {_odds(close[0])}{end}"
    else:
        pairs = [(*map(say, _sides(d)), _odds(d)) for d in close[:2]]
        closest = " and ".join(f"{one} against {other} ({odds})" for one, other, odds in pairs)
        most = ": " if len(close) == 2 else ", most of all "
        text = f"{count(len(close)).capitalize()} decisions were close{most}{closest}{end}"
    return Fact("close", text, {"pairs": [_sides(d) for d in close], "clear": clear})


def _likelier(explanation: Explanation) -> Fact | None:
    """The first decision against the likeliest child, and the class that one leads to, if known."""
    against = next((d for d in explanation.path if not d.is_likeliest), None)
    if against is None:
        return None
    text = f"At the step to {say(_sides(against)[0])}, {likelier(against)}."
    # Above this decision greedy descent and the path are the same, unless it was asked for.
    hard = None if _likelier_class(explanation) else explanation.made.get("hard_answer")
    if hard:
        name, chance = say(str(hard["class"])), percent(float(hard["probability"]))
        text += f" That way it would have ended at {name}, with {chance}."
    return Fact("likelier", text, {"names": _sides(against)})


def _against(explanation: Explanation) -> Fact | None:
    shares = [share_against(values) for values in explanation.maps]
    worst = int(np.argmax(shares))
    if shares[worst] <= AGAINST:
        return None
    name, others = _name(explanation, worst), sum(share > AGAINST for share in shares) - 1
    more = f" (so does most of the maps of {count(others)} more)" if others else ""
    text = (
        f"At the step to {say(name)}, {percent(shares[worst])} of its map argues against it{more}."
    )
    return Fact("against", text, {"name": name, "share": shares[worst], "others": others})


def _change(explanation: Explanation) -> Fact | None:
    tried = [c for c in explanation.counterfactuals if c.margin >= 0 and c.searched]
    flips = [c for c in tried if c.flipped]
    if flips:
        best = min(flips, key=lambda c: (c.margin, c.share))
        before, after = _name(explanation, best.decision), str(best.becomes)
        regions = blurred(best, "small " if best.share <= SMALL else "")
        text = f"Blurring {regions} turns {say(before)} into {say(after)}."
        return Fact("flip", text, {"before": before, "after": after})
    # With `overtaken`, a decision that the model did not reach may have changed.
    if not tried or any(c.overtaken for c in tried):
        return None
    share, single = min(c.searched for c in tried), len(tried) == 1
    none = "no decision" if single else f"none of {count(len(tried))} decisions"
    text = (
        f"Blurring up to {percent(share)} of the picture, starting with what supports "
        f"{'it' if single else 'each'} most, changed {none}."
    )
    return Fact("no flip", text, {"share": share, "tried": len(tried)})


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
    chosen, rejected = (
        max(n.similarity for n in side) for side in (evidence.chosen, evidence.rejected)
    )
    one, rival = map(with_article, _sides(decision))
    text = f"The nearest training photograph of {one} is "
    if f"{chosen:.2f}" == f"{rejected:.2f}":
        text += f"just as similar as that of {rival}: {chosen:.2f}."
    elif chosen - rejected > ALIKE:
        text += f"more similar than that of {rival}: {chosen:.2f} against {rejected:.2f}."
    else:
        relation = "even more similar than" if rejected > chosen else "almost as similar as"
        text = (
            f"The nearest training photograph of {rival} is {relation} that of {one}: "
            f"{rejected:.2f} against {chosen:.2f}."
        )
    return Fact("training", text, {"similarities": (chosen, rejected)})


def _name(explanation: Explanation, index: int) -> str:
    return _sides(explanation.path.decisions[index])[0]


def _sides(decision: Decision) -> tuple[str, str]:
    """The names of the chosen child and of the best other one."""
    return decision.children[decision.chosen], decision.children[decision.runner_up]


def _odds(decision: Decision) -> str:
    chances = decision.probability, math.exp(decision.log_probs[decision.runner_up])
    return " to ".join(percent(p).removesuffix(" %") for p in chances)
