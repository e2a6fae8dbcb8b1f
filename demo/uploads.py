"""Uploaded photographs: their folder, the input component, and what is refused."""

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

MAX_PIXELS = 50_000_000  # more than most cameras have; visitors may send anything
PREFIX = "nbdt-demo-"  # of folders with uploaded files; the number of the process follows
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
