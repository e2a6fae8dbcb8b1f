"""The answer in large type, how sure the model is, and the path as a list."""

from __future__ import annotations

from typing import Any

import gradio as gr

from nbdt.model import NBDT
from nbdt.paths import Path

from ..part import dump, part
from ..visitor import Visitor
from .sureness import unfamiliar, verdict

LISTED = 200  # class names that are listed; a reader of more uses the tree's search


def answer_view(model: NBDT) -> gr.HTML:
    """The component, before there is a photograph."""
    return part("answer", "answer.js", label="The answer", record=dump(_knowledge(model)))


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
        "unfamiliar": unfamiliar(visitor.model, visitor.photo.logits),
    }
    return gr.HTML(record=dump(record))


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
