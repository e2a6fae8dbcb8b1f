"""A part of the page: a static template, data as properties, text set as text.

Gradio evaluates HTML templates as JavaScript template strings, so a name that holds ``${…}`` would
run as code. Nothing is interpolated here: the scripts build elements and set `textContent`.
"""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import gradio as gr
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .static_files import scripts


def part(name: str, *files: str, label: str | None = None, **props: Any) -> gr.HTML:
    """A component that a script draws.

    Args:
        name: the class of its element, after ``nbdt-``.
        files: scripts in `static/`, in order; page.js comes first.
        label: what a screen reader calls the region, if it is one.
        props: its first data.
    """
    about = f' aria-label="{label}"' if label else ""
    return gr.HTML(
        value="",
        html_template=f'<section class="nbdt-{name}"{about}></section>',
        js_on_load=scripts("page.js", *files),
        apply_default_css=False,
        elem_id=f"nbdt-{name}",
        **props,
    )


def dump(record: Any) -> str:
    """JSON text, as properties travel quickest."""
    return json.dumps(record, ensure_ascii=False, separators=(",", ":"))


def jpeg_url(image: Image.Image, side: int | None = None) -> str:
    """The image as a JPEG inside a URL; with `side`, in a square of so many pixels at most."""
    shown = image.convert("RGB")
    if side is not None:
        shown.thumbnail((side, side))
    stream = io.BytesIO()
    shown.save(stream, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


def map_record(values: NDArray[np.float32]) -> dict[str, Any]:
    """A map as numbers of four digits, which the browser paints."""
    height, width = values.shape
    numbers = [float(f"{value:.4g}") for value in values.ravel().tolist()]
    return {"height": height, "width": width, "values": numbers}
