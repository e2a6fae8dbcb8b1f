"""`explain`: the path of each image and the node maps of its decisions."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

import nbdt
from nbdt.errors import NBDTError, nearest
from nbdt.fingerprint import model_hash
from nbdt.hierarchy import Hierarchy
from nbdt.images import AMPLE_SIDE, open_image
from nbdt.maps import log_odds_coefficients, score_coefficients
from nbdt.model import NBDT
from nbdt.paths import Decision, Path

from .explanation import Explanation
from .layers import Layer, last_layer
from .methods import METHODS, input_maps

if TYPE_CHECKING:
    from .evidence.index import EvidenceIndex

GRAD_CAM = "grad-cam"
PHOTO_SIDE = 320  # pixels of the stored photograph: enough to look at, small enough to keep

Photo: TypeAlias = "Image.Image | str | os.PathLike[str]"
Map: TypeAlias = NDArray[np.float32]


def explain(
    model: NBDT,
    images: Tensor | Photo | Sequence[Photo],
    *,
    nodes: Sequence[str] = (),
    classes: Sequence[int] | None = None,
    method: str = GRAD_CAM,
    evidence: EvidenceIndex | None = None,
    counterfactuals: bool = False,
) -> list[Explanation]:
    """The path of each image, with the log-odds map of every decision on it.

    The default maps are Grad-CAM, signed and raw, of all decisions from one forward pass: in closed
    form where the head is linear on an average pool, else by the exact gradient through whatever
    stands between the layer and the head; see `nbdt.explain.layers`.

    Args:
        model: in evaluation mode.
        images: photographs (PIL images or paths), one or several; or a (batch, 3, height, width)
            tensor of what `model.preprocess` returns.
        nodes: ids or names of further nodes, whose log-odds maps are wanted for every image.
        classes: class indices whose paths are wanted instead of the model's own.
        method: "grad-cam", or one of Captum's on the input image: "integrated gradients",
            "input x gradient", "occlusion", "lime". Those give the path's log-odds maps only.
        evidence: an index of training images, to find the nearest on both sides of each decision.
        counterfactuals: look for the regions whose blur flips each decision; runs the model often.

    Raises:
        ImageError: a path that holds no readable image.
        NBDTError: a model in training mode, an empty or misshapen batch, values that are not
            finite, an unknown node or method, evidence of another model, or a network without
            positions to map.
    """
    if model.training:
        raise NBDTError("The model is in training mode; call model.eval() before explaining.")
    check_method(method)
    for text in nodes:
        find_node(model.hierarchy, text)
    batch, photos = _prepare(model, images)
    layer = last_layer(model, batch)
    if method == GRAD_CAM:
        found = explain_layer(model, layer, photos, nodes=nodes, classes=classes)
    else:
        found = _by_input(model, layer, batch, photos, classes=classes, method=method)
    if evidence is not None:
        found = _with_evidence(model, layer, found, evidence)
    return _with_counterfactuals(model, batch, found) if counterfactuals else found


def explain_layer(
    model: NBDT,
    layer: Layer,
    photos: Sequence[Image.Image | None],
    *,
    nodes: Sequence[str] = (),
    classes: Sequence[int] | None = None,
    evidence: EvidenceIndex | None = None,
) -> list[Explanation]:
    """What `explain` says by Grad-CAM of images that the network has seen already.

    No forward pass: an edited hierarchy costs only its own decisions.

    Args:
        model: one whose backbone and linear layer computed `layer`; its hierarchy may be another.
        layer: from `last_layer`.
        photos: the square part that the network saw of each image, or None.
        nodes: as in `explain`.
        classes: as in `explain`.
        evidence: as in `explain`.

    Raises:
        NBDTError: an unknown node, features that are not finite, evidence of another model.
    """
    logits = flat_logits(model, layer)
    found = model.head.rules.paths(logits, classes)
    child_maps = _child_maps(model, layer, logits, found)
    others, answers = node_maps(model, layer, nodes), soft_answers(model, logits)
    made = _made(model, layer.way, layer.name)
    explanations = [
        Explanation(
            path=path,
            maps=_log_odds_maps(path, child_maps[row]),
            child_maps=child_maps[row],
            node_maps=others[row],
            photo=photos[row],
            made={**made, "soft_answer": answers[row]},
        )
        for row, path in enumerate(found)
    ]
    return (
        explanations if evidence is None else _with_evidence(model, layer, explanations, evidence)
    )


def node_maps(model: NBDT, layer: Layer, nodes: Sequence[str]) -> list[Mapping[str, Map]]:
    """For every image of `layer` the log-odds maps of nodes, named as in `explain`, by id.

    Raises:
        NBDTError: an unknown or ambiguous node, or the root.
    """
    wanted = [find_node(model.hierarchy, text) for text in nodes]
    logits = flat_logits(model, layer)
    if not wanted:
        return [{}] * len(logits)
    queries = torch.tensor(wanted).expand(len(logits), -1)
    maps = _maps(model, layer, logits, queries, log_odds_coefficients)
    ids = [model.hierarchy.ids[node] for node in wanted]
    return [dict(zip(ids, values, strict=True)) for values in maps]


def path_maps(model: NBDT, layer: Layer, paths: Sequence[Path]) -> list[tuple[Map, ...]]:
    """The maps of `Explanation.maps` and no others: one a decision of each image's path.

    Half the work or less of `explain_layer`, which has those of all children besides.
    """
    wanted = [chosen_nodes(model, path) for path in paths]
    longest = max(map(len, wanted))
    queries = torch.tensor([nodes + nodes[-1:] * (longest - len(nodes)) for nodes in wanted])
    maps = _maps(model, layer, flat_logits(model, layer), queries, log_odds_coefficients)
    return [tuple(own[: len(nodes)]) for own, nodes in zip(maps, wanted, strict=True)]


def class_maps(model: NBDT, layer: Layer, classes: Sequence[int]) -> Map:
    """Plain Grad-CAM of flat class logits, one class an image: (batch, height, width).

    Signed and raw, as all maps here; it knows of no hierarchy.
    """
    vectors = model.head.linear.weight.detach()[list(classes)]
    maps: Map = layer.maps(vectors[:, None]).cpu().numpy()[:, 0]
    return maps


def flat_logits(model: NBDT, layer: Layer) -> Tensor:
    """(batch, classes), float32, of the images that `layer` is of."""
    with torch.no_grad():
        logits: Tensor = model.head.linear(layer.features).float()
    return logits


def _by_input(
    model: NBDT,
    layer: Layer,
    batch: Tensor,
    photos: Sequence[Image.Image | None],
    *,
    classes: Sequence[int] | None,
    method: str,
) -> list[Explanation]:
    """One of Captum's methods, on the input image."""
    logits = flat_logits(model, layer)
    found = model.head.rules.paths(logits, classes)
    maps = input_maps(model, batch, [chosen_nodes(model, path) for path in found], method)
    made, answers = _made(model, f"{method} (Captum)", "input"), soft_answers(model, logits)
    rows = zip(found, maps, photos, answers, strict=True)
    return [
        Explanation(path, own, photo=photo, made={**made, "soft_answer": answer})
        for path, own, photo, answer in rows
    ]


def check_method(method: str) -> None:
    """Raises NBDTError, with the choices, unless `explain` knows the method."""
    known = [GRAD_CAM, *METHODS]
    if method not in known:
        raise NBDTError(
            f"Unknown method {method!r}; there are {', '.join(known)}.{nearest(method, known)}"
        )


def find_node(hierarchy: Hierarchy, text: str) -> int:
    """The index of the node with that id or name.

    Raises:
        NBDTError: no such node (the nearest is suggested), several of that name, or the root, which
            no decision is about.
    """
    if text in hierarchy.ids:
        index = hierarchy.ids.index(text)
    else:
        found = [i for i, name in enumerate(hierarchy.names) if name == text]
        if len(found) > 1:
            ids = ", ".join(hierarchy.ids[i] for i in found)
            raise NBDTError(f"{len(found)} nodes are named {text!r}; say which by its id: {ids}.")
        if not found:
            raise NBDTError(
                f"The hierarchy has no node {text!r}.{nearest(text, list(hierarchy.names))}"
            )
        index = found[0]
    if index == 0:
        raise NBDTError(f"{text!r} is the root: no decision leads there. Name a node below it.")
    return index


def chosen_nodes(model: NBDT, path: Path) -> list[int]:
    """Node indices of the children that the path takes, from the top."""
    tree = model.hierarchy
    return list(tree.path_to(tree.leaf_nodes[path.class_index])[1:])


# ---- maps ----------------------------------------------------------------------------------


def _child_maps(
    model: NBDT, layer: Layer, logits: Tensor, found: Sequence[Path]
) -> list[tuple[Map, ...]]:
    """For every image and decision the maps of all children's scores, (children, height, width)."""
    tree = model.hierarchy
    families = [[tree.children[tree.parents[n]] for n in chosen_nodes(model, p)] for p in found]
    rows = [[node for family in families_ for node in family] for families_ in families]
    longest = max(map(len, rows))
    padded = torch.tensor([row + row[-1:] * (longest - len(row)) for row in rows])
    maps = _maps(model, layer, logits, padded, score_coefficients)
    result = []
    for values, families_ in zip(maps, families, strict=True):
        ends = np.cumsum([len(family) for family in families_])
        parts = zip(ends, families_, strict=True)
        result.append(tuple(values[end - len(family) : end] for end, family in parts))
    return result


def _log_odds_maps(path: Path, child_maps: Sequence[Map]) -> tuple[Map, ...]:
    """A gradient is linear: the map of ``log p/(1 − p)`` is the children's, weighted."""
    return tuple(
        np.tensordot(_log_odds_weights(decision), maps, axes=1).astype(np.float32)
        for decision, maps in zip(path, child_maps, strict=True)
    )


def _log_odds_weights(decision: Decision) -> NDArray[np.float64]:
    """Derivatives of the chosen child's log-odds with respect to all children's scores.

    1 for the child itself, and minus the softmax among the others.
    """
    others = np.array(decision.log_probs, dtype=np.float64)
    others[decision.chosen] = -math.inf
    shares: NDArray[np.float64] = np.exp(others - others.max())
    weights: NDArray[np.float64] = -shares / shares.sum()
    weights[decision.chosen] = 1
    return weights


def _maps(model: NBDT, layer: Layer, logits: Tensor, nodes: Tensor, coefficients: Any) -> Map:
    """(batch, queries, height, width) for node indices (batch, queries)."""
    tree, weight = model.head.rules.tree, model.head.linear.weight.detach()
    found = coefficients(logits, nodes.to(logits.device), tree, model.rule)
    maps: Map = layer.maps(found.to(weight.dtype) @ weight).cpu().numpy()
    return maps


# ---- what is asked for beside the maps -----------------------------------------------------


def _with_evidence(
    model: NBDT, layer: Layer, explanations: Sequence[Explanation], evidence: EvidenceIndex
) -> list[Explanation]:
    seen = evidence.for_model(model)
    return [
        replace(found, evidence=seen.for_path(features, found.path))
        for found, features in zip(explanations, layer.features, strict=True)
    ]


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
    device = next(model.parameters()).device
    if isinstance(images, Tensor):
        if images.ndim != 4 or images.shape[1] != 3 or not len(images):
            raise NBDTError(
                "Expected images of shape (batch, 3, height, width) with at least one image, got "
                f"{tuple(images.shape)}; torch.stack what model.preprocess returns."
            )
        return images.to(device), [None] * len(images)
    given = [images] if isinstance(images, Image.Image | str | os.PathLike) else list(images)
    if not given:
        raise NBDTError("There are no images to explain.")
    pictures = [
        item if isinstance(item, Image.Image) else open_image(item, max_side=AMPLE_SIDE)
        for item in given
    ]
    batch = torch.stack([model.preprocess(picture) for picture in pictures])
    return batch.to(device), [model.preprocess.frame(picture, PHOTO_SIDE) for picture in pictures]


def soft_answers(model: NBDT, logits: Tensor) -> list[Mapping[str, Any]]:
    """The likeliest class over all paths; the path's own may be another."""
    best = model.head.rules(logits).exp().max(dim=1)
    return [
        {"class": model.hierarchy.classes[index], "probability": value}
        for index, value in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def _made(model: NBDT, way: str, layer: str) -> Mapping[str, Any]:
    return {
        "method": way,
        "of": "log-odds of each chosen child among its siblings",
        "layer": layer,
        "architecture": model.architecture,
        "rule": model.rule,
        "model": model_hash(model),
        "hierarchy": model.hierarchy.hash,
        "versions": {"nbdt": nbdt.__version__, "torch": torch.__version__},
    }
