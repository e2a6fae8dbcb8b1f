"""The correction form: its data, which static/correction.js draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import gradio as gr

from nbdt.decide.paths import Decision

from ..ui.component import component, dump, jpeg_url, neighbour_url
from ..visitor import Photograph, Visitor

PICTURE = 360  # pixels of the square on which a region is drawn
THUMBNAIL = 112  # pixels of evidence

_pictures: WeakKeyDictionary[Photograph, str] = WeakKeyDictionary()


def correction_component() -> tuple[gr.HTML, Callable[[Visitor], gr.HTML]]:
    """Return the form, not yet placed, and the function that draws it for a visitor."""
    form = component(
        "correct", "correction.js", label="Correct this answer",
        record="", classes="", evidence="", reply="", render=False,
    )  # fmt: skip
    return form, draw_form


def draw_form(visitor: Visitor) -> gr.HTML:
    """Draw the form for the photograph that the visitor sees."""
    return gr.HTML(**form_props(visitor))


def form_props(visitor: Visitor) -> dict[str, Any]:
    """Return the form's properties, without evidence, which is sent on request only."""
    if visitor.photo is None or visitor.photo.layer is None:
        return {"record": "", "evidence": ""}
    path = visitor.explanation().path
    record = {
        "photo": _picture(visitor.photo),
        "key": f"{visitor.photo.hash} {visitor.hierarchy.hash}",
        "answer": path.class_name,
        "steps": [_step(decision) for decision in path],
        "has_evidence": visitor.index is not None,
    }
    classes = dump(list(visitor.hierarchy.classes))
    return {"record": dump(record), "classes": classes, "evidence": ""}


def evidence_record(visitor: Visitor) -> str:
    """Return the training images behind the answer, each once, with a small picture."""
    shown: dict[str, dict[str, Any]] = {}
    if visitor.index is None:
        return dump([])
    explanation = visitor.explanation()
    for decision, evidence in zip(explanation.path, explanation.evidence, strict=True):
        sides = (decision.chosen, evidence.chosen), (decision.runner_up, evidence.rejected)
        for child, neighbours in sides:
            for neighbour in neighbours:
                record = {
                    "reference": neighbour.reference,
                    "label": neighbour.label,
                    "photo": neighbour_url(neighbour, THUMBNAIL),
                    "side": decision.children[child],
                }
                shown.setdefault(neighbour.reference, record)
    return dump(list(shown.values()))


def _step(decision: Decision) -> dict[str, Any]:
    children = zip(decision.child_ids, decision.children, decision.log_probs, strict=True)
    return {
        "id": decision.node_id,
        "name": decision.node,
        "chosen": decision.child_ids[decision.chosen],
        "children": [{"id": i, "name": n, "log_prob": p} for i, n, p in children],
    }


def _picture(photo: Photograph) -> str:
    if photo not in _pictures:
        _pictures[photo] = jpeg_url(photo.frame, PICTURE)
    return _pictures[photo]
