"""The answer in large type, the model's confidence in words, and the path as a list."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any

import gradio as gr
import torch
from torch import Tensor

from nbdt.correction import picture_hash
from nbdt.decide.paths import Path, percent
from nbdt.explain.result.facts import SURE, UNCERTAIN
from nbdt.explain.result.words import with_article
from nbdt.model.model import NBDT

from ..photographs import examples, knows, opened
from ..ui.component import component, dump
from ..visitor import Photograph, Visitor

LISTED = 200  # class names that are listed; the tree's search finds all
RARE = 0.05  # a response is unusual if at most this share of the reference responses is weaker
OF_LEAVES = re.compile(r", | \+ [\d,]+$")  # in a name that `hierarchies.labels` made of leaves
APART = 0.05  # a group is mentioned if its probability is so much higher than the class's


def answer_view(model: NBDT) -> gr.HTML:
    """Return the component, as it is before there is a photograph."""
    return component("answer", "answer.js", label="The answer", record=dump(_knowledge(model)))


def draw_answer(visitor: Visitor) -> gr.HTML:
    """Draw the answer for the visitor's photograph, under their hierarchy."""
    if visitor.photo is None:
        return gr.HTML(record=dump(_knowledge(visitor.model)))
    path = visitor.explanation().path
    record = {
        **_knowledge(visitor.model),
        **asdict(verdict(path)),
        "trail": _trail(path),
        "cautions": _cautions(visitor.model, visitor.photo),
    }
    return gr.HTML(record=dump(record))


def _cautions(model: NBDT, photo: Photograph) -> list[str]:
    """Return reasons why this answer may be worth less than it seems."""
    cautions = (
        _unknown_example(model, photo),
        _small(model, photo),
        unfamiliar(model, photo.logits),
    )
    return [text for text in cautions if text]


def _unknown_example(model: NBDT, photo: Photograph) -> str | None:
    name = _example_hashes().get(photo.hash)
    if name is None or knows(model, name):
        return None
    return f"This example shows “{name}”, which is not one of its classes."


@lru_cache(maxsize=1)
def _example_hashes() -> dict[str, str]:
    """Return the names of the examples by the hash of the photograph."""
    return {picture_hash(opened(str(path))): name for name, path in examples().items()}


def _small(model: NBDT, photo: Photograph) -> str | None:
    (width, height), side = photo.image.size, model.preprocess.size
    if min(width, height) >= side:
        return None
    return (
        f"This picture is small: {width:,} × {height:,} pixels, fewer than the {side:,} × {side:,} "
        "that the network looks at. It is enlarged, and detail that it lacks cannot count."
    )


def _trail(path: Path) -> list[dict[str, Any]]:
    steps = [{"name": d.children[d.chosen], "probability": d.probability} for d in path]
    return [{"name": path.decisions[0].node}, *steps]


def _knowledge(model: NBDT) -> dict[str, str]:
    """Describe what the model can answer."""
    classes = model.hierarchy.classes
    rest = f" and {len(classes) - LISTED:,} more" if len(classes) > LISTED else ""
    return {
        "knows": f"It knows {len(classes):,} classes and nothing else; shown anything else, it still answers with one of them.",
        "classes": ", ".join(classes[:LISTED]) + rest + ".",
    }


# ---- confidence in words -----------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """The answer in large type.

    Attributes:
        level: "sure", "likely" or "unsure".
        eyebrow: the line above the headline.
        headline: the class; where that is unsure, a group that is not.
        sure: how sure the model is of it.
    """

    level: str
    eyebrow: str
    headline: str
    sure: str


def verdict(path: Path) -> Verdict:
    """Return the answer as far down the path as the model is sure.

    A class with at least `UNCERTAIN` is named; otherwise the deepest group with at least `SURE`;
    otherwise only a guess.
    """
    name, chance = path.class_name.replace("_", " "), path.probability
    if chance >= SURE:
        return Verdict("sure", "Its answer", name, f"It is {percent(chance)} sure.")
    group = sure_group(path)
    if chance >= UNCERTAIN:
        group_share = ""
        if group is not None and group[1] > chance + APART:
            group_share = f", and {percent(group[1])} that it is {with_article(group[0])}"
        return Verdict(
            "likely", "Probably", name, f"It is {percent(chance)} sure of that{group_share}."
        )
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
    """Return the deepest group on the path with a probability of at least `SURE`, and its probability.

    Groups that are named after some of their leaves are left out: "it is sure that it is a rifle,
    suit + 599" would tell a reader nothing.
    """
    chances = accumulate(d.log_probs[d.chosen] for d in path)
    groups = [
        (decision.children[decision.chosen], math.exp(chance))
        for decision, chance in zip(path, chances, strict=True)
    ][:-1]
    named = [group for group in groups if not OF_LEAVES.search(group[0])]
    return next((group for group in reversed(named) if group[1] >= SURE), None)


def unfamiliar(model: NBDT, logits: Tensor) -> str | None:
    """Warn if the network responds more weakly than to nearly all reference photographs.

    The response is the free energy ``logsumexp z`` (Liu et al., 2020). It separates unfamiliar
    photographs better than the probabilities, which sum to one for any input. Returns None for a
    model without reference logits, and where the response is usual.
    """
    reference = _reference_energies(model)
    if reference is None:
        return None
    weaker = float((reference <= logits.logsumexp(0)).float().mean())
    if weaker >= RARE:
        return None
    return (
        f"This may be nothing it knows: the network responds more weakly than to "
        f"{percent(1 - weaker)} of the {len(reference):,} photographs that it was checked on."
    )


@lru_cache(maxsize=8)
def _reference_energies(model: NBDT) -> Tensor | None:
    logits = model.reference.get("logits")
    if logits is None or logits.ndim != 2 or not len(logits):
        return None
    with torch.no_grad():
        return logits.float().logsumexp(dim=1)
