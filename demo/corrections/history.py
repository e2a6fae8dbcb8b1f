"""What a visitor said so far, what became of it, and the models that learnt from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import gradio as gr
from PIL import Image

from nbdt.correction import Correction
from nbdt.decide.paths import Path
from nbdt.explain import explain
from nbdt.model.fingerprint import model_hash
from nbdt.model.model import NBDT

from ..store.records import ModelVersion, SavedCorrection
from ..ui.part import dump, jpeg_url, part
from ..visitor import Visitor
from .evidence_marks import bad_references
from .form import PICTURE
from .model_versions import ModelVersions, lineage, pending
from .statement import in_words

SHOWN = 50  # corrections in the list, the latest
COMPARED = 6  # photographs before and after


def history_part() -> gr.HTML:
    """The list, drawn by static/history.js."""
    return part("said", "history.js", label="What you said", record="", compared="", progress="")


def history_record(
    visitor: Visitor, versions: ModelVersions, evidence: str | None, *, may_apply: bool
) -> str:
    """The visitor's own corrections and marks, the models on offer, how many corrections wait.

    Args:
        visitor: whose.
        versions: of the page's model.
        evidence: `evidence_hash` of the page's index, if it has one.
        may_apply: whether this visitor may have the model taught.
    """
    store = versions.store
    own = store.corrections(visitor=visitor.id)
    offered, current = versions.offered(), model_hash(visitor.model)
    marks = [] if evidence is None else bad_references(store.marks(evidence, visitor=visitor.id))
    waits = pending(current, store.model_versions())
    record = {
        "corrections": [_correction(saved, visitor) for saved in own[: -SHOWN - 1 : -1]],
        "more": max(0, len(own) - SHOWN),
        "marks": marks,
        "versions": [_version(one, current) for one in reversed(offered)],
        "first": current == model_hash(versions.base),
        "waiting": store.count_pending(waits) if may_apply else 0,
        "may_apply": may_apply,
    }
    return dump(record)


def compared_record(visitor: Visitor, versions: ModelVersions) -> str:
    """The visitor's corrected photographs under the model before their version, and under theirs.

    Those that were kept, and the one that is on the page.
    """
    known = versions.store.model_versions()
    above = lineage(model_hash(visitor.model), known)
    if len(above) < 2:
        return ""
    before = versions.by_hash(above[1])
    rows = []
    for said, image in _photographs(visitor, versions)[:COMPARED]:
        words = [in_words(one, visitor.hierarchy) for one in said]
        photo = jpeg_url(visitor.model.preprocess.frame(image, PICTURE // 2))
        rows.append(
            {
                "photo": photo,
                "said": words,
                "before": _answer(before, image, said),
                "after": _answer(visitor.model, image, said),
            }
        )
    return dump(rows)


def _photographs(
    visitor: Visitor, versions: ModelVersions
) -> list[tuple[list[Correction], Image.Image]]:
    """What was said of each photograph that can be shown, the latest first."""
    said: dict[str, list[Correction]] = {}
    kept: dict[str, int] = {}
    for saved in versions.store.corrections(visitor=visitor.id)[::-1]:
        said.setdefault(saved.correction.image, []).append(saved.correction)
        if saved.photograph is not None:
            kept[saved.correction.image] = saved.photograph
    found = []
    for image, corrections in said.items():
        if visitor.photo is not None and visitor.photo.hash == image:
            found.append((corrections, visitor.photo.image))
        elif image in kept:
            picture = versions.store.photograph(kept[image], visitor=visitor.id)
            found.append((corrections, picture))
    return found


def _answer(model: NBDT, image: Image.Image, said: Sequence[Correction]) -> dict[str, Any]:
    """The path, its probability, and that of each step or class that was asked for."""
    path = explain(model, image)[0].path
    wanted = [found for one in said if (found := _wanted(model, image, path, one))]
    names = [path.decisions[0].node, *(d.children[d.chosen] for d in path)]
    return {"path": names, "probability": path.probability, "wanted": wanted}


def _wanted(model: NBDT, image: Image.Image, path: Path, said: Correction) -> dict[str, Any] | None:
    if said.kind == "label" and said.label in model.hierarchy.classes:
        index = model.hierarchy.classes.index(said.label)
        share = explain(model, image, classes=[index])[0].path.probability
        return {"name": said.label, "at": "", "probability": share}
    for decision in path:
        if (said.kind, decision.node_id) == (
            "step",
            said.node,
        ) and said.child in decision.child_ids:
            place = decision.child_ids.index(said.child)
            share = math.exp(decision.log_probs[place])
            return {"name": decision.children[place], "at": decision.node, "probability": share}
    return None


def _correction(saved: SavedCorrection, visitor: Visitor) -> dict[str, Any]:
    said = saved.correction
    return {
        "id": saved.id,
        "text": in_words(said, visitor.hierarchy),
        "note": said.note,
        "time": said.time,
        "kept": saved.photograph is not None,
        "learned": bool(saved.learned_by),
    }


def _version(version: ModelVersion, current: str) -> dict[str, Any]:
    return {
        "id": version.id,
        "learned": version.learned,
        "accuracy": [version.accuracy.get(when, {}).get("soft") for when in ("before", "after")],
        "chosen": version.hash == current,
    }
