"""The result of an audit: means with 95 % intervals, and the findings in sentences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .methods import CONTROLS

RESAMPLES = 2000
FEWEST = 5  # images that an interval needs; the bootstrap of fewer is too narrow
FEWEST_TO_JUDGE = 30  # images that a verdict needs: the measures of ten differ by ten points
SANE = 0.5  # largest rank correlation with the maps of random weights that passes
CURVES = ("deletion blur", "insertion blur", "deletion mean", "insertion mean")
SIGNED, ABSOLUTE = "randomised: ", "randomised, absolute: "  # followed by what is randomised
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A mean over images and its 95 % interval, by the bootstrap over images."""

    mean: float  # NaN if no image has a value
    low: float  # NaN if fewer than `FEWEST` images have one
    high: float
    images: int  # the number of images with a value

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, with None for NaN."""
        values = {"mean": self.mean, "low": self.low, "high": self.high}
        finite = {key: value if np.isfinite(value) else None for key, value in values.items()}
        return {**finite, "images": self.images}

    def __str__(self) -> str:
        if not np.isfinite(self.mean):
            return "–"
        if not np.isfinite(self.low):
            return f"{self.mean:.3f}"
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def estimate(values: Values, seed: int = 0) -> Estimate:
    """Return the mean of one value an image, with its 95 % percentile bootstrap interval.

    Decisions of one image are not independent: average them first with `per_image`. NaN is ignored.
    """
    finite = values[np.isfinite(values)]
    if not len(finite):
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    if len(finite) < FEWEST:
        return Estimate(float(finite.mean()), float("nan"), float("nan"), len(finite))
    rng = np.random.default_rng(seed)
    means = finite[rng.integers(0, len(finite), (RESAMPLES, len(finite)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Estimate(float(finite.mean()), float(low), float(high), len(finite))


def per_image(values: Values, counts: NDArray[np.int64]) -> Values:
    """Return each image's mean, (images,), of (decisions,) values; NaN is ignored."""
    finite = np.isfinite(values)
    starts = np.cumsum(counts) - counts
    total = np.add.reduceat(np.where(finite, values, 0), starts)
    with np.errstate(invalid="ignore"):
        means: Values = total / np.add.reduceat(finite.astype(np.float64), starts)
    return means


@dataclass(frozen=True, eq=False)
class MethodAudit:
    """The measures of one method."""

    method: str  # its name
    # one value an image by the name of the measure; NaN where it does not apply
    values: Mapping[str, Values]
    # mean probabilities over decisions, by "deletion blur" and so on, at equal steps from no region
    # to all regions
    curves: Mapping[str, Values]
    passes: float = float("nan")  # forward passes an image, for its maps
    seconds: float = float("nan")  # an image, for its maps

    @cached_property
    def estimates(self) -> dict[str, Estimate]:
        """Mean and 95 % interval of every measure."""
        return {name: estimate(values) for name, values in self.values.items()}

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "method": self.method,
            "measures": {name: value.to_dict() for name, value in self.estimates.items()},
            "curves": {name: values.tolist() for name, values in self.curves.items()},
            "passes": self.passes,
            "seconds": self.seconds,
        }


@dataclass(frozen=True, eq=False)
class Audit:
    """How far explanations can be trusted: every method's measures, and what they show."""

    methods: Mapping[str, MethodAudit]  # by name, in the order requested
    made: Mapping[str, Any]  # model, hierarchy, images, decisions, grid, settings, seed, versions
    findings: Sequence[str]  # merits and failures of each method, in sentences

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "format": "nbdt-audit",
            "version": 1,
            "made": dict(self.made),
            "findings": list(self.findings),
            "methods": [method.to_dict() for method in self.methods.values()],
        }


def findings(methods: Mapping[str, MethodAudit], images: int) -> list[str]:
    """Return sentences on every method that is no control, in order; none on too few images."""
    if images < FEWEST_TO_JUDGE:
        return [f"No verdict: {images} images were audited; it takes {FEWEST_TO_JUDGE}."]
    return [
        f"{name}: {sentence}"
        for name, method in methods.items()
        if name not in CONTROLS
        for sentence in (_faithful(methods, name), _specific(method), _sane(method))
    ]


def beaten(methods: Mapping[str, MethodAudit], name: str) -> dict[str, list[str]]:
    """Return for each curve the controls that a method beats image by image, by an interval.

    Deletion should fall early (a small area), insertion rise early (a large one).
    """
    won: dict[str, list[str]] = {}
    for curve in CURVES:
        sign = -1 if curve.startswith("deletion") else 1
        own = methods[name].values[curve]
        gains = {control: sign * (own - methods[control].values[curve]) for control in CONTROLS}
        won[curve] = [control for control, gain in gains.items() if estimate(gain).low > 0]
    return won


def _faithful(methods: Mapping[str, MethodAudit], name: str) -> str:
    won = beaten(methods, name)
    lost = [
        f"{control} under {curve}"
        for curve, controls in won.items()
        for control in CONTROLS
        if control not in controls
    ]
    if not lost:
        return "finds what decides: better than both controls on every curve."
    if not any(won.values()):
        return "FAILS to find what decides: better than a random map or the centre on no curve."
    return f"finds what decides in part: no better, or not surely, than {', '.join(lost)}."


def _specific(method: MethodAudit) -> str:
    kinds = {"specificity path_share": "of comparisons along a path", "swap": "of swaps of maps"}
    pairs = [[method.estimates[f"{kind} {name}"] for name in ("blur", "mean")] for kind in kinds]
    if not pairs[0][0].images:
        return "specificity does not apply: every path has a single decision."
    shown = ", ".join(
        f"{' and '.join(f'{value.mean:.0%}' for value in pair)} {what}"
        for pair, what in zip(pairs, kinds.values(), strict=True)
    )
    values = [value for pair in pairs for value in pair]
    if all(value.low > 0.5 for value in values):
        word = "is specific: its top regions move their own decision more than others"
    elif all(value.mean <= 0.5 for value in values):
        word = "FAILS to be specific to its decision"
    else:
        word = "is not surely specific to its decision"
    return f"{word} ({shown}, blur and mean; one map for all decisions wins at most half)."


def _sane(method: MethodAudit) -> str:
    stage, what = "all", "all weights are"
    if f"{SIGNED}all" not in method.estimates:  # a backbone in ONNX stays as it is
        stage, what = "head", "the weights of the last layer are"
    value = max(abs(method.estimates[f"{kind}{stage}"].mean) for kind in (SIGNED, ABSOLUTE))
    if value > SANE:
        return (
            f"FAILS the sanity check: its maps hardly change (rank correlation {value:.2f}) when "
            f"{what} replaced by random ones."
        )
    return f"passes the sanity check (rank correlation {value:.2f} when {what} replaced by random ones)."
