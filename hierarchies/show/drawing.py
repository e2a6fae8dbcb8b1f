"""A hierarchy as a drawing, PNG or SVG: branches for few classes, an indented index for many.

Every name is horizontal and no two overlap. A tree of up to 60 classes grows to the right. A larger
one fills columns like the index of a book; each column begins with the groups that it continues.
"""

from __future__ import annotations

import colorsys
import html
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from PIL import Image, ImageDraw

from nbdt.errors import NBDTError
from nbdt.tree.hierarchy import Hierarchy

from .style import fitting, font, hues

MAX_BRANCHES, MAX_LEVELS = 60, 12  # classes and levels drawn as branches; more as an index
MARGIN, SIZE, ROW = 20, 13, 24  # pixels: outer margin, letters, distance between classes
LINE, INDENT, GUTTER = 18, 14, 28  # of the index: between lines, levels and columns
DEEPEST = 280  # pixels that all levels of the index may take
LONGEST = 320  # pixels of a name; a longer one is cut
MAX_PIXELS = 120e6
TEXT, SOFT, GREY = "#1c1e21", "#5f656d", "#b9bec5"


@dataclass(frozen=True)
class Stroke:
    """A straight line of two points, or a Bézier curve of four."""

    points: tuple[tuple[float, float], ...]
    colour: str


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
    strokes: list[Stroke] = field(default_factory=list)
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
    if hierarchy.num_classes <= MAX_BRANCHES and hierarchy.depth <= MAX_LEVELS:
        _branches(hierarchy, drawing, top)
    else:
        _Index(hierarchy, drawing, top).draw()
    return drawing


# ---- few classes: branches ---------------------------------------------------------------------


def _branches(hierarchy: Hierarchy, drawing: Drawing, top: float) -> None:
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
            drawing.strokes.append(Stroke(curve, colours[child]))
    drawing.height = top + ROW * hierarchy.num_classes + MARGIN


def _columns(hierarchy: Hierarchy, labels: Sequence[str]) -> list[float]:
    """Return the left edge of each level: right of the longest name of the level before."""
    widths = [0.0] * (hierarchy.depth + 1)
    for node, label in enumerate(labels):
        length = font(SIZE, bool(hierarchy.children[node])).getlength(label)
        widths[hierarchy.depths[node]] = max(widths[hierarchy.depths[node]], length)
    lefts = [MARGIN + 5.0]
    for width in widths:
        lefts.append(lefts[-1] + width + 60)
    return lefts


def _rows(hierarchy: Hierarchy, top: float) -> list[float]:
    """Return the height of each node: a class in its row, a group between its outer children."""
    ys = [top + ROW * (span.start + 0.5) for span in hierarchy.spans]
    for node in reversed(hierarchy.inner_nodes):
        below = hierarchy.children[node]
        ys[node] = (ys[below[0]] + ys[below[-1]]) / 2
    return ys


# ---- many classes: an index in columns ------------------------------------------------------------


class _Index:
    """An indented list, node by node down one column after the other."""

    def __init__(self, hierarchy: Hierarchy, drawing: Drawing, top: float) -> None:
        self.hierarchy, self.drawing, self.top = hierarchy, drawing, top
        self.colours = [_colour(hue) for hue in hues(hierarchy)]
        self.step = min(INDENT, DEEPEST / hierarchy.depth)

    def draw(self) -> None:
        order = [*_depth_first(self.hierarchy)]
        # Columns make the page about as high as it is wide.
        count = max(1, round(math.sqrt(len(order) * LINE / 330)))
        lines = math.ceil(len(order) / count)
        left = float(MARGIN)
        self.drawing.height = self.top + LINE * (lines + 1) + MARGIN
        for first in range(0, len(order), lines):
            left = GUTTER + self._column(order[first : first + lines + 1], lines, left)

    def _column(self, part: Sequence[int], lines: int, left: float) -> float:
        """Draw one column and return its right edge; a node beyond `lines` only continues guides."""
        above = self.hierarchy.path_to(part[0])[:-1]
        end = self._heading(above, left)
        # Where the guide below each level begins; guides of the levels above begin at the top.
        begun = {self.hierarchy.depths[node]: self.top + LINE for node in above}
        for line, node in enumerate(part[:lines], start=1):
            y = self.top + LINE * (line + 0.5)
            self._guide(node, left, y, begun)
            begun[self.hierarchy.depths[node]] = y + 6
            end = max(end, self._entry(node, left, y))
        for node in self.hierarchy.path_to(part[-1])[:-1] if len(part) > lines else ():
            x = left + self.step * self.hierarchy.depths[node] + 4
            bottom = self.top + LINE * (lines + 1)
            start = begun[self.hierarchy.depths[node]]
            self.drawing.strokes.append(Stroke(((x, start), (x, bottom)), GREY))
        return end

    def _heading(self, above: Sequence[int], left: float) -> float:
        if not above:
            return left
        text = "… " + " › ".join(self.hierarchy.names[node] for node in above[-2:])
        text = fitting(text, 11, bold=False, width=LONGEST)
        return self.drawing.write(Word(left, self.top + LINE / 2, text, SOFT, size=11))

    def _guide(self, node: int, left: float, y: float, begun: dict[int, float]) -> None:
        """Draw the guide from a node's parent down to its line and across."""
        above = self.hierarchy.depths[node] - 1
        if above >= 0:
            x = left + self.step * above + 4
            corner = (x, y)
            self.drawing.strokes.append(Stroke(((x, begun[above]), corner), GREY))
            self.drawing.strokes.append(Stroke((corner, (x + self.step - 4, y)), GREY))
            begun[above] = y

    def _entry(self, node: int, left: float, y: float) -> float:
        """Draw a node's dot and name; return where the name ends."""
        x, group = (
            left + self.step * self.hierarchy.depths[node],
            bool(self.hierarchy.children[node]),
        )
        self.drawing.dots.append((x + 4, y, 3.5 if group else 2.5, self.colours[node]))
        label = fitting(self.hierarchy.names[node], SIZE, bold=group, width=LONGEST)
        colour = self.colours[node] if group else TEXT
        return self.drawing.write(Word(x + 12, y, label, colour, bold=group))


def _depth_first(hierarchy: Hierarchy) -> Iterator[int]:
    stack = [0]
    while stack:
        node = stack.pop()
        yield node
        stack.extend(reversed(hierarchy.children[node]))


def _colour(hue: float | None) -> str:
    """Return a colour that is dark enough for letters on white."""
    if hue is None:
        return TEXT
    parts = colorsys.hls_to_rgb(hue % 360 / 360, 0.34, 0.62)
    return "#" + "".join(f"{round(255 * part):02x}" for part in parts)


# ---- files -----------------------------------------------------------------------------------------


def svg(drawing: Drawing) -> str:
    """Return the drawing as SVG. Names are text; nothing is loaded."""
    width, height = math.ceil(drawing.width), math.ceil(drawing.height)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="DejaVu Sans, Verdana, sans-serif" '
        'dominant-baseline="central">'
    )
    lines = [
        head,
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        '<g fill="none" stroke-width="1.2">',
        *(f'<path d="{_path(s)}" stroke="{s.colour}"/>' for s in drawing.strokes),
        "</g>",
        *(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r}" fill="{c}"/>' for x, y, r, c in drawing.dots),
        *map(_svg_text, drawing.words),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _path(stroke: Stroke) -> str:
    first, *rest = (f"{x:.1f} {y:.1f}" for x, y in stroke.points)
    return f"M{first}{'C' if len(rest) == 3 else 'L'}{' '.join(rest)}"


def _svg_text(word: Word) -> str:
    bold = ' font-weight="bold"' if word.bold else ""
    return (
        f'<text x="{word.x:.1f}" y="{word.y:.1f}" font-size="{word.size}" fill="{word.colour}"{bold}>'
        f"{html.escape(word.text)}</text>"
    )


def png(drawing: Drawing) -> bytes:
    """Return the drawing as PNG, at double resolution if it is small enough.

    Raises:
        NBDTError: the picture would have too many pixels.
    """
    area = drawing.width * drawing.height
    if area > MAX_PIXELS:
        raise NBDTError(
            f"As a PNG this tree would have {area / 1e6:,.0f} million pixels, more than "
            f"{MAX_PIXELS / 1e6:,.0f}; write .svg or .html instead."
        )
    scale = 2 if 4 * area <= MAX_PIXELS else 1
    size = (math.ceil(drawing.width * scale), math.ceil(drawing.height * scale))
    image = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(image)
    for stroke in drawing.strokes:
        points = [(x * scale, y * scale) for x, y in _polyline(stroke)]
        pen.line(points, fill=stroke.colour, width=scale, joint="curve")
    for x, y, radius, colour in drawing.dots:
        pen.circle((x * scale, y * scale), radius * scale, fill=colour)
    for word in drawing.words:
        letters = font(word.size * scale, word.bold)
        pen.text((word.x * scale, word.y * scale), word.text, word.colour, letters, anchor="lm")
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _polyline(stroke: Stroke, steps: int = 24) -> list[tuple[float, float]]:
    """Return the points of a stroke; a Bézier curve becomes a fine polyline."""
    if len(stroke.points) == 2:
        return list(stroke.points)
    a, b, c, d = stroke.points
    line = []
    for step in range(steps + 1):
        t = step / steps
        weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3)
        x, y = (
            sum(w * p[axis] for w, p in zip(weights, (a, b, c, d), strict=True)) for axis in (0, 1)
        )
        line.append((x, y))
    return line
