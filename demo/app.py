"""The page as Gradio blocks. Logic lives in the rooms below; here it is only shown."""

from __future__ import annotations

import html
import json
import os
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

import gradio as gr
from PIL import Image

from nbdt.errors import NBDTError
from nbdt.explain import Explanation, explain
from nbdt.explain.render import data_url, overlays
from nbdt.images import AMPLE_SIDE, open_image
from nbdt.model import NBDT

from .decision_strip import CSS, JS, TEMPLATE

MAX_PIXELS = 50_000_000  # a generous camera; strangers may send anything
MAX_BYTES = 20 * 2**20
EXAMPLES = {"cheetah.jpg": "cheetah", "lion.jpg": "lion", "bus.png": "bus", "tower.jpg": "tower"}


def _photograph(label: str, **options: Any) -> gr.Image:
    """An image input that hands over the path of the uploaded file: `nbdt.images` opens it.

    Gradio's own preprocessing would open it first. A subclass would say this more plainly, but
    Gradio takes one for a component with a front end of its own.
    """
    image = gr.Image(label=label, type="filepath", image_mode=None, **options)
    image.preprocess = lambda payload: payload.path if payload else None  # type: ignore[method-assign]
    return image


def build(model: NBDT) -> gr.Blocks:
    """The page for one model."""
    # Read by every component when it is made; of our own, so that it can be emptied by age.
    os.environ["GRADIO_TEMP_DIR"] = tempfile.mkdtemp(prefix="nbdt-demo-")
    with gr.Blocks(
        title="NBDT: see the decision",
        analytics_enabled=False,
        delete_cache=(3600, 3600),
    ) as page:
        gr.Markdown(_introduction(model))
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                photo = _photograph("Photograph", sources=["upload", "webcam", "clipboard"])
                _examples(model, photo)
            with gr.Column(scale=2, min_width=320):
                strip = gr.HTML(
                    value="",
                    record="",
                    html_template=TEMPLATE,
                    css_template=CSS,
                    js_on_load=JS,
                    apply_default_css=False,
                )
        _api(model)

        def show(path: str | None) -> gr.HTML:
            return gr.HTML(record=_strip_record(answer(model, path)) if path else "")

        photo.change(show, photo, strip, api_visibility="private", show_progress="minimal")
    return cast(gr.Blocks, page)


def answer(model: NBDT, path: str) -> Explanation:
    """The explanation of an uploaded photograph.

    Raises:
        gr.Error: the file is no readable photograph; the message says why.
    """
    try:
        photo = open_image(path, name="photograph", max_pixels=MAX_PIXELS, max_side=AMPLE_SIDE)
        return explain(model, photo)[0]
    except NBDTError as error:
        # Gradio shows messages as HTML, and this one may quote the file.
        raise gr.Error(html.escape(str(error), quote=False), print_exception=False) from None


def _api(model: NBDT) -> None:
    """``/explain``: one image to the path as JSON, beside one picture a decision."""
    with gr.Row(visible=False):
        image, record, pictures = _photograph("image"), gr.JSON(), gr.Gallery(format="png")
        go = gr.Button()

    def explain_image(image: str) -> tuple[dict[str, Any], list[tuple[Image.Image, str]]]:
        if not image:
            raise gr.Error("Send one image.", print_exception=False)
        found = answer(model, image)
        captions = [decision.children[decision.chosen] for decision in found.path]
        return found.path.to_dict(), list(zip(overlays(found), captions, strict=True))

    go.click(explain_image, image, [record, pictures], api_name="explain")


def _strip_record(explanation: Explanation) -> str:
    """Everything the strip draws, as JSON text; pictures are data URLs."""
    height, width = explanation.resolution
    pictures = [data_url(picture) for picture in overlays(explanation)]
    photo = explanation.photo
    return json.dumps(
        {
            **explanation.path.to_dict(),
            "photo": data_url(photo) if photo else "",
            "pictures": pictures,
            "resolution": f"{width} × {height}",
        }
    )


def _examples(model: NBDT, photo: gr.Image) -> None:
    folder = Path(str(files("gradio"))) / "media_assets" / "images"
    found = {
        str(folder / name): label for name, label in EXAMPLES.items() if (folder / name).is_file()
    }
    if not found:
        return
    known = set(model.hierarchy.classes)
    labels = [
        label if label in known else f"{label} (not a class here)" for label in found.values()
    ]
    gr.Examples([[path] for path in found], photo, example_labels=labels, label="Examples")


def _introduction(model: NBDT) -> str:
    names = ", ".join(html.escape(name) for name in model.hierarchy.classes[:12])
    more = " …" if model.hierarchy.num_classes > 12 else ""
    return (
        "# See the decision\n"
        "Drop a photograph. The model answers with a path through its class hierarchy; for each "
        "step you see how sure it was, and which part of the photograph decided. It knows "
        f"{model.hierarchy.num_classes} classes ({names}{more}) and answers with one of them "
        "whatever it is shown."
    )


def launch(page: gr.Blocks, host: str, port: int, *, block: bool = True) -> Any:
    """Serve the page; nothing leaves this machine, and nothing outside is asked."""
    return page.queue(max_size=64, default_concurrency_limit=2).launch(
        server_name=host,
        server_port=port,
        share=False,
        show_error=False,
        allowed_paths=[],
        max_file_size=MAX_BYTES,
        strict_cors=True,
        prevent_thread_lock=not block,
        footer_links=["api"],
        theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
        quiet=True,  # Gradio would suggest a public link
    )
