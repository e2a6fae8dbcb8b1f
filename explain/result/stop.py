"""Where an answer stops above a class: at which decision, how close it was, and what supported each side."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nbdt.decide.answer import Answer
from nbdt.decide.paths import Decision, percent

from .explanation import Explanation, Map
from .words import say


@dataclass(frozen=True, eq=False)
class Stop:
    """The decision that an answer leaves open."""

    depth: int  # its position on the path
    text: str  # how close it was, and what would have been needed to go on
    names: tuple[str, str]  # the chosen child and the best other one
    shares: tuple[float, float]  # their probabilities at this decision
    # what supports and opposes each, (height, width); empty for methods without such maps
    maps: tuple[Map, ...]

    @property
    def scale(self) -> float:
        """The largest absolute value of the maps: one colour scale for both."""
        return max((float(np.abs(values).max()) for values in self.maps), default=0.0)


def stop(explanation: Explanation) -> Stop | None:
    """Return where the answer stops; None where it is a class, or another path was asked for."""
    answer = explanation.answer
    if answer is None or answer.is_leaf:
        return None
    decision = explanation.path.decisions[answer.depth]
    sides = decision.chosen, decision.runner_up
    maps = explanation.child_maps[answer.depth] if explanation.child_maps else None
    return Stop(
        depth=answer.depth,
        text=_text(decision, answer),
        names=(decision.children[sides[0]], decision.children[sides[1]]),
        shares=(decision.probability, math.exp(decision.log_probs[sides[1]])),
        maps=() if maps is None else (maps[sides[0]], maps[sides[1]]),
    )


def _text(decision: Decision, answer: Answer) -> str:
    one, other = (say(decision.children[child]) for child in (decision.chosen, decision.runner_up))
    second = math.exp(decision.log_probs[decision.runner_up])
    text = (
        f"The answer stops here: {one} has {percent(decision.probability)}, {other} "
        f"{percent(second)}."
    )
    if answer.needed is None:
        return text
    if answer.needed > 1:
        return f"{text} Even 100 % would not have been enough: the steps below are unsure, too."
    needed = percent(answer.needed)
    needed = "a little more" if needed == percent(decision.probability) else needed
    return f"{text} With {needed} for {one} it would have gone on."
