"""`audit`: how far a model's explanations can be trusted, measured against controls."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import nbdt
from nbdt.errors import NBDTError
from nbdt.model.fingerprint import model_hash
from nbdt.model.model import NBDT

from ..maps.log_odds import measured_log_odds
from .methods import CONTROLS, Maps, check_method, has_feature_map, method_maps
from .result import Estimate, estimate, per_image
from .findings import findings
from .perturbation import BASELINES, Grid, area, curves, ranked, without_top
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
from .specificity import TOP, specificity, spreads

METHODS = (
    "grad-cam", "class grad-cam", "integrated gradients", "occlusion", "saliency",
    *CONTROLS,
)  # fmt: skip
STEPS = 8  # of a curve
CHECKED = 8  # images for randomised weights and noise, which cost many maps each
CHUNK = 8  # images whose maps are in memory together
SIGNED, ABSOLUTE = "randomised: ", "randomised, absolute: "
GRID_SIDES = 4, 16  # fewest and most regions along a side

Values = NDArray[np.float64]
Watch = Callable[[int], None]


@dataclass(frozen=True, eq=False)
class MethodAudit:
    """What was measured of one method.

    Attributes:
        method: its name.
        values: one value an image by the measure's name; NaN where it does not apply.
        curves: the mean probabilities over decisions, by "deletion blur" and so on, at equal steps
            from no region to all.
        sanity, absolute_sanity: mean rank correlation with the maps of randomised weights, by what
            is randomised: of the maps, and of their absolute values.
    """

    method: str
    values: Mapping[str, Values]
    curves: Mapping[str, Values]
    sanity: Mapping[str, float]
    absolute_sanity: Mapping[str, float]

    @cached_property
    def estimates(self) -> dict[str, Estimate]:
        """Mean and 95 % interval of every measure."""
        return {name: estimate(values) for name, values in self.values.items()}

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "method": self.method,
            "measures": {name: found.to_dict() for name, found in self.estimates.items()},
            "curves": {name: values.tolist() for name, values in self.curves.items()},
            "sanity": dict(self.sanity),
            "absolute_sanity": dict(self.absolute_sanity),
        }


@dataclass(frozen=True, eq=False)
class Audit:
    """How far explanations can be trusted: every method's measures, and what follows from them.

    Attributes:
        methods: by name, in the order that was asked for.
        made: how: model, hierarchy, images, decisions, grid, settings, seed, versions.
    """

    methods: Mapping[str, MethodAudit]
    made: Mapping[str, Any]

    @property
    def findings(self) -> list[str]:
        """What the measures say of each method, in sentences; failures included."""
        return findings(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "format": "nbdt-audit",
            "version": 1,
            "made": dict(self.made),
            "findings": self.findings,
            "methods": [found.to_dict() for found in self.methods.values()],
        }


def audit(
    model: NBDT,
    images: Tensor,
    *,
    methods: Sequence[str] | None = None,
    steps: int = STEPS,
    checked: int = CHECKED,
    seed: int = 0,
    watch: Watch = lambda _: None,
) -> Audit:
    """Measure the explanations of a model's own paths on images.

    Args:
        model: in evaluation mode; it is not changed.
        images: (batch, 3, height, width) of what `model.preprocess` returns. No labels are needed:
            what is judged is whether a map tells what moved the model, right or wrong.
        methods: see `known_methods`; by default `METHODS`, as far as the network allows them.
        steps: points of a curve after the first.
        checked: of so many images the maps are made again under noise and with fresh weights.
        seed: of the controls, of ties, noise and fresh weights.
        watch: told the number of steps done, out of `count_steps`.

    Raises:
        NBDTError: a model in training mode, images of another shape, or an unknown method.
    """
    names = _checked_methods(model, images, methods)
    subject = _Subject.of(model, images, checked, np.random.default_rng(seed))
    measured: dict[str, defaultdict[str, list[Values]]] = {m: defaultdict(list) for m in names}
    kept: dict[str, Maps] = {method: [] for method in names}
    for low in range(0, len(images), CHUNK):
        part = slice(low, low + CHUNK)
        for method in names:
            maps = method_maps(model, images[part], subject.nodes[part], method, subject.rng)
            for name, values in _measure(subject, part, method, maps, steps):
                measured[method][name].append(values)
            kept[method] += maps[: max(0, subject.checked - low)]
            watch(len(images[part]))
    again = _repeat(subject, kept, seed, watch)
    found = {
        method: _summarised(method, measured[method], again[method], subject) for method in names
    }
    return Audit(found, _made(subject, steps, seed))


def count_steps(images: int, methods: int, checked: int = CHECKED) -> int:
    """How much `watch` will have been told at the end."""
    return methods * (images + min(checked, images) * (STAGES + SAMPLES))


def default_methods(model: NBDT, images: Tensor) -> tuple[str, ...]:
    """`METHODS`, without those that this network's layers do not allow."""
    if has_feature_map(model, images):
        return METHODS
    return tuple(name for name in METHODS if name not in {"layer grad-cam", "class grad-cam"})


@dataclass(frozen=True, eq=False)
class _Subject:
    """The images under audit, and the model's answers to them."""

    model: NBDT
    images: Tensor
    nodes: list[list[int]]
    log_odds: Values
    spread: Values
    grid: Grid
    checked: int
    rng: np.random.Generator

    @classmethod
    def of(cls, model: NBDT, images: Tensor, checked: int, rng: np.random.Generator) -> _Subject:
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
    """The positions of the model's own maps, within `GRID_SIDES`."""
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
    wanted = [*methods, *(name for name in CONTROLS if name not in methods)]
    return list(dict.fromkeys(wanted))


# ---- measured --------------------------------------------------------------------------------


def _measure(
    subject: _Subject, part: slice, method: str, maps: Maps, steps: int
) -> Iterator[tuple[str, Values]]:
    """Every measure of some images' maps: one value, or one curve, a decision."""
    model, images, nodes = subject.model, subject.images[part], subject.nodes[part]
    order = ranked(maps, nodes, subject.grid, subject.rng)
    for baseline in BASELINES:
        pair = curves(model, images, order, baseline, steps)
        for kind, curve in zip(("deletion", "insertion"), pair, strict=True):
            yield f"{kind} {baseline}", curve
        after = without_top(model, images, order, baseline, TOP).astype(np.float64)
        found = specificity(subject.log_odds[part], after, nodes, subject.spread, model.hierarchy)
        for name, values in vars(found).items():
            yield f"specificity {name} {baseline}", values
    errors = completeness_error(model, images, nodes, maps, method)
    if errors is not None:
        yield "completeness error", errors


def _repeat(
    subject: _Subject, kept: Mapping[str, Maps], seed: int, watch: Watch
) -> dict[str, dict[str, Values]]:
    """The maps of some images again, under noise and with fresh weights: one value a decision."""
    images, nodes = subject.images[: subject.checked], subject.nodes[: subject.checked]
    found: dict[str, dict[str, Values]] = {method: {} for method in kept}
    for _ in range(SAMPLES):
        changed = noisy(subject.model, images, subject.rng)
        for method, before in kept.items():
            after = method_maps(subject.model, changed, nodes, method, subject.rng)
            worst = found[method].get("max sensitivity", np.array(0.0))
            found[method]["max sensitivity"] = np.maximum(worst, sensitivity(before, after))
            watch(len(images))
    for stage, model in randomised(subject.model, seed=seed):
        for method, before in kept.items():
            after = method_maps(model, images, nodes, method, subject.rng)
            signed, absolute = correlations(before, after).T
            found[method][SIGNED + stage] = signed
            found[method][ABSOLUTE + stage] = absolute
            watch(len(images))
    return found


def _summarised(
    method: str, parts: Mapping[str, list[Values]], again: Mapping[str, Values], subject: _Subject
) -> MethodAudit:
    counts = np.array([len(path) for path in subject.nodes])
    whole = {name: np.concatenate(values) for name, values in parts.items()}
    lines = {name: values for name, values in whole.items() if values.ndim == 2}
    single = {name: area(v) if v.ndim == 2 else v for name, v in whole.items()}
    values = {name: per_image(v, counts) for name, v in single.items()}
    values |= {name: per_image(v, counts[: subject.checked]) for name, v in again.items()}
    mean_curves = {
        name: np.array([per_image(point, counts).mean() for point in v.T])
        for name, v in lines.items()
    }
    return MethodAudit(
        method, values, mean_curves, _means(values, SIGNED), _means(values, ABSOLUTE)
    )


def _means(values: Mapping[str, Values], prefix: str) -> dict[str, float]:
    return {
        name.removeprefix(prefix): float(found.mean())
        for name, found in values.items()
        if name.startswith(prefix)
    }


def _made(subject: _Subject, steps: int, seed: int) -> Mapping[str, Any]:
    return {
        "model": model_hash(subject.model),
        "architecture": subject.model.architecture,
        "rule": subject.model.rule,
        "hierarchy": subject.model.hierarchy.hash,
        "images": len(subject.images),
        "decisions": sum(map(len, subject.nodes)),
        "checked_images": subject.checked,
        "regions": list(subject.grid),
        "steps": steps,
        "top_share": TOP,
        "noise_radius": RADIUS,
        "noise_samples": SAMPLES,
        "seed": seed,
        "versions": {"nbdt": nbdt.__version__, "torch": torch.__version__},
    }
