"""`audit`: how far a model's explanations can be trusted, measured against controls."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

import nbdt
from nbdt.errors import NBDTError
from nbdt.model.fingerprint import model_hash
from nbdt.model.model import NBDT

from ..maps.log_odds import measured_log_odds
from .methods import CONTROLS, Maps, check_method, has_feature_map, method_maps
from .perturbation import (
    BASELINES,
    TOP,
    Grid,
    area,
    curves,
    ranked,
    specificity,
    spreads,
    without_top,
)
from .result import ABSOLUTE, SIGNED, Audit, MethodAudit, Values, findings, per_image
from .sanity import (
    RADIUS,
    SAMPLES,
    STAGES,
    completeness_error,
    correlations,
    noisy,
    randomised,
    sensitivity,
)

METHODS = (
    "grad-cam", "class grad-cam", "integrated gradients", "occlusion", "saliency",
    *CONTROLS,
)  # fmt: skip
STEPS = 8  # of a curve
CHECKED = 8  # images for random weights and noise, which need many maps each
CHUNK = 8  # images whose maps are in memory together
GRID_SIDES = 4, 16  # fewest and most regions along a side


def audit(
    model: NBDT,
    images: Tensor,
    *,
    methods: Sequence[str] | None = None,
    steps: int = STEPS,
    checked: int = CHECKED,
    seed: int = 0,
    on_steps: Callable[[int], None] = lambda _: None,
) -> Audit:
    """Measure the explanations of a model's own paths on images.

    Args:
        model: in evaluation mode; it is not changed.
        images: (batch, 3, height, width) of what `model.preprocess` returns. No labels are needed:
            the audit asks whether a map shows what moved the model, right or wrong.
        methods: see `known_methods`; by default the `METHODS` that the network allows.
        steps: points of a curve after the first.
        checked: images whose maps are repeated under noise and with random weights.
        seed: for the controls, ties, noise and random weights.
        on_steps: called with the number of steps just done; `count_steps` gives their sum.

    Raises:
        NBDTError: a model in training mode, images of another shape, or an unknown method.
    """
    names = _checked_methods(model, images, methods)
    audited = _Audited.of(model, images, checked, np.random.default_rng(seed))
    measured: dict[str, defaultdict[str, list[Values]]] = {m: defaultdict(list) for m in names}
    first_maps: dict[str, Maps] = {method: [] for method in names}
    for low in range(0, len(images), CHUNK):
        part = slice(low, low + CHUNK)
        for method in names:
            maps = method_maps(model, images[part], audited.nodes[part], method, audited.rng)
            for name, values in _measure(audited, part, method, maps, steps):
                measured[method][name].append(values)
            first_maps[method] += maps[: max(0, audited.checked - low)]
            on_steps(len(images[part]))
    again = _repeat(audited, first_maps, seed, on_steps)
    results = {
        method: _summarised(method, measured[method], again[method], audited) for method in names
    }
    return Audit(results, _made(audited, steps, seed), findings(results))


def count_steps(images: int, methods: int, checked: int = CHECKED) -> int:
    """Return the number of steps of an audit, as reported to `on_steps`."""
    return methods * (images + min(checked, images) * (STAGES + SAMPLES))


def default_methods(model: NBDT, images: Tensor) -> tuple[str, ...]:
    """Return the `METHODS` that this network's layers allow."""
    if has_feature_map(model, images):
        return METHODS
    return tuple(name for name in METHODS if name not in {"layer grad-cam", "class grad-cam"})


@dataclass(frozen=True, eq=False)
class _Audited:
    """The images under audit and the model's answers."""

    model: NBDT
    images: Tensor
    nodes: list[list[int]]
    log_odds: Values
    spread: Values
    grid: Grid
    checked: int
    rng: np.random.Generator

    @classmethod
    def of(cls, model: NBDT, images: Tensor, checked: int, rng: np.random.Generator) -> _Audited:
        tree = model.hierarchy
        with torch.inference_mode():
            parts = images.split(CHUNK)
            paths = [path for part in parts for path in model.paths(part)]
        nodes = [tree.path_of_class(path.class_index)[1:] for path in paths]
        log_odds = measured_log_odds(model, images).double().numpy()
        grid = _grid(method_maps(model, images[:1], nodes[:1], "grad-cam"))
        count = min(checked, len(images))
        return cls(model, images, nodes, log_odds, spreads(log_odds), grid, count, rng)


def _grid(maps: Maps) -> Grid:
    """Return the grid of the model's own maps, limited to `GRID_SIDES`."""
    low, high = GRID_SIDES
    height, width = (min(max(side, low), high) for side in maps[0][0].shape)
    return height, width


def _checked_methods(model: NBDT, images: Tensor, methods: Sequence[str] | None) -> Sequence[str]:
    model.check_evaluating()
    if images.ndim != 4 or images.shape[1] != 3 or not len(images):
        raise NBDTError(
            "Expected images of shape (batch, 3, height, width) with at least one image, got "
            f"{tuple(images.shape)}; torch.stack what model.preprocess returns."
        )
    if methods is None:
        return default_methods(model, images)
    for method in methods:
        check_method(method)
    if not [method for method in methods if method not in CONTROLS]:
        raise NBDTError("Name at least one method that is no control, such as 'grad-cam'.")
    return list(dict.fromkeys([*methods, *CONTROLS]))


# ---- measured --------------------------------------------------------------------------------


def _measure(
    audited: _Audited, part: slice, method: str, maps: Maps, steps: int
) -> Iterator[tuple[str, Values]]:
    """Yield the measures of some images' maps by name: a value or a curve for each decision."""
    model, images, nodes = audited.model, audited.images[part], audited.nodes[part]
    order = ranked(maps, nodes, audited.grid, audited.rng)
    for baseline in BASELINES:
        pair = curves(model, images, order, baseline, steps)
        for kind, curve in zip(("deletion", "insertion"), pair, strict=True):
            yield f"{kind} {baseline}", curve
        after = without_top(model, images, order, baseline, TOP).astype(np.float64)
        specific = specificity(
            audited.log_odds[part], after, nodes, audited.spread, model.hierarchy
        )
        for name, values in vars(specific).items():
            yield f"specificity {name} {baseline}", values
    errors = completeness_error(model, images, nodes, maps, method)
    if errors is not None:
        yield "completeness error", errors


def _repeat(
    audited: _Audited, first_maps: Mapping[str, Maps], seed: int, on_steps: Callable[[int], None]
) -> dict[str, dict[str, Values]]:
    """Compare maps with those under noise and with random weights: a value for each decision."""
    images, nodes = audited.images[: audited.checked], audited.nodes[: audited.checked]
    values: dict[str, dict[str, Values]] = {method: {} for method in first_maps}
    for _ in range(SAMPLES):
        changed = noisy(audited.model, images, audited.rng)
        for method, before in first_maps.items():
            after = method_maps(audited.model, changed, nodes, method, audited.rng)
            worst = values[method].get("max sensitivity", np.array(0.0))
            values[method]["max sensitivity"] = np.maximum(worst, sensitivity(before, after))
            on_steps(len(images))
    for stage, model in randomised(audited.model, seed=seed):
        for method, before in first_maps.items():
            after = method_maps(model, images, nodes, method, audited.rng)
            signed, absolute = correlations(before, after).T
            values[method][SIGNED + stage] = signed
            values[method][ABSOLUTE + stage] = absolute
            on_steps(len(images))
    return values


def _summarised(
    method: str, parts: Mapping[str, list[Values]], again: Mapping[str, Values], audited: _Audited
) -> MethodAudit:
    counts = np.array([len(path) for path in audited.nodes])
    values, mean_curves = {}, {}
    for name, pieces in parts.items():
        measured = np.concatenate(pieces)
        if measured.ndim == 2:
            points = [per_image(point, counts).mean() for point in measured.T]
            mean_curves[name] = np.array(points)
            measured = area(measured)
        values[name] = per_image(measured, counts)
    values |= {name: per_image(v, counts[: audited.checked]) for name, v in again.items()}
    return MethodAudit(method, values, mean_curves)


def _made(audited: _Audited, steps: int, seed: int) -> Mapping[str, Any]:
    return {
        "model": model_hash(audited.model),
        "architecture": audited.model.architecture,
        "rule": audited.model.rule,
        "hierarchy": audited.model.hierarchy.hash,
        "images": len(audited.images),
        "decisions": sum(map(len, audited.nodes)),
        "checked_images": audited.checked,
        "regions": list(audited.grid),
        "steps": steps,
        "top_share": TOP,
        "noise_radius": RADIUS,
        "noise_samples": SAMPLES,
        "seed": seed,
        "versions": {"nbdt": nbdt.__version__, "torch": torch.__version__},
    }
