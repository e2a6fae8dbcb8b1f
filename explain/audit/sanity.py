"""Sanity checks of maps: dependence on weights, stability under noise.

- Parameter randomisation (Adebayo et al., *Sanity checks for saliency maps*, 2018), cascading from
  the head down: a map that does not change ignores the weights.
- Maximum sensitivity (Yeh et al., *On the (in)fidelity and sensitivity of explanations*, 2019).
"""

import copy
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nbdt.model.model import NBDT
from nbdt.runtime.backbone import OnnxBackbone

from .methods import Maps
from .result import Values

STAGES = 4
RADIUS = 0.02  # of the pixel range
SAMPLES = 3


def randomised(model: NBDT, seed: int = 0) -> Iterator[tuple[str, NBDT]]:
    """Yield what is random, and the model with more and more random weights, from the head down.

    The first copy has a random head, the last no trained weight; in between, the backbone's layers
    are randomised in equal parts, the last layers first. Layers are initialised as in PyTorch;
    parameters without an initialisation (class tokens, layer scales) keep their spread.
    """
    bare = model.with_hierarchy(model.hierarchy)
    bare.use_memory("")  # an open one cannot be copied
    bare.memory_place = None
    changed = copy.deepcopy(bare).requires_grad_(requires_grad=False)
    layers = [
        (name, module)
        for name, module in changed.backbone.named_modules()
        if next(module.parameters(recurse=False), None) is not None  # with parameters of its own
    ][::-1]
    stages = range(1 if isinstance(changed.backbone, OnnxBackbone) else STAGES)  # the head alone
    ends = [round(len(layers) * stage / (STAGES - 1)) for stage in stages]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _refresh(changed.head.linear)
        yield "head", changed
        for low, high in pairwise(ends):
            for _, layer in layers[low:high]:
                _refresh(layer)
            name = f"down to {layers[high - 1][0]}" if high < len(layers) else "all"
            yield name, changed


def _refresh(layer: nn.Module) -> None:
    reset = getattr(layer, "reset_parameters", None)
    if callable(reset):
        reset()
        return
    for value in layer.parameters(recurse=False):
        spread = float(value.std()) if value.numel() > 1 else 0.0
        value.normal_(0, spread or float(value.abs().max()) or 1.0)


def rank_correlation(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Return Spearman's coefficient of two maps; 0 if one is constant, 1 if both are."""
    from scipy.stats import spearmanr

    constant = [np.ptp(values) == 0 for values in (first, second)]
    if any(constant):
        return float(all(constant))
    return float(spearmanr(first.ravel(), second.ravel()).statistic)


def correlations(before: Maps, after: Maps) -> Values:
    """Return (decisions, 2) rank correlations of the maps, signed and absolute."""
    return np.array([
        (rank_correlation(a, b), rank_correlation(np.abs(a), np.abs(b)))
        for a, b in _pairs(before, after)
    ])  # fmt: skip


def _pairs(before: Maps, after: Maps) -> Iterator[tuple[NDArray[np.float32], ...]]:
    """Yield the two maps of each decision."""
    return (
        pair for old, new in zip(before, after, strict=True) for pair in zip(old, new, strict=True)
    )


def noisy(model: NBDT, images: Tensor, rng: np.random.Generator) -> Tensor:
    """Add uniform noise of up to ± `RADIUS` of the pixel range."""
    spread = torch.tensor(model.preprocess.std)[:, None, None]
    noise = torch.from_numpy(rng.uniform(-RADIUS, RADIUS, images.shape)).float()
    return images + (noise / spread).to(images)


def sensitivity(before: Maps, after: Maps) -> Values:
    """``‖after − before‖ / ‖before‖`` (Frobenius) of each decision's map: (decisions,).

    Its maximum over samples of noise is Yeh et al.'s maximum sensitivity, relative to the map as in
    Quantus. NaN for a map of zeros.
    """
    pairs = ((old.astype(np.float64), new) for old, new in _pairs(before, after))
    return np.array(
        [np.linalg.norm(new - old) / (np.linalg.norm(old) or np.nan) for old, new in pairs]
    )
