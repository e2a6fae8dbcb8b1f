"""`explain`: the path of each image and the node maps of its decisions."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
from PIL import Image
from torch import Tensor, nn

import nbdt
from nbdt.decide.answer import DEFAULT_ACCURACY, answers, promise
from nbdt.decide.paths import Path
from nbdt.decide.rules import full_precision
from nbdt.errors import NBDTError, nearest
from nbdt.images.image import AMPLE_SIDE, open_image
from nbdt.model.fingerprint import model_hash
from nbdt.model.making import parts_of_attached
from nbdt.model.model import NBDT
from nbdt.model.restrict import removed_probability
from nbdt.network.given import GivenNetwork
from nbdt.network.load import input_channels

from .maps.layers import Layer, map_layer, size_errors
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
GRAD_CAM = "grad-cam"
PHOTO_SIDE = 320  # pixels of the stored photograph: enough to look at, small enough to keep

Photo: TypeAlias = "Image.Image | str | os.PathLike[str]"
PHOTOS = (Image.Image, str, os.PathLike)


def explain(
    model: NBDT | nn.Module,
    images: Tensor | Photo | Sequence[Photo],
    *,
    nodes: Sequence[str] = (),
    classes: Sequence[int] | None = None,
    method: str = GRAD_CAM,
    accuracy: float | None = DEFAULT_ACCURACY,
    evidence: Memory | Evidence | Literal[False] | None = None,
    counterfactuals: bool = False,
    preprocessing: Callable[[Image.Image], Any] | None = None,
) -> list[Explanation]:
    """Return the path to each image's most probable class, with every decision's log-odds map.

    The default maps are Grad-CAM, signed and raw, of all decisions from one forward pass: in closed
    form where the head is linear on an average pool, else by the exact gradient through the modules
    between the layer and the head; see `nbdt.explain.maps.layers`.

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

    Raises:
        ImageError: a path that holds no readable image.
        NBDTError: a model in training mode, an empty or misshapen batch, values that are not
            finite, an unknown node or method, evidence of another model, or, for "grad-cam", a
            network without positions to map.
    """
    if not isinstance(model, NBDT):
        example = images[:1].repeat(2, 1, 1, 1) if isinstance(images, Tensor) else None
        model = NBDT(*parts_of_attached(model, preprocessing, example)).train(model.training)
    model.check_evaluating()
    check_method(method)
    for text in nodes:
        find_node(model.hierarchy, text)
    batch, photos = _prepare(model, images)
    with full_precision(batch):
        if method == GRAD_CAM:
            layer = map_layer(model, batch)
            features = layer.features
            found = explain_layer(
                model, layer, photos, nodes=nodes, classes=classes, accuracy=accuracy
            )
        else:
            features = _features(model, batch)
            found = _by_input(
                model, features, batch, photos,
                nodes=nodes, classes=classes, accuracy=accuracy, method=method,
            )  # fmt: skip
            found = _summed(model, features, found)
        if evidence is None:
            evidence = model.memory or False  # an empty one shows nothing
        if evidence is not False:
            found = _with_evidence(model, features, found, evidence)
        return _with_counterfactuals(model, batch, found) if counterfactuals else found


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
        layer: from `map_layer`.
        photos: the square part of each image that the network saw, or None.
        nodes: as in `explain`.
        classes: as in `explain`.
        accuracy: as in `explain`.
        evidence: as in `explain`, but by default none.

    Raises:
        NBDTError: an unknown node, features that are not finite, evidence of another model.
    """
    logits = head_logits(model, layer.features)
    found = model.head.rules.paths(logits, classes)
    child_maps = path_child_maps(model, layer, found)
    others, below = node_maps(model, layer, nodes), node_child_maps(model, layer, nodes)
    given = answers_made(model, layer.features, None if classes is not None else found, accuracy)
    made = _made(model, layer.method, layer.name)
    explanations = [
        Explanation(
            path=path,
            maps=log_odds_maps(path, child_maps[row]),
            child_maps=child_maps[row],
            node_maps=others[row],
            node_child_maps=below[row],
            photo=photos[row],
            made={**made, **given[row]},
        )
        for row, path in enumerate(found)
    ]
    explanations = _summed(model, layer.features, explanations)
    return (
        explanations
        if evidence is None
        else _with_evidence(model, layer.features, explanations, evidence)
    )


def _by_input(
    model: NBDT,
    features: Tensor,
    batch: Tensor,
    photos: Sequence[Image.Image | None],
    *,
    nodes: Sequence[str],
    classes: Sequence[int] | None,
    accuracy: float | None,
    method: str,
) -> list[Explanation]:
    """One of Captum's methods, on the input image."""
    logits = head_logits(model, features)
    found = model.head.rules.paths(logits, classes)
    others = [find_node(model.hierarchy, text) for text in nodes]
    wanted = [[*chosen_nodes(model, path), *others] for path in found]
    maps = input_maps(model, batch, wanted, method)
    made = _made(model, f"{method} (Captum)", "input")
    given = answers_made(model, features, None if classes is not None else found, accuracy)
    ids = [model.hierarchy.ids[node] for node in others]
    return [
        Explanation(
            path=path,
            maps=own[: len(path)],
            node_maps=dict(zip(ids, own[len(path) :], strict=True)),
            photo=photo,
            made={**made, **answer},
        )
        for path, own, photo, answer in zip(found, maps, photos, given, strict=True)
    ]


def check_method(method: str) -> None:
    """Raise NBDTError, with the choices, for a method that `explain` does not have."""
    known = [GRAD_CAM, *METHODS]
    if method not in known:
        raise NBDTError(
            f"Unknown method {method!r}; there are {', '.join(known)}.{nearest(method, known)}"
        )


# ---- evidence and counterfactuals ----------------------------------------------------------


def _with_evidence(
    model: NBDT, features: Tensor, explanations: Sequence[Explanation], given: Memory | Evidence
) -> list[Explanation]:
    from .evidence.search import evidence_of

    seen, pairs = evidence_of(given).for_model(model), zip(explanations, features, strict=True)
    return [replace(found, evidence=seen.for_path(own, found.path)) for found, own in pairs]


def _summed(model: NBDT, features: Tensor, found: list[Explanation]) -> list[Explanation]:
    if "memory" not in model.provenance or model.memory_place is None:
        return found
    from .evidence.contributions import with_contributions

    return with_contributions(model, features, found)


def _with_counterfactuals(
    model: NBDT, batch: Tensor, explanations: Sequence[Explanation]
) -> list[Explanation]:
    from .counterfactual import counterfactuals

    return [
        replace(found, counterfactuals=counterfactuals(model, image, found.path, found.maps))
        for found, image in zip(explanations, batch, strict=True)
    ]


# ---- input and output ----------------------------------------------------------------------


def _prepare(
    model: NBDT, images: Tensor | Photo | Sequence[Photo]
) -> tuple[Tensor, Sequence[Image.Image | None]]:
    """The batch on the model's device, and the photographs if there are any."""
    weight = model.head.linear.weight  # its device and type are the model's
    if isinstance(images, Tensor):
        return _checked(model, images).to(weight), [None] * len(images)
    if (channels := input_channels(model.architecture)) != 3:
        raise NBDTError(
            f"{model.architecture!r} takes {channels} channels, and a photograph has 3: give a tensor."
        )
    given = [images] if isinstance(images, PHOTOS) else list(images)
    if not given:
        raise NBDTError("There are no images to explain.")
    for item in given:
        if not isinstance(item, PHOTOS):
            raise NBDTError(
                f"Expected photographs (PIL images or paths) or one tensor, got {type(item).__name__} "
                "in a sequence; torch.stack what model.preprocess returns."
            )
    pictures = [
        item if isinstance(item, Image.Image) else open_image(item, max_side=AMPLE_SIDE)
        for item in given
    ]
    batch = torch.stack([model.preprocess(picture) for picture in pictures])
    return batch.to(weight), [model.preprocess.frame(picture, PHOTO_SIDE) for picture in pictures]


def _checked(model: NBDT, images: Tensor) -> Tensor:
    named = isinstance(model.backbone, GivenNetwork) and images.ndim == 4
    channels = images.shape[1] if named else input_channels(model.architecture)
    if images.ndim != 4 or images.shape[1] != channels or not len(images):
        raise NBDTError(
            f"Expected images of shape (batch, {channels}, height, width) with at least one image, got "
            f"{tuple(images.shape)}; torch.stack what model.preprocess returns."
        )
    if not images.is_floating_point():
        raise NBDTError(
            f"Expected images as model.preprocess returns them, of floating point, got {images.dtype}."
        )
    if not bool(torch.isfinite(images).all()):
        raise NBDTError("The images hold values that are not finite; check how they were prepared.")
    return images


def _features(model: NBDT, batch: Tensor) -> Tensor:
    """(batch, features), without a layer to map."""
    with torch.no_grad(), size_errors(model, batch):
        return model.features(batch)


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


def _made(model: NBDT, method: str, layer: str) -> Mapping[str, Any]:
    return {
        "method": method,
        "of": "log-odds of each chosen child among its siblings",
        "layer": layer,
        "architecture": model.architecture,
        "rule": model.rule,
        "model": model_hash(model),
        "hierarchy": model.hierarchy.hash,
        "versions": {"nbdt": nbdt.__version__, "torch": torch.__version__},
    }
