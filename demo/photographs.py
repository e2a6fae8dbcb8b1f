"""Photographs that the page shows: examples, and uploads with what is refused."""

from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image, ImageOps

from nbdt.hierarchies.wordnet.concepts import hypernyms_of, leaf_synsets
from nbdt.hierarchies.wordnet.database import wordnet
from nbdt.images.apart import open_apart
from nbdt.images.image import open_image
from nbdt.model.model import NBDT
from nbdt.tree.hierarchy import Hierarchy

from .ui.component import STATIC, component, dump, jpeg_url
from .ui.events import refused
from .visitor import MAX_SIDE

MAX_PIXELS = 50_000_000  # more than most cameras have; visitors may send anything
MOST_KNOWN = 5  # examples that the model knows; one that it does not know follows them
SIDE = 160  # pixels of a thumbnail


def photograph(label: str, **options: Any) -> gr.Image:
    """Return an image input that passes on the path of the uploaded file: `opened` opens it.

    Gradio's own preprocessing would open it first. A subclass would be simpler, but Gradio expects
    a front end for every subclass.
    """
    image = gr.Image(label=label, type="filepath", image_mode=None, **options)
    image.preprocess = lambda payload: payload.path if payload else None  # type: ignore[method-assign]
    return image


def opened(path: str) -> Image.Image:
    """Open an uploaded file apart from the server. Raises ImageError if it is no photograph."""
    return open_apart(path, name="photograph", max_pixels=MAX_PIXELS, max_side=MAX_SIDE)


def refuse_addresses(page: gr.Blocks) -> None:
    """Refuse web addresses in place of files in every component: Gradio would fetch them."""
    for block in page.blocks.values():
        local: Any = partial(_local, block.async_move_resource_to_block_cache)
        block.async_move_resource_to_block_cache = local  # type: ignore[method-assign]


async def _local(move: Any, path: str | Path | None) -> Any:
    if path is not None and "://" in str(path):
        raise refused("A web address was sent in place of a file; upload the file itself.")
    return await move(path)


# ---- examples ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Example:
    """A photograph to begin with."""

    name: str  # what it shows
    wnid: str  # WordNet's id of that
    credit: str  # who made it, and the licence
    folder: Path = STATIC  # where its file is

    @property
    def path(self) -> Path:
        """The file, which may be missing."""
        return self.folder / f"{self.name}.jpg"


# Best first. Copied from scikit-image (cat, coffee, tripod), scikit-learn (palace) and SciPy
# (raccoon); Gradio's are not copied, and a release of it may lack them.
_GRADIO = Path(str(files("gradio"))) / "media_assets" / "images"
EXAMPLES = (
    Example("cat", "n02121808", "Stefan van der Walt, CC0"),
    Example("coffee", "n07929519", "Rachel Michetti, CC0"),
    Example("cheetah", "n02130308", "from Gradio, Apache 2.0", _GRADIO),
    Example("palace", "n03877845", "danielbuechele on Flickr, CC BY 2.0, cropped"),
    Example("tripod", "n04485082", "Lav Varshney, CC0"),
    Example("lion", "n02129165", "from Gradio, Apache 2.0", _GRADIO),
    Example("raccoon", "n02508021", "public-domain-image.com, public domain"),
)


def examples() -> dict[str, Path]:
    """Return the photographs to begin with, by the name of what they show."""
    return {example.name: example.path for example in EXAMPLES if example.path.is_file()}


def examples_view(model: NBDT) -> gr.HTML:
    """Return a row of buttons: what the model knows, then one thing that it does not know."""
    present = [example for example in EXAMPLES if example.path.is_file()]
    known = [example for example in present if knows(model, example.name)]
    strange = [example for example in reversed(present) if example not in known]
    shown = [
        {
            "name": example.name,
            "note": "" if example in known else "not one of its classes",
            "credit": f"Photograph: {example.credit}",
            "picture": _thumbnail(example.path),
        }
        for example in (*known[:MOST_KNOWN], *strange[:1])
    ]
    return component("examples", "examples.js", label="Examples", examples=dump(shown))


def knows(model: NBDT, name: str) -> bool:
    """Return whether a class is what that example shows, a kind of it, or what it is a kind of."""
    return name in _known(model.hierarchy)


@lru_cache(maxsize=8)
def _known(hierarchy: Hierarchy) -> frozenset[str]:
    """Return the names of the examples that the classes cover, by WordNet's meaning of both."""
    net = wordnet()
    found = leaf_synsets(hierarchy.classes, hierarchy.class_wnids)
    classes = {synset for synset in found if synset is not None}
    kinds_of = classes.union(*hypernyms_of(classes).values())
    meant = {example.name: net.index(example.wnid) for example in EXAMPLES}
    return frozenset(
        name
        for name, synset in meant.items()
        if synset in kinds_of or classes.intersection(net.ancestors(synset))
    )


@lru_cache(maxsize=8)
def _thumbnail(path: Path) -> str:
    """Return the square middle of a photograph as a data URL."""
    return jpeg_url(ImageOps.fit(open_image(path), (SIDE, SIDE)))
