"""Draws the pictures of docs/memory.md: ``python tools/evidence_pictures.py``.

A small memory is made of pieces of four photographs, two of the page's and two of gradio's; the query
is another photograph of a cheetah.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from PIL import Image

from nbdt import NBDT
from nbdt.explain import Evidence, explain
from nbdt.explain.evidence.pictures import sheet
from nbdt.explain.result.pictures import alike_row
from nbdt.images.image import open_image
from nbdt.images.sources import ImageSource
from nbdt.model.remember import make_memory

HERE = Path(__file__).parents[1]
PHOTOS = {
    "cheetah1.jpg": "cheetah",
    "lion.jpg": "lion",
    "cat.jpg": "Egyptian cat",
    "coffee.jpg": "espresso",
}
PIECES = [(0, 0, 1, 1), (0, 0, 0.8, 0.8), (0.2, 0, 1, 0.8), (0, 0.2, 0.8, 1), (0.1, 0.1, 0.9, 0.9)]


def photo(name: str) -> Image.Image:
    """One of the page's photographs, else one of gradio's."""
    own = HERE / "demo" / "static" / name
    return open_image(own if own.exists() else files("gradio") / "media_assets" / "images" / name)


def pieces() -> Iterator[ImageSource]:
    """Overlapping parts of the photographs, each of a class of the model."""
    for file, label in PHOTOS.items():
        image = photo(file)
        width, height = image.size
        for number, (left, top, right, bottom) in enumerate(PIECES):
            corners = (left * width, top * height, right * width, bottom * height)
            piece = image.crop(tuple(map(round, corners)))
            yield ImageSource(f"{label}/{number}.png", label, piece.copy)


def main() -> None:
    """Write docs/img/evidence.png and docs/img/evidence-regions.png."""
    model = NBDT.load("imagenet").restrict(list(PHOTOS.values()))
    memory = make_memory(model, Path(tempfile.mkdtemp(), "memory"))
    memory.add(list(pieces()), pictures=True)
    query = photo("cheetah.jpg")
    (explained,) = explain(model, query, evidence=Evidence(memory, k=4))
    for name, image in (
        ("evidence.png", sheet(explained)),
        ("evidence-regions.png", alike_row(explained)),
    ):
        colours = image.quantize(128, dither=Image.Dither.NONE)
        colours.save(HERE / "docs" / "img" / name, optimize=True)
        print(name, image.size, (HERE / "docs" / "img" / name).stat().st_size)
    print(explained.path)


if __name__ == "__main__":
    main()
