"""Tiles as the page shows them: the pictures, drawn once by the server, and their alternative texts."""

from collections.abc import Callable, Hashable
from functools import lru_cache, partial
from typing import Any

import numpy as np
from PIL import Image

from nbdt.decide.paths import percent
from nbdt.explain import Explanation
from nbdt.explain.result.drawing import compared, contoured, draw, ground
from nbdt.explain.result.explanation import Map
from nbdt.explain.result.facts import place
from nbdt.explain.result.regions import cell_mask
from nbdt.explain.result.tiles import Tile, region
from nbdt.explain.result.words import say

from ..ui.component import jpeg_url
from ..visitor import Photograph

SIDE, SMALL = 360, 240  # pixels
KEPT = 600  # pictures, of some 40 kB: an edit changes few of those on the page


@lru_cache(maxsize=KEPT)
def _kept(_key: Hashable) -> list[str]:
    """Return where the picture of a key is kept, empty at first; nothing here holds an explanation."""
    return []


def _encoded(key: Hashable, draw: Callable[[], Image.Image]) -> str:
    kept = _kept(key)
    if not kept:
        kept.append(jpeg_url(draw()))
    return kept[0]


def pictures(photo: Photograph, explanation: Explanation, tile: Tile) -> list[dict[str, Any]]:
    """Return the picture of a tile and, if it has one, that of the runner-up beside it."""
    sides = (False, True) if tile.rival else (False,)
    return [_record(photo, explanation, tile, rival=rival) for rival in sides]


def _record(
    photo: Photograph, explanation: Explanation, tile: Tile, *, rival: bool
) -> dict[str, Any]:
    decision, tested = explanation.path.decisions[tile.shown], region(explanation, tile.shown)
    sides, values = [decision.chosen, decision.runner_up], explanation.maps[tile.shown]
    maps = explanation.child_maps[tile.shown][sides] if tile.rival else values
    key = photo.hash, rival, maps.tobytes(), values.shape, tested and tested.regions
    name = say(decision.children[sides[rival]])
    if tested and not rival:
        grid = tested.regions[0].grid
        where = place(cell_mask(tested.regions))
        alt = f"{percent(tested.share)} of the photograph, outlined {where}: tested for {name}"
    else:
        grid = explanation.resolution
        alt = _contours(name, maps[int(rival)] if tile.rival else values)
    drawn = partial(draw, explanation, tile, SIDE, rival=rival)
    return {
        "picture": _encoded(key, drawn),
        "caption": tile.rival if rival else tile.title,
        "alt": alt,
        "grid": grid[::-1],
    }


@lru_cache(maxsize=32)
def alike_pictures(explanation: Explanation) -> list[dict[str, Any]]:
    """Return the photograph and the nearest training photographs, with what is alike outlined."""
    regions = [
        *(one.regions for one in explanation.alike[:1]),
        *(one.theirs for one in explanation.alike),
    ]
    shown = zip(compared(explanation, SMALL), regions, strict=True)
    return [
        {"picture": jpeg_url(image), "caption": text, "alt": text, "grid": own[0].grid[::-1]}
        for (text, image), own in shown
    ]


def map_picture(
    photo: Photograph, explanation: Explanation, values: Map, name: str
) -> dict[str, Any]:
    """Return the picture of any node's map on a photograph."""

    def drawn() -> Image.Image:
        return contoured(ground(explanation, SIDE), values, float(np.abs(values).max()))

    url = _encoded((photo.hash, values.tobytes(), values.shape), drawn)
    return {"picture": url, "alt": _contours(say(name), values), "grid": values.shape[::-1]}


def _contours(name: str, values: Map) -> str:
    """Return what a screen reader reads for a map's contours."""
    return f"The photograph, with contours {place(values)} around what supported {name}"
