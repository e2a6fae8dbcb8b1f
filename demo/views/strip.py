"""The decision strip: each step with its map, the two that competed, evidence and a sentence."""

from __future__ import annotations

import math
from typing import Any

import gradio as gr
import numpy as np

from nbdt.decide.paths import Decision
from nbdt.explain import Explanation
from nbdt.explain.result.explanation import DecisionEvidence, Neighbour
from nbdt.images.image import ImageError

from ..ui.component import component, dump, jpeg_url, map_record
from ..visitor import Map, Visitor
from .step_words import question, sentence

SHOWN = 3  # training photographs a side
THUMBNAIL = 96  # pixels

HINT = (
    "No training photographs to compare with. To see the nearest ones for both sides of each step: "
    "nbdt evidence build {source} --data TRAIN --thumbnails, then nbdt demo --model {source} "
    "--evidence evidence"
)


def strip_view() -> gr.HTML:
    """The component; it is hidden until there is a photograph."""
    return component("strip", "heat.js", "bars.js", "strip.js", label="The decisions", record="")


def draw_strip(visitor: Visitor, *, source: str = "MODEL") -> gr.HTML:
    """The decisions for the visitor's photograph, under their hierarchy.

    Args:
        visitor: whose.
        source: what the model is called on the command line, to say how evidence is built.
    """
    if visitor.photo is None:
        return gr.HTML(record=dump(None))
    found = visitor.explanation()
    height, width = found.resolution
    record = {
        "photo": visitor.photo.url,
        "words": found.words,
        "scale": found.scale,
        "resolution": f"{width} × {height}",
        "steps": [_step(found, number) for number in range(len(found.path))],
        "flat": _flat(found, visitor.class_map()),
        "hint": "" if visitor.index is not None else HINT.format(source=source),
    }
    return gr.HTML(record=dump(record))


def competitors(decision: Decision) -> dict[str, Any]:
    """The chosen child, its rival, and what is left for the others."""
    rest = len(decision.children) - 2
    record = {
        "chosen": _child(decision, decision.chosen),
        "rival": _child(decision, decision.runner_up),
    }
    if rest:
        shared = 1 - record["chosen"]["probability"] - record["rival"]["probability"]
        record["others"] = {"count": rest, "probability": max(0.0, shared)}
    return record


def map_label(decision: Decision) -> str:
    """What a screen reader says of a map."""
    one, other = decision.children[decision.chosen], decision.children[decision.runner_up]
    return f"The photograph, coloured by what spoke for {one} and against {other}"


def _step(found: Explanation, number: int) -> dict[str, Any]:
    decision, values = found.path.decisions[number], found.maps[number]
    record = {
        **competitors(decision),
        "question": question(decision),
        "sentence": sentence(decision, values),
        "map": map_record(values),
        "label": map_label(decision),
    }
    if found.evidence:
        record["evidence"] = _evidence(found.evidence[number])
    return record


def _child(decision: Decision, position: int) -> dict[str, Any]:
    return {
        "name": decision.children[position],
        "probability": math.exp(decision.log_probs[position]),
    }


def _flat(found: Explanation, values: Map) -> dict[str, Any]:
    name = found.path.class_name
    return {
        "name": name,
        "map": map_record(values),
        "scale": float(np.abs(values).max()),
        "label": f"The photograph, coloured by plain Grad-CAM of {name}",
    }


def _evidence(found: DecisionEvidence) -> dict[str, Any]:
    sides = {"chosen": found.chosen, "rejected": found.rejected}
    return {side: [_thumbnail(n) for n in near[:SHOWN]] for side, near in sides.items()}


def _thumbnail(neighbour: Neighbour) -> dict[str, Any]:
    try:
        url = jpeg_url(neighbour.open(), THUMBNAIL)
    except ImageError:  # the data is elsewhere now; what it was still counts
        url = ""
    return {
        "picture": url,
        "label": neighbour.label,
        "similarity": f"{neighbour.similarity:.2f}",
    }
