"""Components of the page: a static template, data as properties, text set as text; the theme.

Gradio evaluates HTML templates as JavaScript template strings, so a name that holds ``${…}`` would
run as code. Nothing is interpolated here: the scripts build elements and set `textContent`.
"""

import base64
import io
import json
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.themes import Base
from PIL import Image

from nbdt.explain.result.contributions import Contribution
from nbdt.explain.result.explanation import Neighbour
from nbdt.images.image import ImageError

STATIC = Path(__file__).parents[1] / "static"  # scripts, styles and photographs


def component(name: str, *files: str, label: str | None = None, **props: Any) -> gr.HTML:
    """Return a component that scripts draw from its `props`; page.js comes before its `files`.

    Its element has the class ``nbdt-`` and the name; a screen reader calls the region by its label.
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


def static_text(name: str) -> str:
    """Return the text of one file in `static/`."""
    return (STATIC / name).read_text(encoding="utf-8")


def scripts(*names: str) -> str:
    """Join several files to one script: a component's `js_on_load` can import nothing."""
    return "\n".join(static_text(name) for name in names)


def styles() -> list[str]:
    """Return the paths of all style sheets; page.css, which names the colours, comes first."""
    paths = sorted(str(path) for path in STATIC.glob("*.css"))
    return sorted(paths, key=lambda path: not path.endswith("page.css"))


def dump(record: Any) -> str:
    """Return compact JSON text: properties travel quickest in this form."""
    return json.dumps(record, ensure_ascii=False, separators=(",", ":"))


def jpeg_url(image: Image.Image, side: int | None = None) -> str:
    """Return the image as a JPEG in a data URL, at most `side` pixels wide and high."""
    shown = image.convert("RGB")
    if side is not None:
        shown.thumbnail((side, side))
    stream = io.BytesIO()
    shown.save(stream, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


def photograph_url(photograph: Neighbour | Contribution, side: int) -> str:
    """Return a training image as `jpeg_url` does; "" if its file is gone: its label still counts."""
    try:
        return jpeg_url(photograph.open(), side)
    except ImageError:
        return ""


def theme() -> Base:
    """Return the theme: it loads no fonts from other hosts; static/page.css has its colours."""
    font = ["-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif"]
    return Base(font=font, font_mono=["ui-monospace", "Consolas", "monospace"], radius_size="lg")
