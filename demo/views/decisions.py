"""Decisions: the strip with one card a step, the card of a chosen node, and their sentences."""

from __future__ import annotations

import math
from typing import Any

import gradio as gr
import numpy as np
from numpy.typing import NDArray

from nbdt.decide.paths import Decision, percent
from nbdt.explain import Explanation
from nbdt.explain.result.contributions import NOTE, DecisionContributions, signed
from nbdt.explain.result.explanation import DecisionEvidence
from nbdt.explain.result.facts import AGAINST, EVERYWHERE, is_close, place, share_against
from nbdt.explain.result.stop import stop
from nbdt.explain.result.words import remark, say

from ..ui.component import component, dump, map_record, photograph_url
from ..visitor import Visitor
from .effect import struck_rows

SHOWN = 3  # training photographs a side
THUMBNAIL = 96  # pixels

HINT = (
    "No training photographs to compare with. To see the nearest ones for both sides of each step: "
    "nbdt memory build {source} --data TRAIN --out M --pictures, then nbdt demo --model {source} "
    "--memory M"
)

FIRST = "The first question"
UNSEEN = "Show it a photograph to see how this is decided."
IMPOSSIBLE = "Nothing is decided here: with the classes that you allow, at most one thing below it can occur."


def strip_view() -> gr.HTML:
    """Return the component; it is hidden until there is a photograph."""
    files = ("heat.js", "bars.js", "contributions.js", "strip.js")
    return component("strip", *files, label="The decisions", record="", effect="")


def draw_strip(visitor: Visitor, *, source: str = "MODEL") -> gr.HTML:
    """Draw the decisions for the visitor's photograph; `source` is the model on the command line."""
    if visitor.photo is None:
        return gr.HTML(record=dump(None))
    explanation = visitor.explanation()
    name, flat = explanation.path.class_name, visitor.class_map()
    height, width = explanation.resolution
    record = {
        "photo": visitor.photo.url,
        "words": explanation.words,
        "scale": explanation.scale,
        "resolution": f"{width} × {height}",
        "steps": [_step(explanation, number) for number in range(len(explanation.path))],
        "flat": {
            "name": name,
            "map": map_record(flat),
            "scale": float(np.abs(flat).max()),
            "label": f"The photograph, coloured by plain Grad-CAM of {name}",
        },
        "stop": _stop(explanation),
        "struck": struck_rows(visitor),
        "note": NOTE if explanation.contributions else explanation.no_contributions,
        "hint": "" if visitor.index is not None else HINT.format(source=source),
    }
    return gr.HTML(record=dump(record))


def competitors(decision: Decision) -> dict[str, Any]:
    """Return the chosen child, its rival, and the rest of the probability."""
    rest = len(decision.children) - 2
    sides = {"chosen": decision.chosen, "rival": decision.runner_up}
    record: dict[str, Any] = {
        side: {"name": decision.children[one], "probability": math.exp(decision.log_probs[one])}
        for side, one in sides.items()
    }
    if rest:
        shared = 1 - record["chosen"]["probability"] - record["rival"]["probability"]
        record["others"] = {"count": rest, "probability": max(0.0, shared)}
    return record


def map_label(decision: Decision) -> str:
    """Return what a screen reader reads for a map."""
    one, other = decision.children[decision.chosen], decision.children[decision.runner_up]
    return f"The photograph, coloured by what supported {one} and what supported {other}"


def _step(explanation: Explanation, number: int) -> dict[str, Any]:
    decision, values = explanation.path.decisions[number], explanation.maps[number]
    record = {
        **competitors(decision),
        "question": question(decision),
        "sentence": sentence(decision, values),
        "map": map_record(values),
        "label": map_label(decision),
    }
    if explanation.evidence:
        record["evidence"] = _evidence(explanation.evidence[number])
    if explanation.contributions:
        record["sum"] = _sum(explanation.contributions[number])
    return record


def _stop(explanation: Explanation) -> dict[str, Any] | None:
    """The decision at which the answer stops, with the maps of its two children."""
    found = stop(explanation)
    if found is None:
        return None
    sides = zip(found.names, found.shares, found.maps, strict=True)
    return {
        "question": question(explanation.path.decisions[found.depth]),
        "text": found.text,
        "scale": found.scale,
        "sides": [
            {"name": name, "probability": share, "map": map_record(values)}
            for name, share, values in sides
        ],
    }


def _evidence(evidence: DecisionEvidence) -> dict[str, Any]:
    sides = {"chosen": evidence.chosen, "rejected": evidence.rejected}
    return {
        side: [
            {
                "picture": photograph_url(one, THUMBNAIL), "label": one.label,
                "similarity": f"{one.similarity:.2f}",
            }
            for one in near[:SHOWN]
        ]
        for side, near in sides.items()
    }  # fmt: skip


def _sum(found: DecisionContributions) -> dict[str, Any]:
    photographs = [
        {
            "row": one.row, "label": one.label, "value": signed(one.value),
            "picture": photograph_url(one, THUMBNAIL),
        }
        for one in (*found.supporting, *found.opposing)
    ]  # fmt: skip
    return {"words": found.words, "photographs": photographs}


def node_view() -> gr.HTML:
    """Return the component; it is hidden until a node is clicked."""
    files = ("heat.js", "bars.js", "node.js")
    return component("node", *files, label="The chosen node", record="", photo="")


def draw_node(visitor: Visitor, *, photo: bool = True) -> gr.HTML:
    """Draw the node that the visitor clicked; a browser that shows one needs no second `photo`."""
    chosen = visitor.selected if visitor.selected in visitor.hierarchy.ids else None
    pictures: dict[str, Any] = {"photo": visitor.photo.url if visitor.photo else ""}
    shown = pictures if photo or visitor.photo is None else {}
    return gr.HTML(record=dump(_record(visitor, chosen)) if chosen else "", **shown)


def _unseen(visitor: Visitor, node_id: str, sentence: str) -> dict[str, Any]:
    hierarchy = visitor.hierarchy
    index = hierarchy.index(node_id)
    eyebrow = f"Below {hierarchy.names[hierarchy.parents[index]]}" if index else FIRST
    name = hierarchy.names[index]
    return {"id": node_id, "name": name, "eyebrow": eyebrow, "sentence": sentence}


def _record(visitor: Visitor, node_id: str) -> dict[str, Any]:
    if visitor.photo is None:
        return _unseen(visitor, node_id, UNSEEN)
    if node_id not in visitor.current_model().hierarchy.ids:
        return _unseen(visitor, node_id, IMPOSSIBLE)
    node = visitor.node(node_id)
    reached, eyebrow = "Every photograph begins here.", FIRST
    if node.depth:
        reached = f"Over all steps from the root it gives {percent(node.probability)} to this."
        eyebrow = f"Below {node.decision.node}, {'on' if node.taken else 'off'} the path"
    return {
        **competitors(node.decision),
        "id": node_id,
        "name": visitor.names[node_id],
        "eyebrow": eyebrow,
        "question": question(node.decision),
        "sentence": f"{sentence(node.decision, node.map)} {reached}",
        "map": map_record(node.map),
        "scale": visitor.explanation().scale,
        "label": map_label(node.decision),
    }


def question(decision: Decision) -> str:
    """Return the choice that was made: the chosen child and its rival, by name."""
    chosen, rival = _names(decision)
    more = len(decision.children) - 2
    names = [chosen, rival, *([f"{more} more"] if more else [])]
    return f"{(', or ' if ' or ' in chosen + rival else ' or ').join(names)}?"


def sentence(decision: Decision, values: NDArray[np.float32]) -> str:
    """Return how the decision went, and which part of the photograph supported it."""
    chosen, _ = _names(decision)
    return f"{_outcome(decision)}{_support(values, 'it' if decision.is_likeliest else chosen)}."


def _names(decision: Decision) -> tuple[str, str]:
    return say(decision.children[decision.chosen]), say(decision.children[decision.runner_up])


def _outcome(decision: Decision) -> str:
    chosen, rival = _names(decision)
    first = decision.probability
    second = math.exp(decision.log_probs[decision.runner_up])
    if text := remark(decision):
        return text[0].upper() + text[1:]
    if is_close(decision):
        return f"A close call: {chosen} {percent(first)}, {rival} {percent(second)}"
    return f"It takes {chosen} rather than {rival}, with {percent(first)}"


def _support(values: NDArray[np.float32], name: str) -> str:
    """Return where the map is positive; or that most of it is negative."""
    if share_against(values) > AGAINST:
        return f"; most of the picture opposed {name}"
    region = place(values)
    if region is None:
        return ""
    if region[0] == EVERYWHERE:
        return f"; parts all over the picture supported {name}"
    return f"; mostly the region {region[0]} supported {name}"
