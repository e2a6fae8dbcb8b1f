"""A hierarchy as a drawing, which grows to the right. Names are horizontal; none overlap."""

import colorsys
import math
from bisect import bisect_right
from collections.abc import Sequence
from functools import cache
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from nbdt.tree.hierarchy import Hierarchy

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import ImageFont

MARGIN, SIZE, ROW = 20, 13, 24  # pixels: outer margin, letters, distance between classes
TITLE = 17  # pixels: letters of the title
LONGEST = 320  # pixels of a name; a longer one is cut
WIDEST = 11_000  # pixels of all levels
DPI = 72  # a pixel of a drawing is a point of its figure
TEXT = "#1c1e21"


def draw(hierarchy: Hierarchy, title: str = "") -> "Figure":
    """Return a figure of a hierarchy, at `DPI` dots an inch."""
    from matplotlib.collections import PathCollection
    from matplotlib.figure import Figure
    from matplotlib.path import Path as Curve

    names, bold = hierarchy.names, [bool(children) for children in hierarchy.children]
    labels = [
        fitting(name, SIZE, bold=b, width=LONGEST) for name, b in zip(names, bold, strict=True)
    ]
    lengths = [font(SIZE, b).getlength(label) for label, b in zip(labels, bold, strict=True)]
    lefts, ys = _columns(hierarchy, lengths), _rows(hierarchy, MARGIN + 36.0 * bool(title))
    xs = [lefts[depth] for depth in hierarchy.depths]
    ends = [x + 10 + length for x, length in zip(xs, lengths, strict=True)]
    title = fitting(title, TITLE, bold=True, width=560)
    width = max(*ends, MARGIN + font(TITLE, bold=True).getlength(title)) + MARGIN
    height = max(ys) + ROW / 2 + MARGIN
    figure = Figure((width / DPI, height / DPI), DPI)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    curves = []
    for child, parent in enumerate(hierarchy.parents[1:], start=1):
        right, start = xs[child] - 5, ends[parent] + 6
        points = [
            (start, ys[parent]),
            (right - 20, ys[parent]),
            (right - 20, ys[child]),
            (right, ys[child]),
        ]
        curves.append(Curve(points, [Curve.MOVETO, *3 * [Curve.CURVE4]]))
    colours = [_colour(hue) for hue in hues(hierarchy)]
    axes.add_collection(PathCollection(curves, facecolors="none", edgecolors=colours[1:]))
    axes.scatter(xs, ys, [81 if b else 36 for b in bold], colours, linewidths=0)
    style: dict[str, Any] = {"color": TEXT, "va": "center_baseline", "parse_math": False}
    for x, y, label, strong in zip(xs, ys, labels, bold, strict=True):
        axes.text(x + 10, y, label, size=SIZE, weight="bold" if strong else "normal", **style)
    if title:
        axes.text(MARGIN, MARGIN + 8, title, size=TITLE, weight="bold", **style)
    return figure


def _columns(hierarchy: Hierarchy, lengths: Sequence[float]) -> list[float]:
    """Return the left edge of each level: right of the longest name of the level before.

    The levels of a tree that would be wider than a page move together.
    """
    widths = [0.0] * (hierarchy.depth + 1)
    for depth, length in zip(hierarchy.depths, lengths, strict=True):
        widths[depth] = max(widths[depth], length)
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
def font(size: int, bold: bool = False) -> "ImageFont.FreeTypeFont":
    """Return DejaVu Sans, which matplotlib ships, at a height of `size` pixels."""
    from PIL import ImageFont

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    package = cast(ModuleSpec, find_spec("matplotlib"))  # importing it takes 0.2 s
    folder = Path(cast(str, package.origin)).parent / "mpl-data" / "fonts" / "ttf"
    return ImageFont.truetype(folder / name, size)


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
