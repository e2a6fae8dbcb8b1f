"""The picture of a tile: the colour photograph with the tested region outlined, or the map's contours.

Colours differ in lightness and hue, lines in style, and all have a white halo: they differ in print,
in grey, and with any common colour blindness.
"""

from collections.abc import Iterable, Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw

from nbdt.images.image import ImageError

from .explanation import Explanation, Map
from .regions import Region, cell_mask, upsampled
from .tiles import LEVELS, Tile, alike_words, contrast, region

FOR, AGAINST, HALO, CELLS = "#c8102e", "#2166c8", "#ffffff", "#ffffff70"
LEAST = 0.1  # of the scale: the contour of what argues against it
PLAIN = "#8f9398"  # where there is no photograph
DARKER = 0.55  # what remains of the brightness outside a tested region
EDGE = 0.005  # of the picture: how far an outline stays from its edge
FINE = 3  # pixels of the lines for each pixel of the picture

Line = NDArray[np.float64]  # (points, 2): x and y, as fractions of the picture
Stroke = tuple[list[Line], str, float, bool]  # lines, their colour, width, and whether dashed


def draw(
    explanation: Explanation, tile: Tile, side: int, *, grid: bool = False, rival: bool = False
) -> Image.Image:
    """Return the picture of a tile, RGB.

    With a tested region: its outline, with everything outside darker and grey. Without one: contours
    of what supports the child and of what argues against it. Beside a runner-up: contours of where
    each of the two has more evidence than the other, on one scale.

    Args:
        explanation: whose photograph is drawn on; plain grey stands for one that is missing.
        grid: whether to draw the cells that the network sees.
        rival: whether to draw the runner-up's picture instead; only for tiles with a `rival`.
    """
    picture, found = ground(explanation, side), region(explanation, tile.shown)
    cells = explanation.resolution
    if found is not None and not rival:
        picture, cells = outlined(picture, found.regions), found.regions[0].grid
    elif tile.rival:
        more = contrast(explanation, tile.shown) * (1 if rival else -1)
        picture = contoured(picture, np.maximum(more, 0), float(np.abs(more).max()))
    else:
        values = explanation.maps[tile.shown]
        picture = contoured(picture, values, float(np.abs(values).max()))
    return gridded(picture, cells) if grid else picture


def ground(explanation: Explanation, side: int) -> Image.Image:
    """Return the photograph, or plain grey if tensors were given, as a square."""
    if explanation.photo is None:
        return Image.new("RGB", (side, side), PLAIN)
    return explanation.photo.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)


def outlined(picture: Image.Image, regions: Sequence[Region], *, dim: bool = True) -> Image.Image:
    """Return a picture with an outline around regions, along their cells.

    With `dim`, everything outside is darker and grey.
    """
    outline: Stroke = (borders(regions), FOR, 3, False)
    if not dim:
        return _lines(picture.convert("RGB"), [outline])
    inside = (
        Image.fromarray(cell_mask(regions) > 0)
        .convert("L")
        .resize(picture.size, Image.Resampling.NEAREST)
    )
    grey = picture.convert("L").point(lambda value: round(DARKER * value)).convert("RGB")
    return _lines(Image.composite(picture, grey, inside), [outline])


def compared(explanation: Explanation, side: int) -> list[tuple[str, Image.Image]]:
    """Return the photograph and the nearest training photographs with what is alike outlined.

    Each has its caption; squares of `side` pixels. Empty where nothing was compared.
    """
    pictures = [(ground(explanation, side), one.regions) for one in explanation.alike[:1]]
    for alike in explanation.alike:
        nearest = explanation.evidence[alike.decision].sides[alike.side][0]
        try:
            theirs = nearest.open().convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
        except ImageError:  # it is gone since
            theirs = Image.new("RGB", (side, side), PLAIN)
        pictures.append((theirs, alike.theirs))
    shown = (outlined(image, regions) for image, regions in pictures)
    return list(zip(alike_words(explanation), shown, strict=True))


def contoured(picture: Image.Image, values: Map, scale: float) -> Image.Image:
    """Return a picture with the contours of a map, (height, width), raw and signed.

    `scale`: the value whose `LEVELS` are drawn, and whose `LEAST` with the sign changed.
    """
    thin, thick = (contours(values, level * scale) for level in LEVELS)
    against = contours(np.minimum(values, 0), -LEAST * scale)
    return _lines(
        picture, [(against, AGAINST, 1.5, True), (thin, FOR, 1.5, False), (thick, FOR, 3, False)]
    )


def contours(values: Map, level: float, fine: int = 64) -> list[Line]:
    """Return the lines where a map, interpolated to `fine` × `fine` values, has a level."""
    from contourpy import contour_generator

    at = (np.arange(fine) + 0.5) / fine
    lines = contour_generator(at, at, upsampled(values, fine, fine)).lines(level)
    return [np.asarray(line) for line in lines]


def borders(regions: Iterable[Region]) -> list[Line]:
    """Return the sides of cells between a region and the rest."""
    found = []
    for one in regions:
        inside, (rows, columns) = set(one.cells), one.grid
        for (row, column), (down, right) in product(one.cells, ((-1, 0), (1, 0), (0, -1), (0, 1))):
            if (row + down, column + right) not in inside:
                # half a cell from the centre, and half a cell along the side
                x, y = column + 0.5 + right / 2, row + 0.5 + down / 2
                ends = [(x - down / 2, y - right / 2), (x + down / 2, y + right / 2)]
                found.append(np.clip(np.array(ends) / (columns, rows), EDGE, 1 - EDGE))
    return found


def gridded(picture: Image.Image, cells: tuple[int, int]) -> Image.Image:
    """Return a picture with faint lines between its cells, given as rows and columns."""
    rows, columns = cells
    lines = [np.array([(0, row / rows), (1, row / rows)]) for row in range(1, rows)]
    lines += [np.array([(at / columns, 0), (at / columns, 1)]) for at in range(1, columns)]
    return _lines(picture, [(lines, CELLS, 0.7, False)], halo=False)


def _lines(
    picture: Image.Image,
    strokes: Sequence[Stroke],
    *,
    halo: bool = True,
) -> Image.Image:
    """Draw lines, with halos; widths are pixels, more of them in pictures of more than 320."""
    side, unit = picture.width, max(1.0, picture.width / 320)
    layer = Image.new("RGBA", (side * FINE, side * FINE), (*ImageColor.getrgb(HALO)[:3], 0))
    pen = ImageDraw.Draw(layer)
    for lines, colour, width, dashed in strokes:
        parts = [part for line in lines for part in (_dashes(line) if dashed else [line])]
        for more, ink in ((2.2, HALO), (0, colour))[0 if halo else 1 :]:
            for part in parts:
                _stroke(pen, part * side * FINE, FINE * unit * (width + more), ink)
    shown = picture.convert("RGBA")
    shown.alpha_composite(layer.reduce(FINE))
    return shown.convert("RGB")


def _stroke(pen: ImageDraw.ImageDraw, line: Line, width: float, ink: str) -> None:
    """Draw one line with round ends."""
    points = [tuple(point) for point in line.tolist()]
    pen.line(points, ink, round(width), joint="curve")
    for x, y in (points[0], points[-1]):
        pen.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), ink)


def _dashes(line: Line, length: float = 1 / 40) -> list[Line]:
    """Return every other piece of a line, each of a length."""
    steps = np.hypot(*np.diff(line, axis=0).T)
    number = np.concatenate([[0], np.cumsum(steps)]) // length
    pieces = np.split(line, np.flatnonzero(np.diff(number)) + 1)
    return [piece for piece in pieces[::2] if len(piece) > 1]
