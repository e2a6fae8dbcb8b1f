"""Regions of a picture: cells of a coarse grid, and groups of them that touch."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Cell = tuple[int, int]  # row and column


@dataclass(frozen=True)
class Region:
    """Cells of a grid that touch each other by a side."""

    cells: tuple[Cell, ...]  # (row, column) of each, in reading order
    grid: tuple[int, int]  # rows and columns of the whole grid

    @property
    def bounds(self) -> tuple[int, int, int, int]:
        """Top, left, bottom and right of the enclosing box in cells; bottom and right are past it."""
        rows, columns = zip(*self.cells, strict=True)
        return min(rows), min(columns), max(rows) + 1, max(columns) + 1

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of the enclosing box as fractions of the picture."""
        top, left, bottom, right = self.bounds
        height, width = self.grid
        return left / width, top / height, right / width, bottom / height


@dataclass(frozen=True)
class TestedRegion:
    """A part of the picture that was hidden to see what it does to one decision of a path.

    It lowered the chosen child's log-odds, and lowered them more than it changed those of any other
    decision on the path: when it was blurred, and when it took the picture's mean colour.
    """

    regions: tuple[Region, ...]  # its pieces, the largest first
    log_odds: tuple[float, float, float]  # of the chosen child: whole picture, blurred, mean colour
    # by way of hiding, blur and mean colour: the fall of this decision and the largest change of
    # another one, in standard deviations of their log-odds over many photographs
    changes: tuple[tuple[float, float], tuple[float, float]]
    share: float  # of the picture, from 0 to 1

    @property
    def probabilities(self) -> tuple[float, float, float]:
        """Of the chosen child among its siblings: whole picture, blurred, mean colour."""
        whole, blurred, mean = (0.5 + math.tanh(odds / 2) / 2 for odds in self.log_odds)
        return whole, blurred, mean


def cell_mask(regions: Sequence[Region]) -> NDArray[np.float32]:
    """Return (rows, columns): 1 in the cells of regions, which share a grid, and 0 elsewhere."""
    mask = np.zeros(regions[0].grid, dtype=np.float32)
    for cell in (cell for region in regions for cell in region.cells):
        mask[cell] = 1
    return mask


@dataclass(frozen=True)
class AlikeRegions:
    """Where a photograph and the nearest training photograph of one side are alike to the network.

    Similarities are cosines of the network's features, weighted by what moved the decision.
    """

    decision: int  # its position on the path
    side: str  # of its evidence, whose first photograph it is: "chosen" or "rejected"
    regions: tuple[Region, ...]  # in the photograph: the decision's tested region, or the map's top
    theirs: tuple[Region, ...]  # what is most like it in the training photograph
    similarity: float  # of both regions, in [−1, 1]
    elsewhere: float  # of the region and the rest of the training photograph


def connected(cells: Iterable[Cell], grid: tuple[int, int]) -> tuple[Region, ...]:
    """The cells as regions, the largest first."""
    from scipy.ndimage import label

    mask = np.zeros(grid, dtype=bool)
    for cell in cells:
        mask[cell] = True
    labels, count = label(mask)
    found = [np.argwhere(labels == number) for number in range(1, count + 1)]
    regions = [Region(tuple((int(r), int(c)) for r, c in places), grid) for places in found]
    return tuple(sorted(regions, key=lambda region: (-len(region.cells), region.cells)))


def regrid(values: NDArray[np.floating[Any]], rows: int, columns: int) -> NDArray[np.float64]:
    """Sums of a map over a coarser grid; a position on a border is shared by area.

    Nothing is lost: the result's sum is the map's.

    Args:
        values: (…, height, width).
        rows, columns: of the result.
    """
    height, width = values.shape[-2:]
    return _overlaps(rows, height) @ values.astype(np.float64) @ _overlaps(columns, width).T


def _overlaps(parts: int, length: int) -> NDArray[np.float64]:
    """(parts, length): the share of each of `length` equal intervals inside each of `parts`."""
    starts = np.arange(parts)[:, None] * (length / parts)
    inside = np.minimum(starts + length / parts, np.arange(length) + 1)
    shared: NDArray[np.float64] = np.clip(inside - np.maximum(starts, np.arange(length)), 0, 1)
    return shared


def upsampled(values: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """A map at another resolution, interpolated bicubically; raw and signed as it was."""
    size, cubic = (width, height), Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(values.astype(np.float32)).resize(size, cubic))
