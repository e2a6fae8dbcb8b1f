"""A hierarchy as a drawing, PNG or SVG, which grows to the right. Names are horizontal; none overlap."""

from __future__ import annotations

import colorsys
import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from nbdt.tree.hierarchy import Hierarchy

if TYPE_CHECKING:
    from PIL import ImageFont

MARGIN, SIZE, ROW = 20, 13, 24  # pixels: outer margin, letters, distance between classes
LONGEST = 320  # pixels of a name; a longer one is cut
WIDEST = 11_000  # pixels of all levels
TEXT = "#1c1e21"
Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Word:
    """A text that begins at `x`, its middle at `y`."""

    x: float
    y: float
    text: str
    colour: str = TEXT
    bold: bool = False
    size: int = SIZE


@dataclass
class Drawing:
    """Lines, dots and words, in pixels."""

    width: float = 0
    height: float = 0
    strokes: list[tuple[Points, str]] = field(default_factory=list)  # Bézier curves and colours
    dots: list[tuple[float, float, float, str]] = field(default_factory=list)  # x, y, radius
    words: list[Word] = field(default_factory=list)

    def write(self, word: Word) -> float:
        """Add a word and return where it ends."""
        end = word.x + font(word.size, word.bold).getlength(word.text)
        self.words.append(word)
        self.width = max(self.width, end + MARGIN)
        return end


def draw(hierarchy: Hierarchy, title: str = "") -> Drawing:
    """Lay out a hierarchy; `svg` and `png` turn the result into the content of a file."""
    drawing = Drawing()
    top = float(MARGIN)
    if title:
        drawing.write(
            Word(MARGIN, top + 8, fitting(title, 17, bold=True, width=560), size=17, bold=True)
        )
        top += 36
    colours = [_colour(hue) for hue in hues(hierarchy)]
    labels = [fitting(name, SIZE, bold=bool(below), width=LONGEST)
              for name, below in zip(hierarchy.names, hierarchy.children, strict=True)]  # fmt: skip
    lefts = _columns(hierarchy, labels)
    ys = _rows(hierarchy, top)
    for node, label in enumerate(labels):
        x, y, group = lefts[hierarchy.depths[node]], ys[node], bool(hierarchy.children[node])
        drawing.dots.append((x, y, 4.5 if group else 3, colours[node]))
        end = drawing.write(Word(x + 10, y, label, bold=group)) + 6
        for child in hierarchy.children[node]:
            right = lefts[hierarchy.depths[child]] - 5
            middle = right - 20
            curve = ((end, y), (middle, y), (middle, ys[child]), (right, ys[child]))
            drawing.strokes.append((curve, colours[child]))
    drawing.height = top + ROW * hierarchy.num_classes + MARGIN
    return drawing


def _columns(hierarchy: Hierarchy, labels: Sequence[str]) -> list[float]:
    """Return the left edge of each level: right of the longest name of the level before.

    The levels of a tree that would be wider than a page move together.
    """
    widths = [0.0] * (hierarchy.depth + 1)
    for node, label in enumerate(labels):
        length = font(SIZE, bool(hierarchy.children[node])).getlength(label)
        widths[hierarchy.depths[node]] = max(widths[hierarchy.depths[node]], length)
    narrower = min(1.0, WIDEST / sum(width + 60 for width in widths))
    return list(accumulate((narrower * (width + 60) for width in widths), initial=MARGIN + 5.0))


def _rows(hierarchy: Hierarchy, top: float) -> list[float]:
    """Return the height of each node: a class in its row, a group between its outer children."""
    ys = [top + ROW * (span.start + 0.5) for span in hierarchy.spans]
    for node in reversed(hierarchy.inner_nodes):
        below = hierarchy.children[node]
        ys[node] = (ys[below[0]] + ys[below[-1]]) / 2
    return ys


def _colour(hue: float | None) -> str:
    """Return a colour that is dark enough for letters on white."""
    if hue is None:
        return TEXT
    parts = colorsys.hls_to_rgb(hue % 360 / 360, 0.34, 0.62)
    return "#" + "".join(f"{round(255 * part):02x}" for part in parts)


@cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans, which matplotlib ships, at a height of `size` pixels."""
    import matplotlib as mpl
    from PIL import ImageFont

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(mpl.get_data_path(), "fonts", "ttf", name), size)


def fitting(text: str, size: int, *, width: float, bold: bool = False) -> str:
    """Return the text, or as much of its beginning as fits into `width` pixels, and "…"."""
    letters = font(size, bold)
    if letters.getlength(text) <= width:
        return text
    longer = bisect_right(
        range(len(text)), width, key=lambda count: letters.getlength(text[:count] + "…")
    )
    return text[: max(0, longer - 1)].rstrip() + "…"


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
