"""Photographs that the page shows: examples, and uploads with what is refused."""

from __future__ import annotations

import atexit
import os
import re
import shutil
import tempfile
from functools import lru_cache, partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from nbdt.images.image import open_image
from nbdt.model.model import NBDT

from .ui.component import STATIC, component, dump, jpeg_url
from .ui.events import refused
from .visitor import MAX_SIDE

MAX_PIXELS = 50_000_000  # more than most cameras have; visitors may send anything
PREFIX = "nbdt-demo-"  # of folders with uploaded files; the number of the process follows
# cat: Stefan van der Walt, coffee: Rachel Michetti, both CC0; rocket: SpaceX, public domain; all as
# in scikit-image. The others come with Gradio.
OWN = {"cat": "cat.jpg", "rocket": "rocket.jpg", "coffee": "coffee.jpg"}
GRADIO = {"lion": "lion.jpg", "cheetah": "cheetah.jpg"}
SIDE = 160  # pixels of a thumbnail
_folders: set[Path] = set()  # of this process


def upload_folder() -> Path:
    """Return a new folder for uploaded files, which is removed when the process ends.

    A process that is killed cannot remove its folder: the next one removes it.
    """
    _sweep(Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
    _folders.add(folder)
    atexit.register(partial(shutil.rmtree, folder, ignore_errors=True))
    return folder


def _sweep(root: Path) -> None:
    """Remove this user's folders whose process has ended."""
    if os.name != "posix":  # elsewhere signal 0 ends the process
        return
    for folder in root.glob(f"{PREFIX}*"):
        match = re.fullmatch(rf"{PREFIX}(\d+)-[^-]+", folder.name)
        if match and folder not in _folders and _mine(folder) and not _alive(int(match[1])):
            shutil.rmtree(folder, ignore_errors=True)


def _mine(folder: Path) -> bool:
    try:
        return not folder.is_symlink() and folder.lstat().st_uid == os.getuid()
    except OSError:  # another process removed it
        return False


def _alive(process: int) -> bool:
    if process == os.getpid():  # in a container every server has the same number
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def photograph(label: str, **options: Any) -> gr.Image:
    """Return an image input that passes on the path of the uploaded file: `opened` opens it.

    Gradio's own preprocessing would open it first. A subclass would be simpler, but Gradio expects
    a front end for every subclass.
    """
    image = gr.Image(label=label, type="filepath", image_mode=None, **options)
    image.preprocess = lambda payload: payload.path if payload else None  # type: ignore[method-assign]
    return image


def opened(path: str) -> Image.Image:
    """Open an uploaded file. Raises ImageError if it is not a readable photograph."""
    return open_image(path, name="photograph", max_pixels=MAX_PIXELS, max_side=MAX_SIDE)


def refuse_addresses(page: gr.Blocks) -> None:
    """Refuse web addresses in place of files in every component: Gradio would fetch them."""
    for block in page.blocks.values():
        block.async_move_resource_to_block_cache = _local(  # type: ignore[method-assign]
            block.async_move_resource_to_block_cache
        )


def _local(move: Any) -> Any:
    async def moved(path: str | Path | None) -> str | None:
        if path is not None and "://" in str(path):
            raise refused("A web address was sent in place of a file; upload the file itself.")
        local_path: str | None = await move(path)
        return local_path

    return moved


# ---- examples ----------------------------------------------------------------------------------


def examples() -> dict[str, Path]:
    """Return the examples by the name of what they show; Gradio's where its release has them."""
    folder = Path(str(files("gradio"))) / "media_assets" / "images"
    paths = {name: STATIC / file for name, file in OWN.items()}
    paths |= {name: folder / file for name, file in GRADIO.items()}
    return {name: path for name, path in paths.items() if path.is_file()}


def examples_view(model: NBDT) -> gr.HTML:
    """Return a row of buttons; those that show a class of the model come first."""
    shown = [
        {
            "name": name,
            "label": name,
            "note": "" if knows(model, name) else "not a class",
            "picture": _thumbnail(path),
        }
        for name, path in sorted(examples().items(), key=lambda item: not knows(model, item[0]))
    ]
    return component("examples", "examples.js", label="Examples", examples=dump(shown))


def knows(model: NBDT, word: str) -> bool:
    """Return whether a class has that word in its name."""
    pattern = re.compile(rf"\b{re.escape(word)}\b", re.IGNORECASE)
    return any(pattern.search(name) for name in model.hierarchy.classes)


@lru_cache(maxsize=8)
def _thumbnail(path: Path) -> str:
    """Return the square middle of a photograph as a data URL."""
    image = open_image(path)
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return jpeg_url(image.crop((left, top, left + side, top + side)), SIDE)
