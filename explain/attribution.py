"""`explain`: the path of each image and the node maps of its decisions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import torch
from PIL import Image
from torch import Tensor, nn

from nbdt.decide.answer import DEFAULT_ACCURACY, answers, promise
from nbdt.decide.paths import Path
from nbdt.decide.rules import full_precision
from nbdt.errors import check_known
from nbdt.model.cascade import LARGE, SMALL, Part, members, split
from nbdt.model.fingerprint import model_hash
from nbdt.model.model import NBDT
from nbdt.model.restrict import removed_probability
from nbdt.runtime.accelerate import made_with

from .inputs import Images, model_inside, prepared
from .maps.layers import Layer, any_layer, map_layer, size_errors
from .maps.levels import FAST, at_level, check_level
from .maps.log_odds import METHODS, input_maps
from .maps.node_maps import (
    chosen_nodes,
    find_node,
    head_logits,
    log_odds_maps,
    node_child_maps,
    node_maps,
    path_child_maps,
)
from .result.explanation import Explanation

if TYPE_CHECKING:
    from nbdt.memory.memory import Memory

    from .evidence.search import Evidence

Method: TypeAlias = Literal[
    "grad-cam", "integrated gradients", "input x gradient", "occlusion", "lime"
]
Level: TypeAlias = Literal["fast", "default", "careful"]
GRAD_CAM = "grad-cam"
NOT_FITTED = (
    "The small model answered; it was not fitted on the memory, so nothing is a sum over it."
)


def explain(
    model: NBDT | nn.Module,
    images: Images,
    *,
    nodes: Sequence[str] = (),
    classes: Sequence[int] | None = None,
    method: str = GRAD_CAM,
    accuracy: float | None = DEFAULT_ACCURACY,
    evidence: Memory | Evidence | Literal[False] | None = None,
    counterfactuals: bool = False,
    preprocessing: Callable[[Image.Image], Any] | None = None,
    level: str = "default",
) -> list[Explanation]:
    """Return the path to each image's most probable class, with every decision's log-odds map.

    At level "fast" the maps are Grad-CAM, signed and raw, of all decisions from one forward pass: in
    closed form where the head is linear on an average pool, else by the exact gradient through the
    modules between the layer and the head; see `nbdt.explain.maps.layers`. The other levels sharpen
    them, and hide parts of the picture to find a region that matters to each decision alone.

    Args:
        model: in evaluation mode; or any network that `attach` gave a head.
        images: photographs (PIL images or paths), one or several; or a (batch, 3, height, width)
            tensor of what `model.preprocess` returns.
        nodes: ids or names of further nodes to map for every image.
        classes: class indices, one an image, whose paths replace the model's own.
        method: "grad-cam", or one of Captum's on the input image: "integrated gradients",
            "input x gradient", "occlusion", "lime". Those give log-odds maps only, and
            need no layer with positions.
        accuracy: the share of answers that are to be right: where the answer stops, see
            `nbdt.decide.answer`. None: it is always a class.
        evidence: the memory whose nearest photographs are found on both sides of each decision; by
            default the model's own, if it has one. False: none.
        counterfactuals: whether to find the regions whose blur flips each decision; this runs the
            model often.
        preprocessing: for photographs and a network with a head: torchvision's transforms, a Hugging
            Face image processor, or another function of a PIL image.
        level: "fast", "default" (about 20 forward passes) or "careful" (about 50); see
            `nbdt.explain.maps.levels`. Maps of methods other than "grad-cam" stay as they are.

    Raises:
        ImageError: a path that holds no readable image.
        NBDTError: a model in training mode, an empty or misshapen batch, values that are not
            finite, an unknown node, method or level, evidence of another model, or, for "grad-cam"
            at level "fast" and for `nodes`, a network without positions to map.
    """
    if not isinstance(model, NBDT):
        model = model_inside(model, images, preprocessing)
    model.check_evaluating()
    check_method(method)
    check_level(level)
    for text in nodes:
        find_node(model.hierarchy, text)
    batch, photos = prepared(model, images)
    if evidence is None:
        evidence = model.memory or False  # an empty one shows nothing
    shown = None if evidence is False else evidence
    how: dict[str, Any] = {"method": method, "level": level, "counterfactuals": counterfactuals}
    wanted: dict[str, Any] = {"nodes": nodes, "accuracy": accuracy}

    def one(part: Part) -> list[Explanation]:
        own = [photos[row] for row in part.rows]
        chosen = None if classes is None else [classes[row] for row in part.rows]
        also = {**wanted, "classes": chosen, "evidence": None if part.by == SMALL else shown}
        found, layer = _explained(part.model, part.images, own, how, also)
        compared, which = level != FAST and layer is not None and shown, part.model
        if part.by == SMALL and shown:  # the memory's embeddings are the large network's
            which = members(model)[LARGE]
            layer = any_layer(which, batch[part.rows])
            found = with_evidence(which, layer.features, found, shown)
        if not compared:
            return found
        from .evidence.regions import with_alike

        return with_alike(which, cast(Layer, layer), found)

    with full_precision(batch):
        return by_model(model, batch, one)


def by_model(
    model: NBDT, images: Tensor, one: Callable[[Part], list[Explanation]]
) -> list[Explanation]:
    """Explain each image of a batch with the model that answers it; a cascade has two.

    Args:
        model: in evaluation mode.
        images: (batch, 3, height, width), preprocessed, on the model's device.
        one: explains the images of a part with its model.
    """
    found: dict[int, Explanation] = {}
    for part in split(model, images):
        found |= zip(part.rows, said_by(model, part.by, one(part)), strict=True)
    return [found[row] for row in range(len(images))]


def said_by(model: NBDT, by: str, found: Sequence[Explanation]) -> list[Explanation]:
    """Return explanations that say which model of a cascade answered; `by` is `Part.by`."""
    if not by:
        return [*found]
    own = members(model)[by]
    answered = {"model": by, "network": own.architecture, "pixels": own.preprocess.size}
    facts = {"model": model_hash(model), "answered_by": answered}
    if by == SMALL and "memory" in model.provenance:
        facts["no_contributions"] = NOT_FITTED
    return [replace(one, made={**one.made, **facts}) for one in found]


def _explained(
    model: NBDT,
    batch: Tensor,
    photos: Sequence[Image.Image | None],
    how: Mapping[str, Any],
    wanted: Mapping[str, Any],
) -> tuple[list[Explanation], Layer | None]:
    """Return the explanations by one model, and the layer of Grad-CAM."""
    level, layer = how["level"], None
    if how["method"] == GRAD_CAM:
        layer = (map_layer if level == FAST or wanted["nodes"] else any_layer)(model, batch)
        found = explain_layer(model, layer, photos, **wanted)
    else:
        found = _by_input(model, batch, photos, how["method"], **wanted)
    sharpen, flips = layer is not None, how["counterfactuals"]
    found = at_level(model, batch, found, level, sharpen=sharpen, counterfactuals=flips)
    return found, layer


def explain_layer(
    model: NBDT,
    layer: Layer,
    photos: Sequence[Image.Image | None],
    *,
    nodes: Sequence[str] = (),
    classes: Sequence[int] | None = None,
    accuracy: float | None = DEFAULT_ACCURACY,
    evidence: Memory | Evidence | None = None,
) -> list[Explanation]:
    """Return the Grad-CAM explanations of images whose forward pass is done.

    An edited hierarchy costs only its own decisions.

    Args:
        model: one whose backbone and linear layer computed `layer`; its hierarchy may be another.
        layer: from `any_layer`.
        photos: the square part of each image that the network saw, or None.
        nodes: as in `explain`.
        classes: as in `explain`.
        accuracy: as in `explain`.
        evidence: as in `explain`, but by default none.

    Raises NBDTError: an unknown node, features that are not finite, evidence of another model.
    """
    found = model.head.rules.paths(head_logits(model, layer.features), classes)
    child_maps = path_child_maps(model, layer, found)
    others, below = node_maps(model, layer, nodes), node_child_maps(model, layer, nodes)
    maps = [
        {
            "maps": log_odds_maps(path, own),
            "child_maps": () if layer.is_plain else own,
            "node_maps": others[row],
            "node_child_maps": below[row],
        }
        for row, (path, own) in enumerate(zip(found, child_maps, strict=True))
    ]
    made = {"method": layer.method, "layer": layer.name}
    given = answers_made(model, layer.features, None if classes is not None else found, accuracy)
    return _explanations(
        model, layer.features, found, maps, photos, made=made, given=given, evidence=evidence
    )


def _by_input(
    model: NBDT,
    batch: Tensor,
    photos: Sequence[Image.Image | None],
    method: str,
    *,
    nodes: Sequence[str],
    classes: Sequence[int] | None,
    accuracy: float | None,
    evidence: Memory | Evidence | None,
) -> list[Explanation]:
    """One of Captum's methods, on the input image."""
    with torch.no_grad(), size_errors(model, batch):
        features = model.features(batch)
    found = model.head.rules.paths(head_logits(model, features), classes)
    others = [find_node(model.hierarchy, text) for text in nodes]
    wanted = [[*chosen_nodes(model, path), *others] for path in found]
    ids = [model.hierarchy.ids[node] for node in others]
    values = input_maps(model, batch, wanted, method)
    made = {"method": f"{method} (Captum)", "layer": "input"}
    maps = [
        {"maps": own[: len(path)], "node_maps": dict(zip(ids, own[len(path) :], strict=True))}
        for path, own in zip(found, values, strict=True)
    ]
    given = answers_made(model, features, None if classes is not None else found, accuracy)
    return _explanations(
        model, features, found, maps, photos, made=made, given=given, evidence=evidence
    )


def _explanations(
    model: NBDT,
    features: Tensor,
    paths: Sequence[Path],
    maps: Sequence[Mapping[str, Any]],
    photos: Sequence[Image.Image | None],
    *,
    made: Mapping[str, str],
    given: Sequence[Mapping[str, Any]],
    evidence: Memory | Evidence | None,
) -> list[Explanation]:
    """Return explanations of (batch, features) with their maps, by the names of the fields."""
    how = {
        **made,
        "of": "log-odds of each chosen child among its siblings",
        "architecture": model.architecture,
        "rule": model.rule,
        "model": model_hash(model),
        "hierarchy": model.hierarchy.hash,
        **made_with(model.backbone, model.preprocess.size),
    }
    found = [
        Explanation(path=path, photo=photo, made={**how, **answer}, **own)
        for path, photo, answer, own in zip(paths, photos, given, maps, strict=True)
    ]
    if "memory" in model.provenance and model.memory_place is not None:
        from .evidence.contributions import with_contributions

        found = with_contributions(model, features, found)
    return found if evidence is None else with_evidence(model, features, found, evidence)


def with_evidence(
    model: NBDT, features: Tensor, found: Sequence[Explanation], evidence: Memory | Evidence
) -> list[Explanation]:
    """Return explanations with the nearest photographs of a memory.

    Args:
        model: whose network made the memory's embeddings.
        features: (batch, features) of the same images, by that network.
        found: the explanations.
        evidence: as in `explain`.
    """
    from .evidence.search import evidence_of

    seen, pairs = evidence_of(evidence).for_model(model), zip(found, features, strict=True)
    return [replace(one, evidence=seen.for_path(own, one.path)) for one, own in pairs]


def check_method(method: str) -> None:
    """Raise NBDTError, with the choices, for a method that `explain` does not have."""
    check_known("method", method, [GRAD_CAM, *METHODS])


def answers_made(
    model: NBDT, features: Tensor, paths: Sequence[Path] | None, accuracy: float | None
) -> list[Mapping[str, Any]]:
    """Return for each image of (batch, features) its "soft_answer", "hard_answer" and "answer".

    The first two have a "class" and its "probability": the most probable class, and the one that the
    likeliest child at every step leads to. The third has the fields of `Answer` but its path; it
    and the "promise" of its accuracy are left out without `paths`, which are those to the most
    probable class. For a restricted model there is the "removed_probability" of the classes that
    it lacks.
    """
    rules, names = model.head.rules, model.hierarchy.classes
    logits = head_logits(model, features)
    chances = rules(logits).exp()
    ends = torch.stack([chances.argmax(dim=1), rules.hard(logits)], dim=1)
    kinds = ("soft_answer", "hard_answer")
    rows: list[dict[str, Any]] = [
        {
            kind: {"class": names[index], "probability": value}
            for kind, index, value in zip(kinds, indices, values, strict=True)
        }
        for indices, values in zip(ends.tolist(), chances.gather(1, ends).tolist(), strict=True)
    ]
    removed = removed_probability(model.reference, features, logits)
    for row, chance in zip(rows, [] if removed is None else removed.tolist(), strict=False):
        row["removed_probability"] = chance
    if paths is None:
        return [*rows]
    given = answers(rules, logits, model.calibration, accuracy, paths)
    text = promise(model.calibration, accuracy)
    return [
        {**row, "answer": answer.facts, "promise": text}
        for row, answer in zip(rows, given, strict=True)
    ]
