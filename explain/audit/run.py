"""`audit`: how far a model's explanations can be trusted, measured against controls."""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nbdt.errors import NBDTError
from nbdt.model.cascade import refuse_cascade
from nbdt.model.fingerprint import model_hash
from nbdt.model.model import NBDT
from nbdt.progress import Progress, no_progress
from nbdt.runtime.accelerate import made_with

from ..inputs import checked
from ..maps.candidates import SHARE, cell_grid
from ..maps.hiding import BASELINES
from ..maps.layers import any_layer
from ..maps.log_odds import fixed_spread, pictures_at_once
from ..maps.node_maps import chosen_nodes
from . import perturbation, sanity
from .methods import CONTROLS, Maps, check_method, claims, counted_passes, method_maps
from .result import ABSOLUTE, SIGNED, Audit, MethodAudit, Values, findings, per_image

METHODS = ("default", "careful", "grad-cam", "class grad-cam", "occlusion", *CONTROLS)
STEPS = 8  # of a curve
CHECKED = 8  # images for random weights and noise, which need many maps each


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
        progress: shows progress, first of images, then of noise and of models with random weights.

    Raises NBDTError: a model in training mode, images of another shape, or an unknown method.
    """
    refuse_cascade(model, "audited", "Audit each of the two models.")
    names = _checked_methods(model, images, methods)
    audited = _Audited(model, images, names, checked, np.random.default_rng(seed))
    for row in progress(range(len(images)), len(images), "images"):
        audited.measure(row)
    again = audited.repeat(seed, progress)
    results = {method: audited.summarise(method, again[method]) for method in names}
    return Audit(results, audited.made(seed), findings(results, len(images)))


class _Audited:
    """The images under audit, the model's answers, and what was measured."""

    def __init__(
        self,
        model: NBDT,
        images: Tensor,
        methods: Sequence[str],
        checked: int,
        rng: np.random.Generator,
    ) -> None:
        self.model, self.images, self.methods, self.rng = model, images, methods, rng
        with torch.inference_mode():
            size = pictures_at_once(model, images)
            paths = [path for part in images.split(size) for path in model.paths(part)]
        self.nodes = [chosen_nodes(model, path) for path in paths]
        self.spread = fixed_spread(model)
        self.grid = cell_grid(any_layer(model, images[:1]).activations.shape)
        self.checked = min(checked, len(images))
        # By method: its maps of the checked images, passes and seconds, and its measures by name.
        self.maps: dict[str, Maps] = defaultdict(list)
        self.costs: dict[str, Values] = defaultdict(lambda: np.zeros(2))
        self.measured: dict[str, dict[str, list[Values]]] = {
            method: defaultdict(list) for method in methods
        }

    def measure(self, row: int) -> None:
        """Measure all methods on one image."""
        image, nodes = self.images[row : row + 1], [self.nodes[row]]
        trials = perturbation.Trials(self.model, image[0], nodes[0], self.grid)
        for method in self.methods:
            start = time.perf_counter()
            with counted_passes(self.model) as passes:
                maps, regions = claims(self.model, image, nodes, method, self.rng)
            self.costs[method] += sum(passes), time.perf_counter() - start
            if row < self.checked:
                self.maps[method] += maps
            for name, values in self._measures(trials, maps, regions):
                self.measured[method][name].append(values)

    def _measures(
        self, trials: perturbation.Trials, maps: Maps, regions: Maps
    ) -> Iterator[tuple[str, Values]]:
        """Yield the measures of an image's maps by name: a value or a curve for each decision."""
        order = perturbation.ranked(maps[0], self.grid, self.rng)
        tops = perturbation.top(order, SHARE)
        if regions is not maps:
            tops = np.stack(regions[0]).astype(bool)
        for baseline in BASELINES:
            pair = perturbation.curves(trials, order, baseline, STEPS)
            for kind, curve in zip(("deletion", "insertion"), pair, strict=True):
                yield f"{kind} {baseline}", curve
            after = trials.log_odds(tops, baseline)
            spread = self.spread[trials.nodes]
            specific = perturbation.specificity(trials.before, after, spread)
            yield f"specificity path_share {baseline}", specific
            yield f"swap {baseline}", perturbation.swap(trials.before, after)

    def repeat(self, seed: int, progress: Progress) -> dict[str, dict[str, Values]]:
        """Compare maps with those under noise and with random weights: a value for each decision."""
        images, nodes = self.images[: self.checked], self.nodes[: self.checked]
        values: dict[str, dict[str, Values]] = {method: {} for method in self.maps}
        for _ in progress(range(sanity.SAMPLES), sanity.SAMPLES, "times noise"):
            changed = sanity.noisy(self.model, images, self.rng)
            for method, before in self.maps.items():
                after = method_maps(self.model, changed, nodes, method, self.rng)
                worst = values[method].get("max sensitivity", np.array(0.0))
                change = sanity.sensitivity(before, after)
                values[method]["max sensitivity"] = np.maximum(worst, change)
        changes = sanity.randomised(self.model, seed=seed)
        for stage, model in progress(changes, sanity.STAGES, "models with random weights"):
            for method, before in self.maps.items():
                after = method_maps(model, images, nodes, method, self.rng)
                signed, absolute = sanity.correlations(before, after).T
                values[method][SIGNED + stage] = signed
                values[method][ABSOLUTE + stage] = absolute
        return values

    def summarise(self, method: str, again: Mapping[str, Values]) -> MethodAudit:
        """Return the measures of a method: means over images, and areas and means of curves."""
        counts = np.array([len(path) for path in self.nodes])
        values, mean_curves = {}, {}
        for name, pieces in self.measured[method].items():
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
            **made_with(self.model.backbone, self.model.preprocess.size),
        }


def _checked_methods(model: NBDT, images: Tensor, methods: Sequence[str]) -> Sequence[str]:
    refuse_cascade(model, "audited", "Audit its two models.")
    model.check_evaluating()
    checked(model, images)
    for method in methods:
        check_method(method)
    if not [method for method in methods if method not in CONTROLS]:
        raise NBDTError("Name at least one method that is no control, such as 'grad-cam'.")
    return list(dict.fromkeys([*methods, *CONTROLS]))
