"""Measures whether a suspected region, such as a watermark, decides the answer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from nbdt.errors import NBDTError
from nbdt.explain.audit.methods import Maps, method_maps
from nbdt.explain.audit.perturbation import BASELINES
from nbdt.explain.audit.result import Estimate, estimate
from nbdt.model.model import NBDT


@dataclass(frozen=True)
class Shortcut:
    """The share of maps on a region, and the answers without it.

    Attributes:
        area: share of the image that the region covers: the mass a map gets there by chance.
        mass: share of the positive part of the last decision's map that lies on the region.
        path_mass: the same, of the decision on the path where it is largest.
        pointed: share of images whose last map has its highest value on the region.
        flipped: by baseline, share of images whose class changes once the region is hidden.
    """

    area: float
    mass: Estimate
    path_mass: Estimate
    pointed: Estimate
    flipped: dict[str, Estimate]


def shortcut(
    model: NBDT, images: Tensor, region: Tensor, *, method: str = "grad-cam", seed: int = 0
) -> Shortcut:
    """Measure a suspected shortcut on images that show it.

    Args:
        model: in evaluation mode.
        images: (batch, 3, height, width), preprocessed.
        region: (height, width) bool, where the suspect is.
        method: see `nbdt.explain.audit.methods.known_methods`.

    Raises:
        NBDTError: a region of another size, or none.
    """
    if region.shape != images.shape[-2:] or not region.any():
        raise NBDTError(
            f"Expected a region of shape {tuple(images.shape[-2:])} with a pixel in it, got "
            f"{tuple(region.shape)} with {int(region.sum())}."
        )
    tree = model.hierarchy
    with torch.inference_mode():
        classes = [path.class_index for path in model.paths(images)]
    nodes = [tree.path_of_class(index)[1:] for index in classes]
    maps = method_maps(model, images, nodes, method, np.random.default_rng(seed))
    shares = [[positive_share(values, region.numpy()) for values in own] for own in maps]
    return Shortcut(
        float(region.float().mean()),
        estimate(np.array([own[-1] for own in shares])),
        estimate(np.array([max(own) for own in shares])),
        estimate(_pointed(maps, region.numpy())),
        {name: estimate(_flips(model, images, region, classes, name)) for name in BASELINES},
    )


def positive_share(values: NDArray[np.float32], region: NDArray[np.bool_]) -> float:
    """Share of a (h, w) map's positive values that lies on a (height, width) region; 0 if none.

    A value is spread evenly over the pixels of its position.
    """
    positive = np.clip(_at(values, region.shape), 0, None)
    total = positive.sum()
    return float(positive[region].sum() / total) if total > 0 else 0.0


def _at(values: NDArray[np.float32], size: tuple[int, ...]) -> NDArray[np.float64]:
    whole = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float64))[None, None]
    return F.interpolate(whole, size=size, mode="nearest-exact")[0, 0].numpy()


def _pointed(maps: Maps, region: NDArray[np.bool_]) -> NDArray[np.float64]:
    """1 for each image whose last map is highest on the region."""
    found = []
    for own in maps:
        values = _at(own[-1], region.shape)
        found.append(region[values >= values.max()].any())
    return np.array(found, dtype=np.float64)


def _flips(
    model: NBDT, images: Tensor, region: Tensor, classes: list[int], baseline: str
) -> NDArray[np.float64]:
    hidden = torch.where(region.to(images.device), BASELINES[baseline](images), images)
    with torch.inference_mode():
        after = [path.class_index for path in model.paths(hidden)]
    return np.array([float(a != b) for a, b in zip(after, classes, strict=True)])
