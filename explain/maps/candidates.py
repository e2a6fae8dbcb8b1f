"""Sets of cells worth hiding: compact windows, and what a map proposes; masks are bool arrays."""

from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Grid = tuple[int, int]  # rows and columns of cells
Values = NDArray[np.float64]

SHARE = 0.2  # of the cells: what a candidate hides
SIDES = 4, 16  # fewest and most cells along a side
SMOOTH = 0.7  # standard deviation of the smoothing before a region grows, in cells


def cell_grid(shape: tuple[int, ...]) -> Grid:
    """Return the grid of cells for maps of a shape (…, height, width): theirs, within `SIDES`."""
    rows, columns = (min(max(side, SIDES[0]), SIDES[1]) for side in shape[-2:])
    return rows, columns


def windows(grid: Grid, along: int) -> Mask:
    """Return overlapping windows of `SHARE` of the cells, (windows, rows, columns).

    There are `along` × `along`, evenly spaced from edge to edge; where cells are few, equal ones are
    left out.
    """
    spans = []
    for side in grid:
        length = max(1, round(SHARE**0.5 * side))
        starts = np.unique(np.linspace(0, side - length, along).round().astype(int))
        spans.append(
            [(start <= np.arange(side)) & (np.arange(side) < start + length) for start in starts]
        )
    return np.array([rows[:, None] & columns for rows, columns in product(*spans)])


def grown(values: Values) -> Mask:
    """Return `SHARE` of the cells as one piece: it grows from the maximum to the best neighbours.

    `values`: (rows, columns), smoothed first, so that the piece is compact.
    """
    from scipy.ndimage import binary_dilation, gaussian_filter

    smooth = gaussian_filter(values.astype(np.float64), SMOOTH, mode="nearest")
    mask: Mask = smooth == -np.inf
    mask[np.unravel_index(smooth.argmax(), smooth.shape)] = True
    while mask.sum() < round(SHARE * mask.size):
        beside = np.where(binary_dilation(mask) & ~mask, smooth, -np.inf)
        mask[np.unravel_index(beside.argmax(), mask.shape)] = True
    return mask


def beyond_others(maps: Values) -> Values:
    """Return each map minus the mean size of the others on the path, (decisions, rows, columns)."""
    count = len(maps)
    if count == 1:
        return maps
    sizes = np.abs(maps)
    excess: Values = maps - (sizes.sum(axis=0) - sizes) / (count - 1)
    return excess


def distinct(masks: Sequence[Mask]) -> Mask:
    """Return the masks without repetitions, in order."""
    unique = {mask.tobytes(): mask for mask in masks}
    return np.array([*unique.values()])
