"""`audit`: how far a model's explanations can be trusted, measured against controls."""

from __future__ import annotations

import time
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

from ..inputs import checked
from ..maps.candidates import SHARE, cell_grid
from ..maps.log_odds import fixed_spread, measured_log_odds
from . import perturbation, sanity
from .methods import CONTROLS, Maps, check_method, claims, counted_passes, method_maps
from .result import ABSOLUTE, SIGNED, Audit, MethodAudit, Values, findings, per_image

METHODS = ("default", "careful", "grad-cam", "class grad-cam", "occlusion", *CONTROLS)
STEPS = 8  # of a curve
CHECKED = 8  # images for random weights and noise, which need many maps each
CHUNK = 8  # images whose maps are in memory together


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
    work = [(low, method) for low in range(0, len(images), CHUNK) for method in names]
    for low, method in progress(work, len(work), f"times {CHUNK} images"):
        part = slice(low, low + CHUNK)
        found = audited.explained(part, method)
        for name, values in audited.measure(part, method, *found):
            measured[method][name].append(values)
        first_maps[method] += found[0][: max(0, audited.checked - low)]
    again = audited.repeat(first_maps, seed, progress)
    results = {
        method: audited.summarise(method, measured[method], again[method]) for method in names
    }
    return Audit(results, audited.made(seed), findings(results, len(images)))


class _Audited:
    """The images under audit and the model's answers."""

    def __init__(self, model: NBDT, images: Tensor, checked: int, rng: np.random.Generator) -> None:
        self.model, self.images, self.rng = model, images, rng
        with torch.inference_mode():
            paths = [path for part in images.split(CHUNK) for path in model.paths(part)]
        self.nodes = [model.hierarchy.path_of_class(path.class_index)[1:] for path in paths]
        self.log_odds: Values = measured_log_odds(model, images).double().numpy()
        self.spread = fixed_spread(model)
        self.costs: dict[str, Values] = defaultdict(lambda: np.zeros(2))  # passes and seconds
        self.grid = cell_grid(
            method_maps(model, images[:1], self.nodes[:1], "grad-cam")[0][0].shape
        )
        self.checked = min(checked, len(images))

    def explained(self, part: slice, method: str) -> tuple[Maps, Maps]:
        """Return what a method claims about some images, and count what it costs."""
        start = time.perf_counter()
        with counted_passes(self.model) as passes:
            found = claims(self.model, self.images[part], self.nodes[part], method, self.rng)
        self.costs[method] += sum(passes), time.perf_counter() - start
        return found

    def measure(
        self, part: slice, method: str, maps: Maps, regions: Maps
    ) -> Iterator[tuple[str, Values]]:
        """Yield the measures of some images' maps by name: a value or a curve for each decision."""
        model, images, nodes = self.model, self.images[part], self.nodes[part]
        order = perturbation.ranked(maps, nodes, self.grid, self.rng)
        tops = order
        if regions is not maps:
            tops = perturbation.ranked(regions, nodes, self.grid, self.rng)
        for baseline in perturbation.BASELINES:
            pair = perturbation.curves(model, images, order, baseline, STEPS)
            for kind, curve in zip(("deletion", "insertion"), pair, strict=True):
                yield f"{kind} {baseline}", curve
            after = perturbation.without_top(model, images, tops, baseline, SHARE)
            before, spread = self.log_odds[part], self.spread
            specific = perturbation.specificity(before, after, nodes, spread)
            yield f"specificity path_share {baseline}", specific
            yield f"swap {baseline}", perturbation.swap(before, after, nodes)
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
        passes, seconds = self.costs[method] / len(self.images)
        return MethodAudit(method, values, mean_curves, float(passes), float(seconds))

    def made(self, seed: int) -> Mapping[str, Any]:
        """Return what was audited, and how."""
        reference = len(self.model.reference.get("logits", ()))
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
            "top_share": SHARE,
            "spread": f"of {reference} photographs of the model's reference set"
            if reference
            else "none: nats",
            "noise_radius": sanity.RADIUS,
            "noise_samples": sanity.SAMPLES,
            "seed": seed,
            "versions": {"nbdt": nbdt.__version__, "torch": torch.__version__},
        }


def _checked_methods(model: NBDT, images: Tensor, methods: Sequence[str]) -> Sequence[str]:
    model.check_evaluating()
    checked(model, images)
    for method in methods:
        check_method(method)
    if not [method for method in methods if method not in CONTROLS]:
        raise NBDTError("Name at least one method that is no control, such as 'grad-cam'.")
    return list(dict.fromkeys([*methods, *CONTROLS]))
