"""Levels of an explanation: what its maps and regions are worth, and what they cost.

docs/explanations.md has the measured figures. Costs are in times of a forward pass, for a whole path.

- "fast": 1. Grad-CAM: where the object's evidence is; the maps of a path look alike.
- "default": about 20. Grad-CAM sharpened by integrated gradients from the blurred picture (4), and
  tested regions (15), from 9 windows and a proposal for each decision.
- "careful": about 50. The same from 36 windows and three rounds of proposals.

A network without a layer finer than the last keeps the maps of "fast", and one without any layer with
positions gets maps fitted to the tests on a plain grid; ``made["method"]`` says so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from nbdt.decide.paths import Path
from nbdt.errors import check_known
from nbdt.model.model import NBDT

from ..result.explanation import Explanation, Map
from ..result.regions import regrid
from .candidates import cell_grid
from .integrated import cost, finer_layer, sharpened
from .layers import PLAIN_GRID
from .node_maps import chosen_nodes
from .tested import Search, search, verified_regions

FAST, DEFAULT = "fast", "default"
TOGETHER = 16  # images whose candidates run together


@dataclass(frozen=True)
class Level:
    """What a level above "fast" does."""

    along: int  # windows along a side of the picture
    rounds: int  # of proposals


ABOVE: Mapping[str, Level] = {
    DEFAULT: Level(3, 1),
    "careful": Level(6, 3),
}
LEVELS = (FAST, *ABOVE)


def check_level(level: str) -> None:
    """Raise NBDTError, with the choices, for an unknown level."""
    check_known("level", level, LEVELS)


def searches(
    model: NBDT, images: Tensor, paths: Sequence[Path], maps: Sequence[Sequence[Map]], level: str
) -> list[Search]:
    """Return for each image what its candidates did: see `nbdt.explain.maps.tested.search`.

    Args:
        images: (batch, 3, height, width), preprocessed, on the model's device.
        maps: of the decisions of their paths, which guide the search.
        level: "default" or "careful".
    """
    grid = cell_grid(maps[0][0].shape)
    priors = [np.array([regrid(values, *grid) for values in own]) for own in maps]
    above = ABOVE[level]
    return search(model, images, paths, priors, along=above.along, rounds=above.rounds)


def sharper(
    model: NBDT, images: Tensor, paths: Sequence[Path], maps: Sequence[Sequence[Map]]
) -> list[tuple[Map, ...]] | None:
    """Return the maps of levels above "fast" for each image; None without a finer layer.

    Arguments are those of `searches`.
    """
    layer = finer_layer(model, images[:1], maps[0][0].shape[0])
    if layer is None:
        return None
    return [
        sharpened(model, image, chosen_nodes(model, path), own, layer)
        for image, path, own in zip(images, paths, maps, strict=True)
    ]


def at_level(
    model: NBDT,
    images: Tensor,
    found: Sequence[Explanation],
    level: str,
    *,
    sharpen: bool = True,
    counterfactuals: bool = False,
) -> list[Explanation]:
    """Return explanations of a level: with sharper maps and tested regions.

    Args:
        images: (batch, 3, height, width), preprocessed, on the model's device.
        found: their explanations of level "fast".
        level: one of `LEVELS`; for "fast" they are returned as they are.
        sharpen: whether the maps are Grad-CAM, which integrated gradients sharpen.
        counterfactuals: whether to find what flips each decision, beginning with what was tried.
    """
    pairs: list[tuple[Explanation, Search | None]] = []
    for low in range(0, len(found), TOGETHER):
        some, part = images[low:][:TOGETHER], found[low:][:TOGETHER]
        pairs += (
            [(one, None) for one in part]
            if level == FAST
            else _at_level(model, some, part, level, sharpen)
        )
    if not counterfactuals:
        return [one for one, _ in pairs]
    from ..counterfactual import with_counterfactuals

    return [
        with_counterfactuals(model, image, *pair) for image, pair in zip(images, pairs, strict=True)
    ]


def _at_level(
    model: NBDT, images: Tensor, found: Sequence[Explanation], level: str, sharpen: bool
) -> list[tuple[Explanation, Search]]:
    paths, before = [one.path for one in found], [one.maps for one in found]
    seen = searches(model, images, paths, before, level)
    regions = verified_regions(model, images, paths, seen)
    plain = found[0].made["method"] == PLAIN_GRID
    maps = sharper(model, images, paths, before) if sharpen and not plain else None
    result = []
    for row, (one, tests, tested) in enumerate(zip(found, seen, regions, strict=True)):
        made = {**one.made, "level": level, "passes": 1 + len(tests.masks) + len(tests.claims)}
        own = one.maps
        if maps:
            made["method"] = f"grad-cam, sharpened by integrated gradients; {made['method']}"
            made["passes"] += cost(len(one.path))
            own = maps[row]
        elif plain:
            own = tuple(tests.maps.astype(np.float32))
        result.append((replace(one, maps=own, tested=tested, made=made), tests))
    return result
