"""Fonts and colours that every picture of a hierarchy shares."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from nbdt.tree.hierarchy import Hierarchy

if TYPE_CHECKING:
    from PIL import ImageFont


@cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans, which matplotlib ships, at a height of `size` pixels."""
    import matplotlib as mpl
    from PIL import ImageFont

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(mpl.get_data_path()) / "fonts" / "ttf" / name, size)


def fitting(text: str, size: int, *, width: float, bold: bool = False) -> str:
    """Return the text, or as much of its beginning as fits into `width` pixels, and "…"."""
    letters = font(size, bold)
    if letters.getlength(text) <= width:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if letters.getlength(text[:middle] + "…") <= width:
            low = middle
        else:
            high = middle - 1
    return text[:low].rstrip() + "…"


def hues(hierarchy: Hierarchy) -> list[float | None]:
    """Return each node's angle on the colour wheel, in degrees; None for nodes without a colour.

    The topmost nodes with at most a third of the classes get a colour each, and pass it on to all
    nodes below them. Colours by level would give a tree that begins "entity, physical entity" one
    colour only.
    """
    size = [len(span) for span in hierarchy.spans]
    most = max(1, hierarchy.num_classes / 3)
    tops = [n for n in range(1, len(size)) if size[n] <= most < size[hierarchy.parents[n]]]
    angles: list[float | None] = [None] * hierarchy.num_nodes
    total, before = sum(math.sqrt(size[node]) for node in tops), 0.0
    for node in sorted(tops, key=lambda node: hierarchy.spans[node].start):
        share = math.sqrt(size[node]) / total
        angles[node] = 30 + 330 * (before + share / 2)
        before += share
    for node in range(1, hierarchy.num_nodes):
        angles[node] = angles[hierarchy.parents[node]] if angles[node] is None else angles[node]
    return angles
