"""The maps that an audit compares: methods of `explain`, more of Captum's, and controls.

A control ignores the decision: a method that does not beat the controls explains nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nbdt.errors import NBDTError, nearest
from nbdt.model.model import NBDT

from ..attribution import explain
from ..maps.log_odds import METHODS, input_maps, log_odds

Maps: TypeAlias = "list[tuple[NDArray[np.float32], ...]]"
Nodes: TypeAlias = "Sequence[Sequence[int]]"

CENTRE = 1 / 4  # of the side: the standard deviation of the centre control
SIDE = 16  # cells along the side of a control map; an audit averages them within its own


def method_maps(
    model: NBDT,
    images: Tensor,
    nodes: Nodes,
    method: str,
    rng: np.random.Generator | None = None,
) -> Maps:
    """Return for every image one map, (height, width), for each decision of its path.

    Args:
        model: in evaluation mode.
        images: (batch, 3, height, width), preprocessed.
        nodes: for every image the nodes of a path, from below the root to a leaf.
        method: one of `known_methods()`.
        rng: for the "random" control.

    Raises:
        NBDTError: an unknown method, or one that this network's layers do not allow.
    """
    check_method(method)
    if method in CONTROLS:
        return CONTROLS[method](nodes, rng or np.random.default_rng(0))
    if method in CAPTUM:
        return CAPTUM[method](model, images, nodes)
    if method in METHODS:
        return list(input_maps(model, images, nodes, method))
    classes = [model.hierarchy.class_indices[path[-1]] for path in nodes]
    return [result.maps for result in explain(model, images, classes=classes, method=method)]


def known_methods() -> list[str]:
    """Names of all methods and controls."""
    return ["grad-cam", *METHODS, *CAPTUM, *CONTROLS]


def check_method(method: str) -> None:
    """Raise NBDTError, with the nearest names, for an unknown method."""
    names = known_methods()
    if method not in names:
        raise NBDTError(
            f"Unknown method {method!r}; choose one of {', '.join(names)}.{nearest(method, names)}"
        )


# ---- controls ------------------------------------------------------------------------------------


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


# ---- Captum's methods that `explain` does not offer ----------------------------------------------


class _FromFeatureMap(nn.Module):
    """Images to (batch, scores), with a module at the feature map for Captum's layer methods.

    There are no gradients before the feature map, so that weights may be frozen.
    """

    def __init__(self, model: NBDT, score: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model = model
        self.score = score
        self.tap = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) to (batch, scores)."""
        with torch.no_grad():
            feature_map = self.model.feature_map(images)
        pooled = self.model.pool(self.tap(feature_map.detach().requires_grad_()))
        return self.score(self.model.head.logits(pooled))


def _decisions(model: NBDT) -> Callable[[Tensor], Tensor]:
    return lambda logits: log_odds(logits, model.head.rules.tree, model.rule)


def _layer_grad_cam(model: NBDT, images: Tensor, nodes: Nodes) -> Maps:
    """Captum's LayerGradCam of each decision, clipped at 0 as published."""
    return _captum_grad_cam(model, _decisions(model), images, nodes, clip=True)


def _class_grad_cam(model: NBDT, images: Tensor, nodes: Nodes) -> Maps:
    """Captum's LayerGradCam of the class logit, used for each decision on the path.

    This is what a model without node maps offers.
    """
    leaves = [[model.hierarchy.class_indices[path[-1]]] for path in nodes]
    class_maps = _captum_grad_cam(model, nn.Identity(), images, leaves, clip=False)
    return [maps * len(path) for maps, path in zip(class_maps, nodes, strict=True)]


def _captum_grad_cam(
    model: NBDT,
    score: Callable[[Tensor], Tensor],
    images: Tensor,
    targets: Nodes,
    *,
    clip: bool,
) -> Maps:
    from captum.attr import LayerGradCam

    if not has_feature_map(model, images):
        raise NBDTError(
            f"{model.architecture!r} has no feature map of channels × height × width before its "
            "pooling, which Captum's LayerGradCam needs; choose other methods."
        )
    function = _FromFeatureMap(model, score)
    attribute = LayerGradCam(function, function.tap).attribute
    return _each(partial(attribute, relu_attributions=clip), images, targets)


def has_feature_map(model: NBDT, images: Tensor) -> bool:
    """Return whether the backbone ends in (batch, channels, height, width)."""
    with torch.inference_mode():
        shape = model.feature_map(images[:1]).shape
    return len(shape) == 4 and shape[1] != shape[2] == shape[3]


def _saliency(model: NBDT, images: Tensor, nodes: Nodes) -> Maps:
    """Captum's Saliency: the absolute gradient on the input image."""
    from captum.attr import Saliency

    decisions = _decisions(model)
    attribute = Saliency(lambda batch: decisions(model.logits(batch))).attribute
    return _each(lambda image, target: attribute(image.requires_grad_(), target), images, nodes)


def _each(maps: Callable[[Tensor, Tensor], Tensor], images: Tensor, targets: Nodes) -> Maps:
    """Compute `maps` of each image for each of its targets, summed over channels."""
    results = []
    with torch.inference_mode(False), torch.enable_grad():
        for image, nodes in zip(images, targets, strict=True):
            batch = image.detach().clone().expand(len(nodes), -1, -1, -1).clone()
            values = maps(batch, torch.tensor(nodes, device=batch.device)).detach().sum(dim=1)
            results.append(tuple(values.float().cpu().numpy()))
    return results


CAPTUM: Mapping[str, Callable[[NBDT, Tensor, Nodes], Maps]] = {
    "layer grad-cam": _layer_grad_cam,
    "class grad-cam": _class_grad_cam,
    "saliency": _saliency,
}
