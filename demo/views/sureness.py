"""How sure the model is of its answer, said plainly; and whether it has seen the like."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

import torch
from torch import Tensor

from nbdt.decide.paths import Path, percent
from nbdt.explain.result.facts import SURE, UNCERTAIN
from nbdt.explain.result.words import with_article
from nbdt.model.model import NBDT

RARE = 0.05  # share of the reference photographs below which a response is called unusually weak

OF_LEAVES = re.compile(r", | \+ [\d,]+$")  # in a name that `hierarchies.labels` made of leaves

APART = 0.05  # a group is worth a word if it is so much surer than the class


@dataclass(frozen=True)
class Verdict:
    """What to say first.

    Attributes:
        level: "sure", "likely" or "unsure".
        eyebrow: the line above the headline.
        headline: the answer; where the class is unsure, the group that is not.
        sure: how sure it is of what.
    """

    level: str
    eyebrow: str
    headline: str
    sure: str


def verdict(path: Path) -> Verdict:
    """The answer as far down the path as it can be given.

    A class with at least `UNCERTAIN` is named; otherwise the deepest group with at least `SURE`;
    otherwise nothing but the guess.
    """
    name, chance = path.class_name.replace("_", " "), path.probability
    if chance >= SURE:
        return Verdict("sure", "Its answer", name, f"It is {percent(chance)} sure.")
    group = sure_group(path)
    if chance >= UNCERTAIN:
        known = ""
        if group is not None and group[1] > chance + APART:
            known = f", and {percent(group[1])} that it is {with_article(group[0])}"
        return Verdict("likely", "Probably", name, f"It is {percent(chance)} sure of that{known}.")
    guess = f"Its best guess is {with_article(name)}: only {percent(chance)}."
    if group is None:
        return Verdict("unsure", "No clear answer", "It is not sure", guess)
    return Verdict(
        "unsure",
        "As far as it can tell",
        with_article(group[0]),
        f"It is sure of that ({percent(group[1])}), but not which one. {guess}",
    )


def sure_group(path: Path) -> tuple[str, float] | None:
    """The deepest group on the way with a probability of at least `SURE`, and that probability.

    Groups that are called after some of their leaves say nothing in a sentence: "it is sure that it
    is a rifle, suit + 599".
    """
    chances = accumulate(d.log_probs[d.chosen] for d in path)
    groups = [
        (decision.children[decision.chosen], math.exp(chance))
        for decision, chance in zip(path, chances, strict=True)
    ][:-1]
    named = [found for found in groups if not OF_LEAVES.search(found[0])]
    return next((found for found in reversed(named) if found[1] >= SURE), None)


def unfamiliar(model: NBDT, logits: Tensor) -> str | None:
    """A warning where the network responds more weakly than to nearly all reference photographs.

    The response is the free energy ``logsumexp z`` (Liu et al., 2020), which tells what a
    classifier was trained on from the rest better than its probabilities do: those must sum to one
    whatever it is shown. None for a model without reference logits, or where nothing is unusual.
    """
    known = _reference_energies(model)
    if known is None:
        return None
    weaker = float((known <= logits.logsumexp(0)).float().mean())
    if weaker >= RARE:
        return None
    return (
        f"This may be nothing it knows: the network responds more weakly than to "
        f"{percent(1 - weaker)} of the {len(known):,} photographs that it was checked on."
    )


@lru_cache(maxsize=8)
def _reference_energies(model: NBDT) -> Tensor | None:
    logits = model.reference.get("logits")
    if logits is None or logits.ndim != 2 or not len(logits):
        return None
    with torch.no_grad():
        return logits.float().logsumexp(dim=1)
