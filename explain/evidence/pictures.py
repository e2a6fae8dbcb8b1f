"""The pictures of evidence: opened, and drawn on sheets."""

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from PIL import Image, ImageDraw

from nbdt.decide.paths import as_percent
from nbdt.hierarchies.show.drawing import fitting, font
from nbdt.images.archives import iter_tar
from nbdt.images.image import AMPLE_SIDE, ImageError, open_image, refusal
from nbdt.images.sources import ImageSource, file_source
from nbdt.memory.table import Table
from nbdt.progress import escape_terminal
from nbdt.storage import is_uri

from ..result.drawing import ground
from ..result.explanation import Explanation, Neighbour

MAX_STORED = 1 << 20  # pixels; ours have at most 160 × 160
SMALL, LARGE = 96, 256  # pixels of a square tile
GAP = 12
LINE = 16  # pixels a line of small text
GREY = "#555555"


class Pictures:
    """Opens the square picture that a network saw of a row's photograph.

    An original counts only if its SHA-256 is the row's id, and is looked for only in `data` where
    that is given: a memory that someone else made never shows another file of this machine.

    Args:
        frame: crops a photograph to what the network sees.
        data: the folder or archive that has the originals, if they moved.
    """

    def __init__(
        self, table: Table, frame: Callable[[Image.Image], Image.Image], data: Path | None
    ) -> None:
        self.table, self.frame, self.data = table, frame, data

    def open(self, key: str, reference: str) -> Image.Image:
        """Return the picture of a row: from the original, the stored picture, or the archive.

        Raises ImageError: there is none.
        """
        if (original := _original(key, self._files(reference))) is not None:
            return self.frame(original)
        if (stored := self.table.picture(key)) is not None:
            return open_image(stored, name=f"picture of {reference}", max_pixels=MAX_STORED)
        if (original := _original(key, self._members(reference))) is not None:
            return self.frame(original)
        raise refusal(
            reference,
            "the original photograph",
            "none with the content that the memory has",
            "say where the data is now (data=, --data), or keep pictures (--pictures)",
        )

    def _files(self, reference: str) -> Iterator[ImageSource]:
        """Yield files that may be the original; a network path would be an outside request."""
        path = Path(reference)
        parts = [part for part in path.parts if part != path.anchor]
        if reference.startswith(("//", "\\\\")) or is_uri(reference) or ".." in parts:
            return
        places = [path] if self.data is None else []
        if self.data is not None and self.data.is_dir():
            places = [Path(self.data, *parts[n:]) for n in range(len(parts))]
        yield from (file_source(str(place)) for place in places if place.is_file())

    def _members(self, reference: str) -> Iterator[ImageSource]:
        """Yield members of an archive that may be it, read from the start: slow if compressed."""
        named, mark, member = reference.partition("!")
        archive = named if self.data is None else os.fspath(self.data)
        if mark and os.path.isfile(archive):
            for source in iter_tar(archive, max_side=AMPLE_SIDE):
                if source.reference == f"{archive}!{member}":
                    yield source


def _original(key: str, sources: Iterable[ImageSource]) -> Image.Image | None:
    """Return the first image whose content is that of a row."""
    for source in sources:
        with suppress(ImageError):
            digest, decode = source.content()
            if digest.hex() == key:
                return decode()
    return None


def sheet(explanation: Explanation) -> Image.Image:
    """Draw the photograph and, for each decision, the nearest images of both children."""
    path, evidence = explanation.path, explanation.evidence
    most = max((len(side) for e in evidence for side in (e.chosen, e.rejected)), default=0)
    side = max(most, 2) * (SMALL + GAP)
    row = SMALL + 4 * LINE
    left = LARGE + 2 * GAP
    height = max(len(path) * row, LARGE + 2 * LINE) + 2 * GAP
    canvas = Image.new("RGB", (left + 2 * side + 2 * GAP, height), "white")
    draw = ImageDraw.Draw(canvas)
    canvas.paste(ground(explanation, LARGE), (GAP, GAP))
    title = f"{path.class_name} {as_percent(path.probability)}"
    _text(draw, (GAP, GAP + LARGE + 4), title, LARGE, size=16)
    for number, (decision, found) in enumerate(zip(path, evidence, strict=True)):
        top = GAP + number * row
        beaten = "not" if decision.is_likeliest else "likelier here"
        for at, near, child, word in (
            (left, found.chosen, decision.chosen, "chosen"),
            (left + side + GAP, found.rejected, decision.runner_up, beaten),
        ):
            chance = as_percent(math.exp(decision.log_probs[child]))
            caption = f"{word}: {decision.children[child]} {chance}"
            _text(draw, (at, top), caption, side - GAP, size=13)
            _strip(canvas, (at, top + LINE + 6), near)
    return canvas


def _strip(canvas: Image.Image, corner: tuple[int, int], near: Sequence[Neighbour]) -> None:
    draw = ImageDraw.Draw(canvas)
    left, top = corner
    if not near:
        _text(draw, corner, "no images", SMALL, colour=GREY)
    for neighbour in near:
        canvas.paste(tile(neighbour, SMALL), (left, top))
        words = f"{neighbour.similarity:.2f} {neighbour.label}"
        _text(draw, (left, top + SMALL + 2), words, SMALL, colour=GREY)
        left += SMALL + GAP


def tile(neighbour: Neighbour, side: int) -> Image.Image:
    """Return the neighbour's picture, or a grey square with its name if there is none."""
    try:
        return _square(neighbour.open(), side)
    except ImageError:
        blank = Image.new("RGB", (side, side), "#dddddd")
        name = escape_terminal(neighbour.reference.rpartition("/")[2])
        draw = ImageDraw.Draw(blank)
        _text(draw, (4, side // 2 - LINE), "picture missing", side - 8)
        _text(draw, (4, side // 2), name, side - 8)
        return blank


def _square(picture: Image.Image, side: int) -> Image.Image:
    return picture.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)


def _text(
    draw: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    words: str,
    width: int,
    *,
    size: int = 11,
    colour: str = "black",
) -> None:
    draw.text(corner, fitting(words, size, width=width), colour, font(size))
