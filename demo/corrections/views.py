"""What the correction panel shows: the form, and the history with the models trained from it."""

import math
from collections.abc import Sequence
from typing import Any

import gradio as gr
import torch
from PIL import Image

from nbdt.correction import Correction
from nbdt.decide.paths import Decision, Path
from nbdt.explain import explain
from nbdt.model.fingerprint import model_hash
from nbdt.model.model import NBDT
from nbdt.tree.hierarchy import Hierarchy

from ..ui.component import component, dump, jpeg_url, photograph_url
from ..visitor import Visitor
from .model_versions import ModelVersions, lineage, pending
from .own import acts

PICTURE = 180  # pixels of a photograph before and after
THUMBNAIL = 112  # pixels of evidence
SHOWN = 50  # corrections in the list, the latest
COMPARED = 6  # photographs before and after


def correction_component() -> gr.HTML:
    """Return the form, not yet placed."""
    props = dict.fromkeys(("record", "classes", "evidence", "photos", "place", "reply"), "")
    label = "Correct this answer"
    return component("correct", "correction.js", label=label, render=False, **props)


def draw_form(visitor: Visitor) -> gr.HTML:
    """Draw the form for the photograph that the visitor sees."""
    return gr.HTML(**form_props(visitor))


def form_props(visitor: Visitor) -> dict[str, Any]:
    """Return the form's properties, without evidence, which is sent on request only."""
    if visitor.photo is None or visitor.photo.layer is None:
        return {"record": "", "evidence": ""}
    path = visitor.explanation().path
    own = visitor.own.corrected.fitted.key if visitor.own else ""
    record = {
        "photo": visitor.photo.url,
        "key": f"{visitor.photo.hash} {visitor.hierarchy.hash} {own}",
        "acts": acts(visitor.model),
        "answer": path.class_name,
        "steps": [_step(decision, visitor.hierarchy) for decision in path],
        "has_evidence": visitor.index is not None,
    }
    tree = visitor.hierarchy
    classes = dump([*tree.classes, *(tree.names[node] for node in tree.inner_nodes[1:])])
    return {"record": dump(record), "classes": classes, "evidence": "", "photos": "", "place": ""}


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
                    "photo": photograph_url(neighbour, THUMBNAIL),
                    "side": decision.children[child],
                }
                shown.setdefault(neighbour.reference, record)
    return dump(list(shown.values()))


def _step(decision: Decision, hierarchy: Hierarchy) -> dict[str, Any]:
    # Where only some classes are allowed, a child may be further down in the whole hierarchy.
    depth = hierarchy.depths[hierarchy.index(decision.node_id)] + 1
    ids = [
        hierarchy.ids[hierarchy.path_to(hierarchy.index(child))[depth]]
        for child in decision.child_ids
    ]
    children = zip(ids, decision.children, decision.log_probs, strict=True)
    return {
        "id": decision.node_id,
        "name": decision.node,
        "chosen": ids[decision.chosen],
        "children": [{"id": i, "name": n, "log_prob": p} for i, n, p in children],
    }


def history_component() -> gr.HTML:
    """Return the list, which static/history.js draws."""
    return component(
        "history", "history.js", label="Your corrections", record="", compared="", progress=""
    )


def history_record(
    visitor: Visitor, versions: ModelVersions, marks: Sequence[str], *, may_apply: bool
) -> str:
    """Return the visitor's corrections and marks, the models on offer, and the untrained count.

    `marks` are the names of photographs that are bad evidence; who `may_apply` may train the model.
    """
    store = versions.store
    saved = store.corrections(visitor=visitor.id)
    offered, current = versions.offered(), model_hash(visitor.model)
    waits = pending(current, store.model_versions())
    own = visitor.own
    record = {
        "corrections": [
            {
                "id": one.id,
                "text": one.correction.in_words(visitor.names),
                "note": one.correction.note,
                "time": one.correction.time,
                "kept": one.photograph is not None,
                "learned": waits.is_applied(one),
                "acts": own is not None and own.acts_on(one.correction.image),
                "aside": own.reason(one.correction.image) if own else "",
            }
            for one in saved[: -SHOWN - 1 : -1]
        ],
        "more": max(0, len(saved) - SHOWN),
        "marks": list(marks),
        "versions": [
            {
                "id": one.id,
                "learned": one.learned,
                "accuracy": [
                    one.accuracy.get(when, {}).get("soft") for when in ("before", "after")
                ],
                "chosen": one.hash == current,
            }
            for one in reversed(offered)
        ],
        "first": current == model_hash(versions.base),
        "waiting": store.count_pending(waits) if may_apply else 0,
        "may_apply": may_apply,
    }
    return dump(record)


def compared_record(visitor: Visitor, versions: ModelVersions) -> str:
    """Return the visitor's corrected photographs under their version and under its parent.

    Only photographs that were kept, and the one on the page, can be shown.
    """
    ancestors = lineage(model_hash(visitor.model), versions.store.model_versions())
    if len(ancestors) < 2:
        return ""
    parent = versions.of_hash(ancestors[1])
    before = versions.load(parent.id if parent else 0)
    rows = [
        {
            "photo": jpeg_url(visitor.model.preprocess.frame(image, PICTURE)),
            "said": [one.in_words(visitor.names) for one in corrections],
            "before": _answer(before, image, corrections),
            "after": _answer(visitor.model, image, corrections),
        }
        for corrections, image in _photographs(visitor, versions)[:COMPARED]
    ]
    return dump(rows)


def _photographs(
    visitor: Visitor, versions: ModelVersions
) -> list[tuple[list[Correction], Image.Image]]:
    """Return each photograph that can be shown, with its corrections; the latest comes first."""
    by_image: dict[str, list[Correction]] = {}
    copies: dict[str, int] = {}
    for saved in versions.store.corrections(visitor=visitor.id)[::-1]:
        by_image.setdefault(saved.correction.image, []).append(saved.correction)
        if saved.photograph is not None:
            copies[saved.correction.image] = saved.photograph
    shown = []
    for image, corrections in by_image.items():
        if visitor.photo is not None and visitor.photo.hash == image:
            shown.append((corrections, visitor.photo.image))
        elif image in copies:
            picture = versions.store.photograph(copies[image], visitor=visitor.id)
            shown.append((corrections, picture))
    return shown


def _answer(model: NBDT, image: Image.Image, corrections: Sequence[Correction]) -> dict[str, Any]:
    """Return the path, its probability, and that of each step or class that was asked for."""
    path = explain(model, image, level="fast")[0].path
    requested = [_requested(model, image, path, one) for one in corrections]
    names = [path.decisions[0].node, *(d.children[d.chosen] for d in path)]
    return {"path": names, "probability": path.probability, "wanted": [*filter(None, requested)]}


def _requested(
    model: NBDT, image: Image.Image, path: Path, correction: Correction
) -> dict[str, Any] | None:
    tree = model.hierarchy
    if correction.label in tree.ids:
        node = tree.index(correction.label)
        with torch.inference_mode():
            chances = model(model.preprocess(image)[None].to(model.device))[0].exp()
        share = float(chances[tree.classes_under(node)].sum())
        return {"name": tree.names[node], "at": "", "probability": share}
    for decision in path:
        is_meant = correction.kind == "step" and decision.node_id == correction.node
        if is_meant and correction.child in decision.child_ids:
            position = decision.child_ids.index(correction.child)
            share = math.exp(decision.log_probs[position])
            return {"name": decision.children[position], "at": decision.node, "probability": share}
    return None
