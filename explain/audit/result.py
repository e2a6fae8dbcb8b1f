"""The result of an audit as data, and the means with 95 % intervals that it consists of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
FEWEST = 5  # images that an interval needs; the bootstrap of fewer is too narrow
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A mean over images and its 95 % interval, by the bootstrap over images.

    Attributes:
        mean: NaN if no image has a value.
        low, high: NaN if fewer than `FEWEST` images have one.
        images: the number of images with a value.
    """

    mean: float
    low: float
    high: float
    images: int

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


def estimate(values: NDArray[np.float64], seed: int = 0) -> Estimate:
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


def per_image(values: NDArray[np.float64], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return each image's mean, (images,), of (decisions,) values; NaN is ignored."""
    finite = np.isfinite(values)
    starts = np.cumsum(counts) - counts
    total = np.add.reduceat(np.where(finite, values, 0), starts)
    with np.errstate(invalid="ignore"):
        means: Values = total / np.add.reduceat(finite.astype(np.float64), starts)
    return means


@dataclass(frozen=True, eq=False)
class MethodAudit:
    """The measures of one method.

    Attributes:
        method: its name.
        values: one value an image by the name of the measure; NaN where it does not apply.
        curves: mean probabilities over decisions, by "deletion blur" and so on, at equal steps from
            no region to all regions.
        sanity, absolute_sanity: mean rank correlation with the maps of randomised weights, by the
            randomised part: of the maps, and of their absolute values.
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
            "measures": {name: value.to_dict() for name, value in self.estimates.items()},
            "curves": {name: values.tolist() for name, values in self.curves.items()},
            "sanity": dict(self.sanity),
            "absolute_sanity": dict(self.absolute_sanity),
        }


@dataclass(frozen=True, eq=False)
class Audit:
    """How far explanations can be trusted: every method's measures, and what they show.

    Attributes:
        methods: by name, in the order requested.
        made: model, hierarchy, images, decisions, grid, settings, seed, versions.
        findings: merits and failures of each method, in sentences.
    """

    methods: Mapping[str, MethodAudit]
    made: Mapping[str, Any]
    findings: Sequence[str]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "format": "nbdt-audit",
            "version": 1,
            "made": dict(self.made),
            "findings": list(self.findings),
            "methods": [method.to_dict() for method in self.methods.values()],
        }
