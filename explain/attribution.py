"""`explain`: the path of each image and the node map of each of its decisions."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch
from PIL import Image
from torch import Tensor

import nbdt
from nbdt.errors import NBDTError
from nbdt.images import AMPLE_SIDE, open_image
from nbdt.maps import log_odds_coefficients, node_maps
from nbdt.model import NBDT
from nbdt.paths import Path

from .explanation import Explanation

PHOTO_SIDE = 320  # pixels of the stored photograph: enough to look at, small enough to keep


Photo: TypeAlias = "Image.Image | str | os.PathLike[str]"


def explain(
    model: NBDT,
    images: Tensor | Photo | Sequence[Photo],
    *,
    classes: Sequence[int] | None = None,
) -> list[Explanation]:
    """The path of each image, with the log-odds map of every decision on it.

    The maps are exact and cost one matrix product, where the head is linear on an average pool;
    see `nbdt.maps`.

    Args:
        model: in evaluation mode.
        images: photographs (PIL images or paths), one or several; or a (batch, 3, height, width)
            tensor of what `model.preprocess` returns.
        classes: class indices whose paths are wanted instead of the model's own.

    Raises:
        ImageError: a path that holds no readable image.
        NBDTError: a model in training mode, an empty or misshapen batch, values that are not
            finite, or an architecture whose pooling is not an average.
    """
    if model.training:
        raise NBDTError("The model is in training mode; call model.eval() before explaining.")
    batch, photos = _prepare(model, images)
    with torch.inference_mode():
        feature_map = model.feature_map(batch)
        features = _checked_pool(model, feature_map)
        logits = model.head.linear(features).float()
        found = model.head.rules.paths(logits, classes)
        nodes = _path_nodes(model, found).to(logits.device)
        head = model.head
        coefficients = log_odds_coefficients(logits, nodes, head.rules.tree, model.rule)
        maps = node_maps(feature_map, head.linear.weight, coefficients).float().cpu().numpy()
    made = _made(model, maps.shape[-2:])
    return [
        Explanation(path, tuple(rows[: len(path)]), photo, made)
        for path, rows, photo in zip(found, maps, photos, strict=True)
    ]


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


def _checked_pool(model: NBDT, feature_map: Tensor) -> Tensor:
    """Pooled features, once a random feature map has shown that pooling is an average."""
    if feature_map.ndim == 4:
        probe = torch.randn_like(feature_map[:1]) + 1
        pooled, average = model.pool(probe), probe.mean(dim=(2, 3))
        if pooled.shape == average.shape and torch.allclose(pooled, average, 1e-3, 1e-3):
            return model.pool(feature_map)
    raise NBDTError(
        f"{model.architecture!r} does not end in a global average pool, which the closed form of "
        "node maps needs. Its paths are available: model.paths(images)."
    )


def _path_nodes(model: NBDT, found: Sequence[Path]) -> Tensor:
    """(batch, longest path) node indices, shorter paths padded by their last node."""
    tree = model.hierarchy
    rows = [tree.path_to(tree.leaf_nodes[path.class_index])[1:] for path in found]
    longest = max(map(len, rows))
    return torch.tensor([row + row[-1:] * (longest - len(row)) for row in rows])


def _made(model: NBDT, resolution: tuple[int, int]) -> Mapping[str, Any]:
    return {
        "method": "closed-form Grad-CAM of the log-odds of each chosen child",
        "layer": "last feature map",
        "resolution": list(resolution),
        "architecture": model.architecture,
        "rule": model.rule,
        "hierarchy": model.hierarchy.hash,
        "versions": {"nbdt": nbdt.__version__, "torch": torch.__version__},
    }
