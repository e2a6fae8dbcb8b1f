"""Photographs that strangers send: how they arrive, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from nbdt.images import open_image

from .errors import refused
from .visitor import MAX_SIDE

MAX_PIXELS = 50_000_000  # a generous camera; strangers may send anything


def photograph(label: str, **options: Any) -> gr.Image:
    """An image input that hands over the path of the uploaded file: `nbdt.images` opens it.

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
