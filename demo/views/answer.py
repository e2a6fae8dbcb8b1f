"""The answer in large type, how sure the model is, and the path as a list."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import gradio as gr

from nbdt.correction import picture_hash
from nbdt.decide.paths import Path
from nbdt.model.model import NBDT

from ..examples import examples, knows
from ..ui.component import component, dump
from ..uploads import opened
from ..visitor import Photograph, Visitor
from .sureness import unfamiliar, verdict

LISTED = 200  # class names that are listed; a reader of more uses the tree's search


def answer_view(model: NBDT) -> gr.HTML:
    """The component, before there is a photograph."""
    return component("answer", "answer.js", label="The answer", record=dump(_knowledge(model)))


def draw_answer(visitor: Visitor) -> gr.HTML:
    """The answer for the visitor's photograph, under their hierarchy."""
    if visitor.photo is None:
        return gr.HTML(record=dump(_knowledge(visitor.model)))
    found = visitor.explanation()
    said = verdict(found.path)
    record = {
        **_knowledge(visitor.model),
        "level": said.level,
        "eyebrow": said.eyebrow,
        "headline": said.headline,
        "sure": said.sure,
        "trail": _trail(found.path),
        "cautions": _cautions(visitor.model, visitor.photo),
    }
    return gr.HTML(record=dump(record))


def _cautions(model: NBDT, photo: Photograph) -> list[str]:
    """Why this answer may be worth less than it seems."""
    found = [_unknown_example(model, photo), _small(model, photo)]
    return [text for text in (*found, unfamiliar(model, photo.logits)) if text]


def _unknown_example(model: NBDT, photo: Photograph) -> str | None:
    name = _example_hashes().get(photo.hash)
    if name is None or knows(model, name):
        return None
    return f"This example shows “{name}”, which is not one of its classes."


@lru_cache(maxsize=1)
def _example_hashes() -> dict[str, str]:
    """Names of the examples by what a photograph of the page is known by."""
    return {picture_hash(opened(str(one.path))): name for name, one in examples().items()}


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
    """What the model can answer at all."""
    classes = model.hierarchy.classes
    rest = f" and {len(classes) - LISTED:,} more" if len(classes) > LISTED else ""
    return {
        "knows": f"It knows {len(classes):,} classes and nothing else; shown anything else, it still answers with one of them.",
        "classes": ", ".join(classes[:LISTED]) + rest + ".",
    }
