"""Log-odds of decisions: of logits, of images, and as maps on the image by Captum's methods."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nbdt.decide.rules import edge_scores, full_precision
from nbdt.model.model import NBDT
from nbdt.tree.index import TreeIndex

PIXELS_AT_ONCE = 2**21  # of a forward pass: 41 photographs of 224 pixels, 256 (the most) of 32
MOST_AT_ONCE = 256
STEPS = 32  # of the path that integrated gradients follow
CELLS = 8  # occlusion and LIME hide squares, this many along the longer side
SAMPLES = 200  # perturbed images behind one LIME map
AT_ONCE = 25  # of them in one forward pass


def log_odds(logits: Tensor, tree: TreeIndex, rule: str) -> Tensor:
    """Return ``log p/(1 − p)`` of every node among its siblings, differentiable.

    ``s_j − logsumexp of the other siblings' s``, without forming ``1 − p``: it stays exact where a
    decision is so sure that ``p`` rounds to 1. Its sigmoid is the decision's probability.

    Args:
        logits: (batch, classes), float32 or float64.

    Returns:
        (batch, nodes), columns as in `Hierarchy.nodes`; the root's is 0.
    """
    with full_precision(logits):
        scores = edge_scores(logits, tree, rule)
        runs = [
            _among_siblings(scores[start : start + groups * size].view(groups, size, -1))
            for start, groups, size in tree.runs
        ]
        edges = torch.cat(runs).t()
        return torch.cat([edges.new_zeros(len(edges), 1), edges[:, tree.edge_of_node[1:]]], dim=1)


def _among_siblings(scores: Tensor) -> Tensor:
    """(groups, siblings, batch) scores to (groups · siblings, batch) log-odds."""
    best = scores.argmax(dim=1, keepdim=True)
    is_best = torch.zeros_like(scores, dtype=torch.bool).scatter(1, best, True)
    everyone = scores.logsumexp(dim=1, keepdim=True)
    # For the best child the others are summed by themselves; any other one has p of at most 1/2,
    # and 1 - p loses nothing.
    without_best = scores.masked_fill(is_best, -torch.inf).logsumexp(dim=1, keepdim=True)
    p = (scores - everyone).exp().masked_fill(is_best, 0)
    others = torch.where(is_best, without_best, everyone + torch.log1p(-p))
    return (scores - others).flatten(0, 1)


def measured_log_odds(model: NBDT, images: Tensor) -> Tensor:
    """Return log-odds (batch, nodes) of images (batch, 3, height, width), float64 (MPS: float32).

    The images run in parts that bound the memory, without gradients.
    """
    size = max(1, min(MOST_AT_ONCE, PIXELS_AT_ONCE // (images.shape[-2] * images.shape[-1])))
    with torch.inference_mode():
        parts = [_of_images(model, part.to(model.device)).cpu() for part in images.split(size)]
    return torch.cat(parts).clone()


def _of_images(model: NBDT, images: Tensor) -> Tensor:
    logits = model.logits(images).float()
    logits = logits if logits.device.type == "mps" else logits.double()
    return log_odds(logits, model.head.rules.tree, model.rule)


# ---- maps by Captum, one decision at a time --------------------------------------------------------


class LogOdds(nn.Module):
    """The log-odds of one node: images (batch, 3, height, width) to (batch,), float64."""

    def __init__(self, model: NBDT, node: int) -> None:
        super().__init__()
        self.model, self.node = model, node

    def forward(self, images: Tensor) -> Tensor:
        """Return the log-odds; `node` is an index in `Hierarchy.nodes`."""
        return _of_images(self.model, images)[:, self.node]


def input_maps(
    model: NBDT, images: Tensor, nodes: Sequence[Sequence[int]], method: str
) -> list[tuple[NDArray[np.float32], ...]]:
    """Return maps of the log-odds of each image's `nodes`, by "saliency" or one of `METHODS`.

    Hidden parts and baselines are 0, the mean colour after normalisation.

    Args:
        images: (batch, 3, height, width), preprocessed.
        nodes: node indices for every image.

    Returns:
        For every image one map a node, (height, width): in pixels, or in `CELLS` × `CELLS` for
        "occlusion" and "lime".
    """
    needs = [parameter.requires_grad for parameter in model.parameters()]
    with torch.inference_mode(False), torch.enable_grad():
        images = images.detach().clone()
        model.requires_grad_(False)
        try:
            compute = METHODS.get(method, _by_gradients)
            return [
                tuple(compute(LogOdds(model, node), images[row : row + 1]) for node in wanted)
                for row, wanted in enumerate(nodes)
            ]
        finally:
            for parameter, needed in zip(model.parameters(), needs, strict=True):
                parameter.requires_grad_(needed)


def _by_gradients(
    function: LogOdds, image: Tensor, kind: str = "Saliency", **options: Any
) -> NDArray[np.float32]:
    """Return a map of Captum's method of that name, summed over channels."""
    import captum.attr

    found = getattr(captum.attr, kind)(function).attribute(image.requires_grad_(), **options)
    summed: NDArray[np.float32] = found.detach().sum(dim=1)[0].float().cpu().numpy()
    return summed


def _occlusion(function: LogOdds, image: Tensor) -> NDArray[np.float32]:
    from captum.attr import Occlusion

    window = (image.shape[1], _side(image), _side(image))
    with torch.no_grad():
        found = Occlusion(function).attribute(image, window, window, perturbations_per_eval=AT_ONCE)
    return _one_a_square(found)


def _lime(function: LogOdds, image: Tensor) -> NDArray[np.float32]:
    from captum.attr import Lime

    height, width = (torch.arange(length) // _side(image) for length in image.shape[-2:])
    squares = (height[:, None] * (width[-1] + 1) + width).to(image.device)
    devices = [image.device] if image.is_cuda else []
    with torch.no_grad(), torch.random.fork_rng(devices):
        torch.manual_seed(0)
        found = Lime(function).attribute(
            image,
            feature_mask=squares.expand_as(image),
            n_samples=SAMPLES,
            perturbations_per_eval=AT_ONCE,
        )
    return _one_a_square(found)


METHODS: Mapping[str, Callable[[LogOdds, Tensor], NDArray[np.float32]]] = {
    "integrated gradients": partial(
        _by_gradients, kind="IntegratedGradients", n_steps=STEPS, internal_batch_size=AT_ONCE
    ),
    "input x gradient": partial(_by_gradients, kind="InputXGradient"),
    "occlusion": _occlusion,
    "lime": _lime,
}


def _side(image: Tensor) -> int:
    """Pixels along a square."""
    return math.ceil(max(image.shape[-2:]) / CELLS)


def _one_a_square(found: Tensor) -> NDArray[np.float32]:
    """Every pixel and channel of a square has the square's value: keep it once."""
    side = _side(found)
    return found[0, 0, ::side, ::side].float().cpu().numpy()
