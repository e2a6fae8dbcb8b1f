"""Example photographs, some of which show no class of the model."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import gradio as gr
from PIL import Image

from nbdt.images.image import open_image
from nbdt.model.model import NBDT

from .ui.component import STATIC, component, dump, jpeg_url

# cat: Stefan van der Walt, coffee: Rachel Michetti, both CC0; rocket: SpaceX, public domain; all as
# in scikit-image. The others come with Gradio.
OWN = {"cat": "cat.jpg", "rocket": "rocket.jpg", "coffee": "coffee.jpg"}
GRADIO = {"lion": "lion.jpg", "cheetah": "cheetah.jpg"}
SIDE = 160  # pixels of a thumbnail


@dataclass(frozen=True)
class Example:
    """A photograph, named after its subject."""

    name: str
    path: Path

    def open(self) -> Image.Image:
        """Open the photograph."""
        return _opened(self.path)


@lru_cache(maxsize=8)
def _opened(path: Path) -> Image.Image:
    return open_image(path)


def examples() -> dict[str, Example]:
    """Return the examples by name; Gradio's where its release has them."""
    folder = Path(str(files("gradio"))) / "media_assets" / "images"
    paths = {name: STATIC / file for name, file in OWN.items()}
    paths |= {name: folder / file for name, file in GRADIO.items()}
    return {name: Example(name, path) for name, path in paths.items() if path.is_file()}


def examples_view(model: NBDT) -> gr.HTML:
    """Return a row of buttons; those that show a class of the model come first."""
    shown = [
        {
            "name": example.name,
            "label": example.name,
            "note": "" if knows(model, example.name) else "not a class",
            "picture": jpeg_url(_square(example.open()), SIDE),
        }
        for example in sorted(examples().values(), key=lambda e: not knows(model, e.name))
    ]
    return component("examples", "examples.js", label="Examples", examples=dump(shown))


def knows(model: NBDT, word: str) -> bool:
    """Return whether a class has that word in its name."""
    pattern = re.compile(rf"\b{re.escape(word)}\b", re.IGNORECASE)
    return any(pattern.search(name) for name in model.hierarchy.classes)


def _square(image: Image.Image) -> Image.Image:
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))
