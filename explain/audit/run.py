"""`audit`: how far a model's explanations can be trusted, measured against controls."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

import nbdt
from nbdt.errors import NBDTError
from nbdt.model.fingerprint import model_hash
from nbdt.model.model import NBDT
from nbdt.progress import Progress, no_progress

from ..maps.log_odds import measured_log_odds
from . import perturbation, sanity
from .methods import CONTROLS, Maps, check_method, method_maps
from .result import ABSOLUTE, SIGNED, Audit, MethodAudit, Values, findings, per_image

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
    methods: Sequence[str] = METHODS,
    checked: int = CHECKED,
    seed: int = 0,
    progress: Progress = no_progress,
) -> Audit:
    """Measure the explanations of a model's own paths on images.

    Args:
        model: in evaluation mode; it is not changed.
        images: (batch, 3, height, width) of what `model.preprocess` returns. No labels are needed:
            the audit asks whether a map shows what moved the model, right or wrong.
        methods: see `known_methods`.
        checked: images whose maps are repeated under noise and with random weights.
        seed: for the controls, ties, noise and random weights.
        progress: shows progress, first of images, then of changed images and models.

    Raises:
        NBDTError: a model in training mode, images of another shape, or an unknown method.
    """
    names = _checked_methods(model, images, methods)
    audited = _Audited(model, images, checked, np.random.default_rng(seed))
    measured: dict[str, defaultdict[str, list[Values]]] = {m: defaultdict(list) for m in names}
    first_maps: dict[str, Maps] = {method: [] for method in names}
    starts = range(0, len(images), CHUNK)
    for low in progress(starts, len(starts), f"times {CHUNK} images"):
        part = slice(low, low + CHUNK)
        for method in names:
            maps = method_maps(model, images[part], audited.nodes[part], method, audited.rng)
            for name, values in audited.measure(part, method, maps):
                measured[method][name].append(values)
            first_maps[method] += maps[: max(0, audited.checked - low)]
    again = audited.repeat(first_maps, seed, progress)
    results = {
        method: audited.summarise(method, measured[method], again[method]) for method in names
    }
    return Audit(results, audited.made(seed), findings(results))


class _Audited:
    """The images under audit and the model's answers."""

    def __init__(self, model: NBDT, images: Tensor, checked: int, rng: np.random.Generator) -> None:
        self.model, self.images, self.rng = model, images, rng
        with torch.inference_mode():
            paths = [path for part in images.split(CHUNK) for path in model.paths(part)]
        self.nodes = [model.hierarchy.path_of_class(path.class_index)[1:] for path in paths]
        self.log_odds: Values = measured_log_odds(model, images).double().numpy()
        self.spread = perturbation.spreads(self.log_odds)
        self.grid = _grid(method_maps(model, images[:1], self.nodes[:1], "grad-cam"))
        self.checked = min(checked, len(images))

    def measure(self, part: slice, method: str, maps: Maps) -> Iterator[tuple[str, Values]]:
        """Yield the measures of some images' maps by name: a value or a curve for each decision."""
        model, images, nodes = self.model, self.images[part], self.nodes[part]
        order = perturbation.ranked(maps, nodes, self.grid, self.rng)
        for baseline in perturbation.BASELINES:
            pair = perturbation.curves(model, images, order, baseline, STEPS)
            for kind, curve in zip(("deletion", "insertion"), pair, strict=True):
                yield f"{kind} {baseline}", curve
            after = perturbation.without_top(model, images, order, baseline, perturbation.TOP)
            before, spread = self.log_odds[part], self.spread
            specific = perturbation.specificity(before, after, nodes, spread)
            yield f"specificity path_share {baseline}", specific
        errors = sanity.completeness_error(model, images, nodes, maps, method)
        if errors is not None:
            yield "completeness error", errors

    def repeat(
        self, first_maps: Mapping[str, Maps], seed: int, progress: Progress
    ) -> dict[str, dict[str, Values]]:
        """Compare maps with those under noise and with random weights: a value for each decision."""
        images, nodes = self.images[: self.checked], self.nodes[: self.checked]
        values: dict[str, dict[str, Values]] = {method: {} for method in first_maps}
        for _ in progress(range(sanity.SAMPLES), sanity.SAMPLES, "times noise"):
            changed = sanity.noisy(self.model, images, self.rng)
            for method, before in first_maps.items():
                after = method_maps(self.model, changed, nodes, method, self.rng)
                worst = values[method].get("max sensitivity", np.array(0.0))
                values[method]["max sensitivity"] = np.maximum(
                    worst, sanity.sensitivity(before, after)
                )
        changes = sanity.randomised(self.model, seed=seed)
        for stage, model in progress(changes, sanity.STAGES, "models with random weights"):
            for method, before in first_maps.items():
                after = method_maps(model, images, nodes, method, self.rng)
                signed, absolute = sanity.correlations(before, after).T
                values[method][SIGNED + stage] = signed
                values[method][ABSOLUTE + stage] = absolute
        return values

    def summarise(
        self, method: str, parts: Mapping[str, list[Values]], again: Mapping[str, Values]
    ) -> MethodAudit:
        """Return the measures of a method: means over images, and areas and means of curves."""
        counts = np.array([len(path) for path in self.nodes])
        values, mean_curves = {}, {}
        for name, pieces in parts.items():
            measured = np.concatenate(pieces)
            if measured.ndim == 2:
                points = [per_image(point, counts).mean() for point in measured.T]
                mean_curves[name] = np.array(points)
                measured = perturbation.area(measured)
            values[name] = per_image(measured, counts)
        values |= {name: per_image(v, counts[: self.checked]) for name, v in again.items()}
        return MethodAudit(method, values, mean_curves)

    def made(self, seed: int) -> Mapping[str, Any]:
        """Return what was audited, and how."""
        return {
            "model": model_hash(self.model),
            "architecture": self.model.architecture,
            "rule": self.model.rule,
            "hierarchy": self.model.hierarchy.hash,
            "images": len(self.images),
            "decisions": sum(map(len, self.nodes)),
            "checked_images": self.checked,
            "regions": list(self.grid),
            "steps": STEPS,
            "top_share": perturbation.TOP,
            "noise_radius": sanity.RADIUS,
            "noise_samples": sanity.SAMPLES,
            "seed": seed,
            "versions": {"nbdt": nbdt.__version__, "torch": torch.__version__},
        }


def _grid(maps: Maps) -> perturbation.Grid:
    """Return the grid of the model's own maps, limited to `GRID_SIDES`."""
    low, high = GRID_SIDES
    height, width = (min(max(side, low), high) for side in maps[0][0].shape)
    return height, width


def _checked_methods(model: NBDT, images: Tensor, methods: Sequence[str]) -> Sequence[str]:
    model.check_evaluating()
    if images.ndim != 4 or images.shape[1] != 3 or not len(images):
        raise NBDTError(
            "Expected images of shape (batch, 3, height, width) with at least one image, got "
            f"{tuple(images.shape)}; torch.stack what model.preprocess returns."
        )
    for method in methods:
        check_method(method)
    if not [method for method in methods if method not in CONTROLS]:
        raise NBDTError("Name at least one method that is no control, such as 'grad-cam'.")
    return list(dict.fromkeys([*methods, *CONTROLS]))
