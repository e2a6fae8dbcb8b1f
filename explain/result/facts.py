"""An explanation in words: one short paragraph that renders measured facts, and nothing else.

Each "mostly", "close" or "small" has a threshold here.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from nbdt.decide.paths import Decision, percent
from nbdt.decide.unknown import FALSE_ALARMS

from .explanation import Counterfactual, Explanation
from .regions import TestedRegion, cell_mask
from .words import count, effect, likelier, say, with_article

SURE = 0.9  # probability from which the deepest such node leads the paragraph
CLOSE = 2 / 3  # below this share of the two best children's probability, the better is close
SMALL = 0.1  # share of the picture up to which regions are small
TIE = 1e-5  # relative difference of probabilities up to which they are the same
FACTS = 5  # at most
ALIKE = 0.05  # difference of similarities up to which they are almost the same
UNCERTAIN = 0.5  # the answer's probability below which it is called uncertain

_ROWS, _COLUMNS = ("top", "middle", "bottom"), ("left", "centre", "right")

KINDS = (  # in the order of the paragraph
    "unknown", "sure", "asked", "tested", "stops", "likelier", "close", "none close", "flip", "no flip", "training",
)  # fmt: skip


@dataclass(frozen=True)
class Fact:
    """One measured fact."""

    kind: str  # one of `KINDS`
    text: str  # its sentence
    values: Mapping[str, Any]  # what was measured


def words(explanation: Explanation) -> str:
    """Return at most five sentences for a person who knows nothing of networks; see `facts`."""
    return " ".join(fact.text for fact in facts(explanation))


def facts(explanation: Explanation) -> list[Fact]:
    """Return at most `FACTS` facts about an explanation, the most important ones, in reading order.

    They say whether the picture is unlike what the model knows; how sure the model is; what hiding a
    tested region did; where the answer stops; where the path goes against the likeliest child;
    which decisions were close; what blurring changes; how near the training images of both sides are.
    """
    by_importance = (_unknown, _lead, _stops, _likelier, _tested, _change, _training, _close)
    measured = [fact for measure in by_importance if (fact := measure(explanation))]
    return sorted(measured[:FACTS], key=lambda fact: KINDS.index(fact.kind))


def place(values: NDArray[np.float32]) -> str:
    """Return the ninth of the picture with the centre of a map's positive mass: ``"at the top left"``.

    It is empty where nothing is positive.
    """
    positive = np.maximum(values, 0).astype(np.float64)
    if not positive.any():
        return ""
    row, column = (
        int(3 * np.average((np.arange(length) + 0.5) / length, weights=positive.sum(axis=1 - axis)))
        for axis, length in enumerate(values.shape)
    )
    return "in the centre" if row == column == 1 else f"at the {_ROWS[row]} {_COLUMNS[column]}"


def is_close(decision: Decision) -> bool:
    """Return whether the chosen child is ahead, but by less than two to one."""
    return 0 <= decision.margin < math.log(CLOSE / (1 - CLOSE))


def blurred(change: Counterfactual, size: str = "") -> str:
    """Return what was blurred in words, such as ``"two regions (4 % of the picture)"``."""
    number = len(change.regions)
    regions = f"{count(number)} {size}region{'s' if number > 1 else ''}"
    return f"{regions} ({percent(change.share)} of the picture)"


def stop(explanation: Explanation, index: int) -> str:
    """Return how close the decision was at which the answer stops; empty for any other one."""
    answer, decision = explanation.answer, explanation.path.decisions[index]
    if answer is None or answer.is_leaf or answer.depth != index:
        return ""
    (one, other), chance = map(say, _sides(decision)), percent(decision.probability)
    second = percent(math.exp(decision.log_probs[decision.runner_up]))
    text = f"The answer stops here: {one} has {chance}, {other} {second}."
    if answer.needed is None:
        return text
    if answer.needed > 1:
        return f"{text} Even 100 % would not have been enough: the steps below are unsure, too."
    needed = percent(answer.needed)
    needed = "a little more" if needed == chance else needed
    return f"{text} With {needed} for {one} it would have gone on."


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
    parts = "the region" if len(found.regions) == 1 else "the regions"
    shown = f"{parts} {place(cell_mask(found.regions))}"
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
    index = explanation.closest_with_evidence
    if index is None:
        return None
    decision, evidence = explanation.path.decisions[index], explanation.evidence[index]
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
