"""Decisions: the strip of tiles, the card of a chosen node, and their sentences."""

import math
from typing import Any

import gradio as gr

from nbdt.decide.paths import Decision, percent
from nbdt.explain import Explanation
from nbdt.explain.result.contributions import NOTE, DecisionContributions, signed
from nbdt.explain.result.explanation import DecisionEvidence
from nbdt.explain.result.facts import is_close, stop
from nbdt.explain.result.tiles import Tile, legend, of_decisions, tiles
from nbdt.explain.result.words import count, remark, say

from ..ui.component import component, dump, photograph_url
from ..visitor import Photograph, Visitor
from .effect import struck_rows
from .tiles import alike_pictures, map_picture, pictures

SHOWN = 3  # training photographs a side
THUMBNAIL = 96  # pixels

HINT = (
    "No training photographs to compare with. To see the nearest ones for both sides of each step: "
    "nbdt memory build {source} --data TRAIN --out M --pictures, then nbdt demo --model {source} "
    "--memory M"
)

FIRST = "The first question"
UNSEEN = "Show it a photograph to see how this is decided."
TESTING = "Testing regions of the photograph, to see what mattered to each step alone …"
IMPOSSIBLE = "Nothing is decided here: with the classes that you allow, at most one thing below it can occur."


def strip_view() -> gr.HTML:
    """Return the component; it is hidden until there is a photograph."""
    files, props = ("bars.js", "contributions.js", "strip.js"), ("record", "effect", "waiting")
    return component("strip", *files, label="The decisions", **dict.fromkeys(props, ""))


def draw_strip(visitor: Visitor, *, source: str = "MODEL") -> gr.HTML:
    """Draw the decisions for the visitor's photograph; `source` is the model on the command line."""
    if visitor.photo is None:
        return gr.HTML(record=dump(None))
    explanation = visitor.explanation()
    made = [_tile(visitor.photo, explanation, tile) for tile in tiles(explanation)]
    record = {
        "of": visitor.photo.hash,
        "words": explanation.words,
        "level": explanation.made.get("level", ""),
        "notice": _notice(explanation),
        "tiles": made,
        "legend": legend(explanation),
        "struck": struck_rows(visitor),
        "note": NOTE if explanation.contributions else explanation.no_contributions,
        "hint": "" if visitor.index is not None else HINT.format(source=source),
    }
    return gr.HTML(record=dump(record))


def _notice(explanation: Explanation) -> str:
    """Return what was tested, for the line that screen readers read out when it arrives."""
    if not explanation.tested:
        return TESTING
    found, steps = sum(map(bool, explanation.tested)), len(explanation.path)
    ending, whose = "" if steps == 1 else "s", "its" if found == 1 else "their"
    return f"Tested: {count(found)} of {count(steps)} step{ending} had a region of {whose} own."


def competitors(decision: Decision) -> dict[str, Any]:
    """Return the chosen child, its rival, and the rest of the probability."""
    rest = len(decision.children) - 2
    sides = {"chosen": decision.chosen, "rival": decision.runner_up}
    record: dict[str, Any] = {
        side: {
            "name": decision.children[one].replace("_", " "),
            "probability": math.exp(decision.log_probs[one]),
        }
        for side, one in sides.items()
    }
    if rest:
        shared = 1 - record["chosen"]["probability"] - record["rival"]["probability"]
        record["others"] = {"count": rest, "probability": max(0.0, shared)}
    return record


def _tile(photo: Photograph, explanation: Explanation, tile: Tile) -> dict[str, Any]:
    """Return a tile with its decisions, the one that is drawn first."""
    order = sorted(tile.decisions, key=lambda number: number != tile.shown)
    return {
        "steps": tile.steps,
        "title": tile.title,
        "words": tile.words,
        "pictures": pictures(photo, explanation, tile),
        "decisions": [_step(explanation, number) for number in order],
    }


def _step(explanation: Explanation, number: int) -> dict[str, Any]:
    decision, end = explanation.path.decisions[number], stop(explanation, number)
    words = [sentence(decision)] if remark(decision) else []
    words += [end] if end else []
    record = {**competitors(decision), "question": question(decision), "words": words}
    if explanation.evidence:
        record["evidence"] = _evidence(explanation.evidence[number])
    if any(one.decision == number for one in explanation.alike):
        record["alike"] = alike_pictures(explanation)
    if explanation.contributions:
        record["sum"] = _sum(explanation.contributions[number])
    return record


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
    return component("node", "bars.js", "node.js", label="The chosen node", record="")


def draw_node(visitor: Visitor) -> gr.HTML:
    """Draw the node that the visitor clicked."""
    chosen = visitor.selected if visitor.selected in visitor.hierarchy.ids else None
    return gr.HTML(record=dump(_record(visitor, chosen)) if chosen else "")


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
    node, explanation = visitor.node(node_id), visitor.explanation()
    reached, eyebrow = "Every photograph begins here.", FIRST
    if node.depth:
        reached = f"Over all steps from the root it gives {percent(node.probability)} to this."
        eyebrow = f"Below {node.decision.node}, {'on' if node.taken else 'off'} the path"
    record = {
        **competitors(node.decision),
        "id": node_id,
        "name": visitor.names[node_id],
        "eyebrow": eyebrow,
        "question": question(node.decision),
        "sentence": f"{sentence(node.decision)} {reached}",
    }
    steps = [step.child_ids[step.chosen] for step in explanation.path]
    child = node.decision.child_ids[node.decision.chosen]
    if child in steps:
        tile = of_decisions(explanation, [steps.index(child)])
        shown = pictures(visitor.photo, explanation, tile)
        return {**record, "pictures": shown, "sentence": f"{record['sentence']} {tile.words}"}
    name = node.decision.children[node.decision.chosen]
    drawn = map_picture(visitor.photo, explanation, node.map, name)
    return {**record, "pictures": [drawn] if node.map.any() else []}


def question(decision: Decision) -> str:
    """Return the choice that was made: the chosen child and its rival, by name."""
    chosen, rival = _names(decision)
    more = len(decision.children) - 2
    names = [chosen, rival, *([f"{more} more"] if more else [])]
    return f"{(', or ' if ' or ' in chosen + rival else ' or ').join(names)}?"


def sentence(decision: Decision) -> str:
    """Return how the decision went."""
    chosen, rival = _names(decision)
    first = decision.probability
    second = math.exp(decision.log_probs[decision.runner_up])
    if text := remark(decision):
        return f"{text[0].upper()}{text[1:]}."
    if is_close(decision):
        return f"A close call: {chosen} {percent(first)}, {rival} {percent(second)}."
    return f"It takes {chosen} rather than {rival}, with {percent(first)}."


def _names(decision: Decision) -> tuple[str, str]:
    return say(decision.children[decision.chosen]), say(decision.children[decision.runner_up])
