"""Which regions of a photograph and of its nearest training photographs are alike to the network.

At the closest decision, the nearest photograph of each side is compared with what moved the decision:
its tested region, or where none was found the part that its map supports most. A cell of the other
photograph scores its cosines with the cells of that region, weighted by the map. What is alike grows from
the highest score, to the size of a tested region.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from nbdt.images.image import ImageError
from nbdt.model.model import NBDT

from ..maps.candidates import Mask, Values, cell_grid, grown
from ..maps.layers import Layer, map_layer
from ..result.explanation import Explanation
from ..result.regions import AlikeRegions, Region, connected, regrid

NO_POSITIONS = "This network has no layer with positions, so no regions are compared."


def with_alike(model: NBDT, layer: Layer, explanations: Sequence[Explanation]) -> list[Explanation]:
    """Return explanations with the regions that are alike, for each side of the closest decision.

    It costs each one forward pass of at most two pictures. Where a picture is
    missing, or the layer has no positions, ``made["not_compared"]`` says so. Those without evidence stay as they are.
    """
    return [
        found
        if (index := found.closest_with_evidence) is None
        else _compared(model, layer, row, found, index)
        for row, found in enumerate(explanations)
    ]


def _compared(model: NBDT, layer: Layer, row: int, found: Explanation, index: int) -> Explanation:
    made, pictures = dict(found.made), dict[str, Image.Image]()
    for side, near in found.evidence[index].sides.items():
        try:
            pictures[side] = near[0].open()
        except ImageError as error:
            made["not_compared"] = str(error)
    if layer.is_plain:
        made["not_compared"], pictures = NO_POSITIONS, {}
    if not pictures:
        return replace(found, made=made)
    prepare = replace(model.preprocess, crop_pct=1.0)  # they are what the network saw
    batch = torch.stack([prepare(picture) for picture in pictures.values()])
    others = map_layer(model, batch.to(model.device)).activations
    made["passes"] = made.get("passes", 1) + len(batch)
    mask, weights = moving(found, index)
    own, alike = _cells(layer.activations[row]), []
    weights = regrid(weights, *own.shape[1:])  # another model of a cascade may have made the map
    for side, other in zip(pictures, map(_cells, others), strict=True):
        values = scores(own, other, weights)
        theirs = grown(values)
        alike.append(
            AlikeRegions(
                index, side, _pieces(mask), _pieces(theirs),
                float(values[theirs].mean()), float(values[~theirs].mean()),
            )
        )  # fmt: skip
    return replace(found, alike=tuple(alike), made=made)


def moving(found: Explanation, index: int) -> tuple[Mask, Values]:
    """Return what moved a decision, (rows, columns): its cells, and the weight of each, of sum 1."""
    values = regrid(found.maps[index], *cell_grid(found.maps[index].shape))
    mask, tested = grown(values), found.tested[index] if found.tested else None
    if tested is not None:
        mask[:] = False
        for cell in (cell for piece in tested.regions for cell in piece.cells):
            mask[cell] = True
    weights = np.where(mask, np.maximum(values, 0), 0)
    weights = weights if weights.any() else mask.astype(np.float64)
    return mask, weights / weights.sum()


def scores(own: Values, other: Values, weights: Values) -> Values:
    """Return the weighted mean cosine of each cell of a picture with the cells of another.

    Args:
        own: (channels, rows, columns) of the picture with weights.
        other: the same of the other picture, whose grid may be another.
        weights: (rows, columns), of sum 1.

    Returns:
        (rows, columns) of the other picture, in [−1, 1].
    """
    one, two = (v / np.maximum(np.linalg.norm(v, axis=0), 1e-12) for v in (own, other))
    found: Values = np.tensordot(np.tensordot(one, weights, axes=2), two, axes=1)
    return found


def _cells(values: Tensor) -> Values:
    """(channels, rows, columns) of the cells from (channels, height, width) of a layer."""
    return regrid(values.float().cpu().numpy(), *cell_grid(tuple(values.shape)))


def _pieces(mask: Mask) -> tuple[Region, ...]:
    return connected(map(tuple, np.argwhere(mask)), (mask.shape[0], mask.shape[1]))
