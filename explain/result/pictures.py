"""Pictures of an explanation: its tiles on one sheet, and files of them."""

import base64
import io
import textwrap
from collections.abc import Iterable

import numpy as np
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from nbdt.hierarchies.show.drawing import font
from nbdt.images.folders import SOFTWARE

from .drawing import compared, draw, ground
from .explanation import Explanation
from .headline import headline
from .tiles import Tile, legend, of_decisions, tiles

SIDE = 256  # pixels of a picture
LARGE, SMALL, GAP = 402, 264, 12  # pixels of the first tile, of the others, and between them
WIDTH = 2 * LARGE + GAP  # three small ones and the gaps between them
SOFT = "#55595f"
Text = tuple[str, int, str]  # a text, its size in pixels, and its colour; bold if that is black
Card = tuple[Image.Image | None, list[Text]]  # a picture and what is below it


def overlays(explanation: Explanation, side: int = SIDE) -> list[Image.Image]:
    """Return for each decision a picture of its own, `side` pixels square: see `draw`."""
    path = range(len(explanation.path))
    return [draw(explanation, of_decisions(explanation, [index]), side) for index in path]


def sides(
    explanation: Explanation, tile: Tile, side: int = SIDE, *, grid: bool = False
) -> list[tuple[str, Image.Image]]:
    """Return the pictures of a tile with their titles: its own and, if it has one, its runner-up's."""
    titles = [tile.title, tile.rival] if tile.rival else [tile.title]
    return [
        (title, draw(explanation, tile, side, grid=grid, rival=number > 0))
        for number, title in enumerate(titles)
    ]


def picture(explanation: Explanation, *, grid: bool = False) -> Image.Image:
    """Return all tiles on one sheet, the closest decision's first and largest, with their words.

    `grid`: whether to draw the cells that the network sees.
    """
    answer = headline(explanation.path, explanation.answer)
    first, *others = tiles(explanation)
    large = _cards(explanation, first, LARGE, grid)
    if len(large) == 1 and explanation.photo is not None:
        large.append((ground(explanation, LARGE), [("the photograph", 13, SOFT)]))
    small = [card for tile in others for card in _cards(explanation, tile, SMALL, grid)]
    rows = [
        _row([(None, [(answer.title, 22, "black"), (answer.text, 15, SOFT)])], WIDTH),
        _row(large, LARGE),
        *([alike_row(explanation)] if explanation.alike else []),
        *(_row(small[at : at + 3], SMALL) for at in range(0, len(small), 3)),
        _row([(None, [(legend(explanation), 12, SOFT)])], WIDTH),
    ]
    sheet = Image.new("RGB", (WIDTH + 2 * GAP, sum(row.height for row in rows) + GAP), "white")
    top = GAP
    for row in rows:
        sheet.paste(row, (GAP, top))
        top += row.height
    return sheet


def alike_row(explanation: Explanation) -> Image.Image:
    """Return the photograph beside the nearest training photographs, with what is alike outlined."""
    shown = compared(explanation, SMALL)
    return _row([(image, [(words, 13, SOFT)]) for words, image in shown], SMALL)


def _cards(explanation: Explanation, tile: Tile, side: int, grid: bool) -> list[Card]:
    """A tile's pictures, each with its captions."""
    shown: list[Card] = []
    for title, image in sides(explanation, tile, side, grid=grid):
        words = [] if shown else [(tile.steps, 13, SOFT), (tile.words, 13, SOFT)]
        shown.append((image, [*words[:1], (title, 16, "black"), *words[1:]]))
    return shown


def _row(cards: Iterable[Card], width: int) -> Image.Image:
    """Cards beside each other, with all of their texts; as high as the highest."""
    row = Image.new("RGB", (WIDTH, 4000), "white")
    pen, bottom = ImageDraw.Draw(row), 0
    for number, (image, texts) in enumerate(cards):
        left, top = number * (width + GAP), 0
        if image is not None:
            row.paste(image, (left, 0))
            top = image.height + 6
        for text, size, colour in texts:
            bold = colour == "black"
            for line in _wrapped(text, size, width, bold=bold):
                pen.text((left, top), line, colour, font(size, bold))
                top += round(1.35 * size)
            top += 3
        bottom = max(bottom, top + GAP)
    return row.crop((0, 0, WIDTH, bottom))


def _wrapped(text: str, size: int, width: int, *, bold: bool) -> list[str]:
    """The lines of a text of a width in pixels; words that are wider are broken."""
    letters, text = font(size, bold), text.replace(" %", "\N{NO-BREAK SPACE}%")
    for columns in range(max(2, int(width / (0.4 * size))), 1, -1):
        lines = textwrap.wrap(text, columns)
        if all(letters.getlength(line) <= width for line in lines):
            break
    return lines


def png(image: Image.Image, *, marked: bool = False) -> bytes:
    """Return the image as a PNG file of RGB pixels: no EXIF, no profile, no text.

    A `marked` picture names this package, so that no command takes it for a photograph.
    """
    stream, pixels = io.BytesIO(), Image.fromarray(np.asarray(image.convert("RGB")))
    text = PngInfo()
    if marked:
        text.add_text("Software", SOFTWARE)
    # level 3 is 4 % larger than level 6, in a third of the time
    pixels.save(stream, "PNG", compress_level=3, pnginfo=text)
    return stream.getvalue()


def data_url(image: Image.Image) -> str:
    """Return the image as a PNG inside a URL, for pages that fetch nothing."""
    return "data:image/png;base64," + base64.b64encode(png(image)).decode()
