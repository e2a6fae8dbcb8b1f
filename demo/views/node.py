"""The card of one node: its decision, its probability and its map for this photograph."""

from __future__ import annotations

from typing import Any

import gradio as gr

from nbdt.decide.paths import percent

from ..ui.component import component, dump, map_record
from ..visitor import NodeView, Visitor
from .step_words import question, sentence
from .strip import competitors, map_label


def node_view() -> gr.HTML:
    """The component; it is hidden until a node is clicked."""
    files = ("heat.js", "bars.js", "node.js")
    return component("node", *files, label="The chosen node", record="", photo="")


def draw_node(visitor: Visitor, *, photo: bool = True) -> gr.HTML:
    """The node that the visitor clicked, if there is one.

    Args:
        visitor: whose.
        photo: send the photograph too, which the browser has once it shows a card.
    """
    chosen = visitor.selected if visitor.selected in visitor.hierarchy.ids else None
    if visitor.photo is None:
        return gr.HTML(record=dump(_unseen(visitor, chosen)) if chosen else "", photo="")
    pictures: dict[str, Any] = {"photo": visitor.photo.url} if photo else {}
    return gr.HTML(record=dump(_record(visitor, chosen)) if chosen else "", **pictures)


def _unseen(visitor: Visitor, node_id: str) -> dict[str, Any]:
    tree = visitor.hierarchy
    index = tree.index(node_id)
    above = tree.names[tree.parents[index]] if index else ""
    return {
        "id": node_id,
        "name": tree.names[index],
        "eyebrow": f"Below {above}" if above else "The first question",
        "sentence": "Show it a photograph to see how this is decided.",
    }


def _record(visitor: Visitor, node_id: str) -> dict[str, Any]:
    node, found = visitor.node(node_id), visitor.explanation()
    name = visitor.hierarchy.names[visitor.hierarchy.index(node.id)]
    return {
        **competitors(node.decision),
        "id": node.id,
        "name": name,
        "eyebrow": _eyebrow(node),
        "question": question(node.decision),
        "sentence": sentence(node.decision, node.map) + " " + _reached(node),
        "map": map_record(node.map),
        "scale": found.scale,
        "label": map_label(node.decision),
    }


def _eyebrow(node: NodeView) -> str:
    if node.depth == 0:
        return "The first question"
    return f"Below {node.decision.node}, {'on' if node.taken else 'off'} the path"


def _reached(node: NodeView) -> str:
    if node.depth == 0:
        return "Every photograph begins here."
    return f"Over all steps from the root it gives {percent(node.probability)} to this."
