"""Maps by integrated gradients of a layer that is finer than the last one, with Grad-CAM.

The gradient of each decision's log-odds is averaged along the straight line from the layer's output for
the blurred picture to that for the picture (Sundararajan et al., 2017, on a layer instead of pixels). The
layer before the last halving of the grid sees twice as sharp as the last one. Both together rank parts
better than each alone.
"""

import math
from collections.abc import Sequence
from typing import Any, cast
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from nbdt.model.model import NBDT
from nbdt.network.positions import Size, positions
from nbdt.network.running import hooked

from ..result.explanation import Map
from ..result.regions import regrid
from .candidates import Values
from .hiding import gaussian_blur
from .log_odds import of_logits

STEPS = 2  # of the line
PLACE = 1 / 4  # of each step where its gradient is taken: those nearer to the picture are noisier
BLUR = 1 / 12  # of the side: standard deviation where it starts; an eighth was worse on one network
WEIGHT = 0.35  # of the integral beside Grad-CAM, at equal norm
FINER = 1.5
DEPTH = 2  # names such as "layer3" and "blocks.4": what is deeper inside may be a branch

# The finer layers of networks by the size of the picture and the rows of the map.
_known: WeakKeyDictionary[nn.Module, dict[tuple[Size, int], str | None]] = WeakKeyDictionary()


def sharpened(
    model: NBDT, image: Tensor, nodes: Sequence[int], maps: Sequence[Map], layer: str
) -> tuple[Map, ...]:
    """Return maps of decisions, at the resolution and of the norm of `maps`.

    Args:
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


def cost(decisions: int) -> int:
    """Return what sharper maps of a path take, in times of a forward pass.

    Two pictures run, and measured on two networks a gradient through the end of the network takes about half as
    long as a pass.
    """
    return 2 + math.ceil(decisions / 2)


def finer_layer(model: NBDT, images: Tensor, rows: int) -> str | None:
    """Return the name of the last module whose output has a grid of at least `FINER` times `rows`.

    None for a network without one, such as a vision transformer. The first call for a network and a
    size takes a forward pass.
    """
    size, backbone = (images.shape[-2], images.shape[-1]), model.backbone
    known = _known.setdefault(backbone, {})
    if (size, rows) not in known:
        found: list[str | None] = [None]

        def record(name: str, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim == 4:
                grid = positions(backbone, output, size)
                if grid is not None and FINER * rows <= grid.shape[2] <= size[0] / 4:
                    found.append(name)

        names = [name for name, _ in backbone.named_modules() if name and name.count(".") < DEPTH]
        with torch.inference_mode(), hooked(backbone, names, record):
            model.feature_map(images[:1])
        known[size, rows] = found[-1]
    return known[size, rows]


def integrated(model: NBDT, image: Tensor, nodes: Sequence[int], name: str) -> Values:
    """Return the integrals over the positions of a layer, (decisions, height, width).

    They sum to the difference of log-odds from the blurred picture, but for the error of `STEPS`. One
    forward pass runs both pictures up to the layer, and what follows it on the line between them.
    """
    size = (image.shape[-2], image.shape[-1])
    line: list[Tensor] = []

    def replaced(_name: str, output: Tensor) -> Tensor:
        whole, start = output
        shares = (torch.arange(STEPS).to(whole) + PLACE) / STEPS
        at = start + shares.view(-1, *[1] * whole.ndim) * (whole - start)
        torch.set_grad_enabled(True)  # only what follows is recorded
        line[:] = [at.requires_grad_(), whole - start]
        return torch.clone(at)  # what follows may write in place

    with torch.inference_mode(False), torch.no_grad():
        pictures = torch.stack([image, gaussian_blur(image, BLUR * min(size))]).clone()
        with hooked(model.backbone, [name], replaced):
            log_odds = of_logits(model, model.logits(pictures)).sum(dim=0).unbind()
        leaf, difference = line
        slopes = torch.stack([
            torch.autograd.grad(log_odds[node], leaf, retain_graph=True)[0].mean(dim=0)
            for node in nodes
        ])  # fmt: skip
        grid = cast(Tensor, positions(model.backbone, slopes * difference, size))
    found: Values = grid.sum(dim=1).cpu().double().numpy()
    return found
