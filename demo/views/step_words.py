"""One decision in words."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from nbdt.decide.paths import Decision, percent
from nbdt.explain.result.facts import AGAINST, EVERYWHERE, is_close, place, share_against
from nbdt.explain.result.words import say


def question(decision: Decision) -> str:
    """What was decided: the chosen child and its rival, by name."""
    one, other = decision.children[decision.chosen], decision.children[decision.runner_up]
    more = len(decision.children) - 2
    return f"{say(one)} or {say(other)}{f' or {more} more' if more else ''}?"


def sentence(decision: Decision, values: NDArray[np.float32]) -> str:
    """How the decision went, and which part of the photograph spoke for it."""
    return f"{_outcome(decision)}{_where(values)}."


def _outcome(decision: Decision) -> str:
    one, other = say(decision.children[decision.chosen]), say(decision.children[decision.runner_up])
    first = decision.probability
    second = math.exp(decision.log_probs[decision.runner_up])
    if decision.margin < 0:
        return f"It prefers {other} ({percent(second)}) to {one} ({percent(first)})"
    if is_close(decision):
        return f"A close call: {one} {percent(first)}, {other} {percent(second)}"
    return f"It takes {one} rather than {other}, with {percent(first)}"


def _where(values: NDArray[np.float32]) -> str:
    """From the positive part of the map; or that most of the map speaks against."""
    if share_against(values) > AGAINST:
        return "; most of the picture spoke against it"
    found = place(values)
    if found is None:
        return ""
    spread = found[0] == EVERYWHERE
    return (
        "; parts all over the picture spoke for it"
        if spread
        else f"; mostly the region {found[0]} spoke for it"
    )
