"""A mean with its 95 % interval, by the bootstrap over images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
FEWEST = 5  # images that an interval needs: fewer, resampled, agree with each other by chance


@dataclass(frozen=True)
class Estimate:
    """A mean over images, and where 95 % of the means of resampled images lie.

    Attributes:
        mean: NaN where no image has a value.
        low, high: NaN where fewer than `FEWEST` images have one.
        images: how many have.
    """

    mean: float
    low: float
    high: float
    images: int

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; None for what is not known."""
        values = {"mean": self.mean, "low": self.low, "high": self.high}
        found = {key: value if np.isfinite(value) else None for key, value in values.items()}
        return {**found, "images": self.images}

    def __str__(self) -> str:
        if not np.isfinite(self.mean):
            return "–"
        if not np.isfinite(self.low):
            return f"{self.mean:.3f}"
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def estimate(values: NDArray[np.float64], seed: int = 0) -> Estimate:
    """The mean of one value an image, and the percentile bootstrap's 95 % interval of it.

    Decisions of one image are not independent: average them first, see `per_image`. NaN is left out.
    """
    known = values[np.isfinite(values)]
    if not len(known):
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    if len(known) < FEWEST:
        return Estimate(float(known.mean()), float("nan"), float("nan"), len(known))
    rng = np.random.default_rng(seed)
    means = known[rng.integers(0, len(known), (RESAMPLES, len(known)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Estimate(float(known.mean()), float(low), float(high), len(known))


def per_image(values: NDArray[np.float64], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """(decisions,) to (images,): each image's mean, `counts` decisions an image; NaN is left out."""
    known = np.isfinite(values)
    starts = np.cumsum(counts) - counts
    total = np.add.reduceat(np.where(known, values, 0), starts)
    with np.errstate(invalid="ignore"):
        found: NDArray[np.float64] = total / np.add.reduceat(known.astype(np.float64), starts)
    return found
