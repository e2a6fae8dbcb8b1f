"""The maps that an audit compares: methods of `explain`, three more, and controls.

A control ignores the decision: a method that does not beat the controls explains nothing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from nbdt.errors import check_known
from nbdt.model.model import NBDT

from ..maps.layers import any_layer, map_layer
from ..maps.levels import ABOVE, searches, sharper
from ..maps.log_odds import METHODS, input_maps
from ..maps.node_maps import class_maps, head_logits, path_maps

Maps: TypeAlias = "list[tuple[NDArray[np.float32], ...]]"
Nodes: TypeAlias = "Sequence[Sequence[int]]"

CENTRE = 1 / 4  # of the side: the standard deviation of the centre control
SIDE = 16  # cells along the side of a control map; an audit averages them within its own


def method_maps(
    model: NBDT, images: Tensor, nodes: Nodes, method: str, rng: np.random.Generator | None = None
) -> Maps:
    """Return the maps of `claims` alone."""
    check_method(method)
    if method in CONTROLS:
        return CONTROLS[method](nodes, rng or np.random.default_rng(0))
    if method in OTHERS:
        return OTHERS[method](model, images, nodes)
    if method in METHODS:
        return input_maps(model, images, nodes, method)
    if method in ABOVE:
        return _at_level(model, images, nodes, method, regions=False)[0]
    layer = map_layer(model, images)
    logits = head_logits(model, layer.features)
    return path_maps(model, layer, model.head.rules.paths(logits, _classes(model, nodes)))


def claims(
    model: NBDT, images: Tensor, nodes: Nodes, method: str, rng: np.random.Generator | None = None
) -> tuple[Maps, Maps]:
    """Return for every image one map, (height, width), for each decision of its path; and regions.

    The regions are maps of 1 in what matters to the decision alone, else 0: the candidate that a level
    found best, whether or not it passed. For other methods they are the maps.

    Args:
        images: (batch, 3, height, width), preprocessed.
        nodes: for every image the nodes of a path, from below the root to a leaf.
        method: one of `known_methods()`; `rng` is for the "random" control.

    Raises NBDTError: an unknown method, or one that this network's layers do not allow.
    """
    if method in ABOVE:
        return _at_level(model, images, nodes, method, regions=True)
    maps = method_maps(model, images, nodes, method, rng)
    return maps, maps


def _at_level(
    model: NBDT, images: Tensor, nodes: Nodes, level: str, *, regions: bool
) -> tuple[Maps, Maps]:
    layer, found = any_layer(model, images), []
    paths = model.head.rules.paths(head_logits(model, layer.features), _classes(model, nodes))
    maps = path_maps(model, layer, paths)
    if regions or layer.is_plain:
        found = searches(model, images, paths, maps, level)
    tops: Maps = [tuple(one.masks[one.best].astype(np.float32)) for one in found]
    if layer.is_plain:
        return [tuple(one.maps.astype(np.float32)) for one in found], tops
    return sharper(model, images, paths, maps) or maps, tops


@contextmanager
def counted_passes(model: NBDT) -> Iterator[list[int]]:
    """Append the number of images of every forward pass of `model` to a list.

    A backward pass is not counted; it takes about as long as two forward passes.
    """
    counts: list[int] = []
    plain = model.feature_map

    def counting(images: Tensor) -> Tensor:
        counts.append(len(images))
        return plain(images)

    model.feature_map = counting  # type: ignore[method-assign]
    try:
        yield counts
    finally:
        del model.feature_map


def known_methods() -> list[str]:
    """Names of all methods and controls."""
    return [*ABOVE, "grad-cam", *METHODS, *OTHERS, *CONTROLS]


def check_method(method: str) -> None:
    """Raise NBDTError, with the nearest names, for an unknown method."""
    check_known("method", method, known_methods())


def _random(nodes: Nodes, rng: np.random.Generator) -> Maps:
    """Noise: one map an image, whatever the decision."""
    return [(rng.random((SIDE, SIDE), dtype=np.float32),) * len(path) for path in nodes]


def _centre(nodes: Nodes, _: np.random.Generator) -> Maps:
    """A Gaussian at the centre, where the subject of most photographs is."""
    offsets = (np.arange(SIDE) + 0.5) / SIDE - 0.5
    square = offsets[:, None] ** 2 + offsets**2
    values = np.exp(-square / (2 * CENTRE**2)).astype(np.float32)
    return [(values,) * len(path) for path in nodes]


CONTROLS: Mapping[str, Callable[[Nodes, np.random.Generator], Maps]] = {
    "random": _random,
    "centre": _centre,
}


def _layer_grad_cam(model: NBDT, images: Tensor, nodes: Nodes) -> Maps:
    """Node maps clipped at 0, as Grad-CAM was published."""
    maps = method_maps(model, images, nodes, "grad-cam")
    return [tuple(np.maximum(values, 0) for values in path) for path in maps]


def _class_grad_cam(model: NBDT, images: Tensor, nodes: Nodes) -> Maps:
    """Grad-CAM of the class logit for each decision: what a model without node maps offers."""
    layer, classes = map_layer(model, images), _classes(model, nodes)
    found = class_maps(model, layer, classes)
    return [(values,) * len(path) for values, path in zip(found, nodes, strict=True)]


def _classes(model: NBDT, nodes: Nodes) -> list[int]:
    """Return the class at the end of each path."""
    return [model.hierarchy.class_indices[path[-1]] for path in nodes]


OTHERS: Mapping[str, Callable[[NBDT, Tensor, Nodes], Maps]] = {
    "layer grad-cam": _layer_grad_cam,
    "class grad-cam": _class_grad_cam,
    "saliency": partial(input_maps, method="saliency"),
}
