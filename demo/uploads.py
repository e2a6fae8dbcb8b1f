"""Photographs that strangers send: how they arrive, and what is refused."""

from __future__ import annotations

import atexit
import os
import re
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from nbdt.images.image import open_image

from .ui.events import refused
from .visitor import MAX_SIDE

MAX_PIXELS = 50_000_000  # a generous camera; strangers may send anything
PREFIX = "nbdt-demo-"  # of folders with uploaded files; the number of the process follows
_own: set[Path] = set()  # folders of this process


def upload_folder() -> Path:
    """A new folder for uploaded files, removed when the process ends, however it ends.

    One that is killed cannot tidy up: the next one does that for it.
    """
    _sweep(Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
    _own.add(folder)
    atexit.register(partial(shutil.rmtree, folder, ignore_errors=True))
    return folder


def _sweep(place: Path) -> None:
    """Remove folders of this user's whose process is gone."""
    if os.name != "posix":  # elsewhere signal 0 ends the process that is asked about
        return
    for folder in place.glob(f"{PREFIX}*"):
        found = re.fullmatch(rf"{PREFIX}(\d+)-[^-]+", folder.name)
        if found and folder not in _own and _mine(folder) and not _alive(int(found[1])):
            shutil.rmtree(folder, ignore_errors=True)


def _mine(folder: Path) -> bool:
    try:
        return not folder.is_symlink() and folder.lstat().st_uid == os.getuid()
    except OSError:  # somebody else was quicker
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
    """An image input that hands over the path of the uploaded file: `nbdt.images.image` opens it.

    Gradio's own preprocessing would open it first. A subclass would say this more plainly, but
    Gradio takes one for a component with a front end of its own.
    """
    image = gr.Image(label=label, type="filepath", image_mode=None, **options)
    image.preprocess = lambda payload: payload.path if payload else None  # type: ignore[method-assign]
    return image


def opened(path: str) -> Image.Image:
    """An uploaded file as a picture. Raises ImageError: it is no readable photograph."""
    return open_image(path, name="photograph", max_pixels=MAX_PIXELS, max_side=MAX_SIDE)


def refuse_addresses(page: gr.Blocks) -> None:
    """Let no component fetch what a request names: Gradio would, for a file with a web address."""
    for block in page.blocks.values():
        block.async_move_resource_to_block_cache = _local(  # type: ignore[method-assign]
            block.async_move_resource_to_block_cache
        )


def _local(move: Any) -> Any:
    async def moved(place: str | Path | None) -> str | None:
        if place is not None and "://" in str(place):
            raise refused("A web address was sent in place of a file; upload the file itself.")
        found: str | None = await move(place)
        return found

    return moved
