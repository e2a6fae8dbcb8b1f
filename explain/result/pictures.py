"""Pictures of an explanation: one overlay a decision, one colour scale along the path."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from nbdt.decide.paths import Decision, as_percent
from nbdt.errors import NBDTError
from nbdt.hierarchies.show.drawing import fitting, font
from nbdt.images.folders import SOFTWARE

from .explanation import Explanation
from .regions import upsampled

# Red supports the chosen child, blue argues against it; all common colour blindness can see which.
FOR, AGAINST = (214, 40, 40), (33, 102, 200)
TILE = 256  # pixels
CAPTION = 58  # pixels below each tile
GAP = 12  # pixels between tiles


def heat(values: NDArray[np.float32], scale: float, side: int) -> Image.Image:
    """Return a signed map as an RGBA layer: colour shows the sign, opacity the size.

    Args:
        values: (height, width), raw.
        scale: the value of full opacity.
        side: pixels of the square result; the map is interpolated to it bicubically.
    """
    share = np.clip(upsampled(values, side, side) / max(scale, 1e-12), -1, 1)
    layer = np.empty((side, side, 4), dtype=np.uint8)
    layer[..., :3] = np.where(share[..., None] > 0, FOR, AGAINST)
    layer[..., 3] = np.round(200 * np.abs(share))
    return Image.fromarray(layer, "RGBA")


def overlays(explanation: Explanation, side: int = TILE) -> list[Image.Image]:
    """Return for each decision its map over the photograph, or on grey; `side` pixels square."""
    return drawn(explanation, explanation.maps, explanation.scale, side)


def drawn(
    explanation: Explanation, maps: Iterable[NDArray[np.float32]], scale: float, side: int = TILE
) -> list[Image.Image]:
    """Return (height, width) maps over the photograph, with one colour scale, as `overlays` does."""
    ground = Image.new("RGB", (side, side), "#e4e6e9")
    if explanation.photo is not None:  # grey and paler, it leaves the colours to the map
        grey, white = _photo(explanation, side).convert("L"), Image.new("RGB", ground.size, "white")
        ground = Image.blend(grey.convert("RGB"), white, 0.25)
    shown = []
    for values in maps:
        tile = ground.convert("RGBA")
        tile.alpha_composite(heat(values, scale, side))
        shown.append(tile.convert("RGB"))
    return shown


def picture(explanation: Explanation) -> Image.Image:
    """Return the photograph and all its decisions side by side, with names and probabilities."""
    path = explanation.path
    tiles = [_photo(explanation, TILE), *overlays(explanation)]
    captions = [(path.class_name, f"{as_percent(path.probability)} overall", "the photograph")]
    captions += [
        (d.children[d.chosen], f"{as_percent(d.probability)} at “{d.node}”", _rival(d))
        for d in path
    ]
    width = len(tiles) * (TILE + GAP) + GAP
    sheet = Image.new("RGB", (width, TILE + CAPTION + 3 * GAP + 16), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (tile, lines) in enumerate(zip(tiles, captions, strict=True)):
        left = GAP + index * (TILE + GAP)
        sheet.paste(tile, (left, GAP))
        for row, line in enumerate(lines):
            size = 16 if row == 0 else 12
            corner = (left, TILE + GAP + 4 + 20 * row)
            draw.text(corner, fitting(line, size, width=TILE), "black", font(size))
    height, columns = explanation.resolution
    note = (
        f"Red supports the chosen branch, blue argues against it; one scale for all. The maps have "
        f"{columns} × {height} positions and are drawn smoothed."
    )
    draw.text((GAP, TILE + CAPTION + 2 * GAP), fitting(note, 11, width=width), "#555555", font(11))
    return sheet


def _rival(decision: Decision) -> str:
    chance = as_percent(float(np.exp(decision.log_probs[decision.runner_up])))
    word = "or" if decision.is_likeliest else "likelier here:"
    return f"{word} {decision.children[decision.runner_up]} {chance}"


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


def _photo(explanation: Explanation, side: int) -> Image.Image:
    if explanation.photo is None:
        raise NBDTError(
            "This explanation was made from a tensor and holds no photograph to draw on; pass PIL "
            "images to explain()."
        )
    return explanation.photo.resize((side, side), Image.Resampling.BICUBIC)
