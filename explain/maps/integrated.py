"""Maps by integrated gradients of a layer that is finer than the last one, with Grad-CAM.

The gradient of each decision's log-odds is averaged along the straight line from the layer's output for
the blurred picture to that for the picture (Sundararajan et al., 2017, on a layer instead of pixels). The
layer before the last halving of the grid sees twice as sharp as the
last one. Both together rank parts better than each alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from nbdt.model.model import NBDT
from nbdt.network.positions import positions

from ..result.explanation import Map
from ..result.regions import regrid
from .candidates import Values
from .hiding import gaussian_blur
from .layers import in_this_thread
from .log_odds import of_logits

STEPS = 4  # of the line
BLUR = 1 / 12  # of the side: standard deviation where it starts; an eighth was worse on one network
COST = 9  # in times of a forward pass, measured for a path of four decisions
WEIGHT = 0.5  # of the integral beside Grad-CAM, at equal norm
FINER = 1.5
DEPTH = 2  # names such as "layer3" and "blocks.4": what is deeper inside may be a branch


def sharpened(
    model: NBDT,
    image: Tensor,
    nodes: Sequence[int],
    maps: Sequence[Map],
    layer: str,
) -> tuple[Map, ...]:
    """Return maps of decisions, at the resolution and of the norm of `maps`.

    Args:
        model: in evaluation mode.
        image: (3, height, width), preprocessed, on the model's device.
        nodes: the chosen children of the path.
        maps: Grad-CAM of the same decisions, (rows, columns) each.
        layer: from `finer_layer`.
    """
    both = []
    for values, fine in zip(maps, integrated(model, image, nodes, layer), strict=True):
        own, norm = regrid(fine, *values.shape), float(np.linalg.norm(values))
        scaled = own * (norm / max(float(np.linalg.norm(own)), 1e-12))
        mean = (values + WEIGHT * scaled) / (1 + WEIGHT)
        both.append(mean.astype(np.float32))
    return tuple(both)


def finer_layer(model: NBDT, images: Tensor, rows: int) -> str | None:
    """Return the name of the last module whose output has a grid of at least `FINER` times `rows`.

    None for a network without one, such as a vision transformer.
    """
    size, found = (images.shape[-2], images.shape[-1]), []
    names = [name for name, _ in model.backbone.named_modules() if name and name.count(".") < DEPTH]
    with torch.inference_mode(), _outputs(model.backbone, names) as seen:
        model.feature_map(images[:1])
        for name, output in seen:
            grid = positions(model.backbone, output, size) if output.ndim == 4 else None
            if grid is not None and FINER * rows <= grid.shape[2] <= size[0] / 4:
                found.append(name)
    return found[-1] if found else None


def integrated(model: NBDT, image: Tensor, nodes: Sequence[int], name: str) -> Values:
    """Return the integrals over the positions of a layer, (decisions, height, width).

    They sum to the difference of log-odds from the blurred picture, but for the error of `STEPS`.
    """
    size = (image.shape[-2], image.shape[-1])
    with torch.inference_mode(False), torch.no_grad():
        pictures = torch.stack([image, gaussian_blur(image, BLUR * min(size))]).clone()
        with _outputs(model.backbone, [name]) as seen:
            model.feature_map(pictures)
        whole, start = seen[0][1]
        shares = (torch.arange(STEPS).to(whole) + 0.5) / STEPS
        line = start + shares.view(-1, *[1] * whole.ndim) * (whole - start)
        slopes = _slopes(model, pictures[:1], nodes, name, line).mean(dim=1)
        grid = cast(Tensor, positions(model.backbone, slopes * (whole - start), size))
    found: Values = grid.sum(dim=1).cpu().double().numpy()
    return found


def _slopes(model: NBDT, picture: Tensor, nodes: Sequence[int], name: str, at: Tensor) -> Tensor:
    """Gradients of log-odds where a layer has the values `at`: (nodes, batch, *layer).

    Only what follows the layer runs on the whole batch, and only that is recorded.
    """
    leaf = at.clone().requires_grad_()

    def replaced(*_: Any) -> Tensor:
        torch.set_grad_enabled(True)
        return leaf.clone()  # what follows may write in place

    handle = model.backbone.get_submodule(name).register_forward_hook(in_this_thread(replaced))
    try:
        with torch.no_grad():
            log_odds = of_logits(model, model.logits(picture)).sum(dim=0).unbind()
    finally:
        handle.remove()
    return torch.stack([
        torch.autograd.grad(log_odds[node], leaf, retain_graph=True)[0] for node in nodes
    ])  # fmt: skip


@contextmanager
def _outputs(backbone: nn.Module, names: Sequence[str]) -> Iterator[list[tuple[str, Tensor]]]:
    """Append (name, output) of every call of these modules that returns a tensor."""
    seen: list[tuple[str, Tensor]] = []

    def hook(name: str) -> Callable[..., None]:
        def record(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                seen.append((name, output.clone()))

        return in_this_thread(record)

    handles = [backbone.get_submodule(name).register_forward_hook(hook(name)) for name in names]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
