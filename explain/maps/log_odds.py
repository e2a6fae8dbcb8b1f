"""Log-odds of decisions: of logits, of images, and as maps on the image by Captum's methods."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nbdt.decide.rules import edge_scores, full_precision
from nbdt.model.model import NBDT
from nbdt.tree.index import TreeIndex

# Pixels of a forward pass. On a CPU a photograph of 260 pixels takes 0.047 s alone, 0.043 s in a
# batch of 2, 0.063 s in one of 8 and 0.125 s in one of 31: only a small batch stays in the cache.
PIXELS_AT_ONCE, CPU_PIXELS_AT_ONCE = 2**21, 2**18
MOST_AT_ONCE = 256  # images
MOST_FOR_SPREAD = 1000  # photographs
STEPS = 32  # of the path that integrated gradients follow
CELLS = 8  # occlusion and LIME hide squares, this many along the longer side
SAMPLES = 200  # perturbed images behind the LIME maps of an image
AT_ONCE = 8  # steps in one backward pass

# Of models: the logits of the reference set, the rules, and what `fixed_spread` made of them.
_spreads: WeakKeyDictionary[nn.Module, tuple[Tensor, nn.Module, NDArray[np.float64]]]
_spreads = WeakKeyDictionary()


def log_odds(logits: Tensor, tree: TreeIndex, rule: str) -> Tensor:
    """Return ``log p/(1 − p)`` of every node among its siblings, differentiable.

    ``s_j − logsumexp of the other siblings' s``, without forming ``1 − p``: it stays exact where a
    decision is so sure that ``p`` rounds to 1. Its sigmoid is the decision's probability.

    `logits`: (batch, classes), float32 or float64.

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


def pictures_at_once(model: NBDT, images: Tensor) -> int:
    """Return how many pictures of the size of (batch, 3, height, width) run together, for speed."""
    pixels = CPU_PIXELS_AT_ONCE if model.device.type == "cpu" else PIXELS_AT_ONCE
    return max(1, min(MOST_AT_ONCE, pixels // (images.shape[-2] * images.shape[-1])))


def _of_images(model: NBDT, images: Tensor) -> Tensor:
    return of_logits(model, model.logits(images))


def of_logits(model: NBDT, logits: Tensor) -> Tensor:
    """Return the log-odds (batch, nodes) of class logits (batch, classes), float64 (MPS: float32)."""
    precise = logits.float() if logits.device.type == "mps" else logits.double()
    return log_odds(precise, model.head.rules.tree, model.rule)


def fixed_spread(model: NBDT) -> NDArray[np.float64]:
    """Return the standard deviation of each node's log-odds over photographs, (nodes,).

    They are those of the model's reference set, so it does not depend on what is explained; 1 for a
    model without one, whose log-odds are then compared as they are, and where it is 0.
    """
    logits = model.reference.get("logits")
    if logits is None or len(logits) < 2:
        return np.ones(model.hierarchy.num_nodes)
    known = _spreads.get(model)
    if known and known[0] is logits and known[1] is model.head.rules:
        return known[2]
    some = logits[:: math.ceil(len(logits) / MOST_FOR_SPREAD)].to(model.device)
    deviation: NDArray[np.float64] = of_logits(model, some).cpu().double().std(dim=0).numpy()
    spread = np.where(deviation > 1e-9, deviation, 1.0)
    _spreads[model] = (logits, model.head.rules, spread)
    return spread


# ---- maps by Captum, one decision at a time --------------------------------------------------------


class LogOdds(nn.Module):
    """The log-odds of one node: images (batch, 3, height, width) to (batch,), float64.

    A method that runs the same pictures for every node passes the list `seen`: the first node fills
    it with the log-odds of all nodes, call by call, and the next ones read them there.
    """

    def __init__(self, model: NBDT, node: int, seen: list[Tensor] | None = None) -> None:
        super().__init__()
        self.model, self.node, self.seen, self.calls = model, node, seen, 0

    def forward(self, images: Tensor) -> Tensor:
        """Return the log-odds; `node` is an index in `Hierarchy.nodes`."""
        if self.seen is None:
            return _of_images(self.model, images)[:, self.node]
        if self.calls == len(self.seen):
            self.seen.append(_of_images(self.model, images))
        self.calls += 1
        return self.seen[self.calls - 1][:, self.node]


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
            runs: list[Any] = [[] if method in HIDING else None for _ in nodes]
            return [
                tuple(compute(LogOdds(model, node, seen), images[[row]]) for node in wanted)
                for row, (wanted, seen) in enumerate(zip(nodes, runs, strict=True))
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
    size = pictures_at_once(function.model, image)
    with torch.no_grad():
        found = Occlusion(function).attribute(image, window, window, perturbations_per_eval=size)
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
            perturbations_per_eval=pictures_at_once(function.model, image),
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
HIDING = {"occlusion", "lime"}  # they hide the same parts whatever the node


def _side(image: Tensor) -> int:
    """Pixels along a square."""
    return math.ceil(max(image.shape[-2:]) / CELLS)


def _one_a_square(found: Tensor) -> NDArray[np.float32]:
    """Every pixel and channel of a square has the square's value: keep it once."""
    side = _side(found)
    return found[0, 0, ::side, ::side].float().cpu().numpy()
