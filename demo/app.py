"""The page as Gradio blocks: its layout, and what its events call."""

from functools import partial
from pathlib import Path
from typing import Any, cast

import gradio as gr
from PIL import Image

from nbdt.correction import picture_hash
from nbdt.errors import NBDTError
from nbdt.explain import Evidence, explain
from nbdt.explain.result.pictures import overlays
from nbdt.model.model import NBDT

from .corrections.panel import correction_panel
from .corrections.views import correction_component, draw_form
from .editing.panel import draw_edits, edit_api, edit_panel, edit_view
from .photographs import examples, examples_view, opened, photograph, refuse_addresses
from .store import Store
from .ui.component import component
from .ui.events import (
    FORGOTTEN,
    NETWORK,
    QUICK,
    Drawn,
    PageContext,
    mark_arrived,
    payload,
    refusing,
)
from .uploads import use_upload_folder
from .views.answer import answer_view, draw_answer
from .views.decisions import draw_node, draw_strip, node_view, strip_view
from .views.effect import effect_panel
from .views.levels import level_panel
from .views.tree import draw as draw_tree
from .views.tree import path_record, synonyms, tree_record, tree_view
from .visitor import Visitor, text_list

STATE_S = 2 * 3600  # seconds after a visitor's last photograph until their state is dropped
TOP = (
    '<header class="nbdt-top"><h1>See the decision</h1><p class="nbdt-lead">A network that answers '
    "with a path, from the general to the particular. At every fork you see how sure it was, and "
    "which part of the photograph decided.</p></header>"
)
REPORTED = (
    "answer",
    "promise",
    "removed_probability",
    "remark",
    "answered_by",
)  # by the API, beside the path


def build(
    model: NBDT,
    *,
    store: Store | None = None,
    index: Evidence | None = None,
    apply_data: Path | None = None,
    source: str = "MODEL",
) -> gr.Blocks:
    """Return the page for one model, which is in evaluation mode.

    Args:
        store: keeps corrections and saved hierarchies; without one nothing is kept.
        index: training photographs for both sides of each step.
        apply_data: the training data for applying corrections; None if visitors may not apply any.
        source: the model's name on the command line.

    Raises NBDTError: the memory belongs to another network.
    """
    if index is not None:
        index.for_model(model)
    use_upload_folder()
    with gr.Blocks(title="NBDT: see the decision", analytics_enabled=False) as page:
        first = Visitor(model, index)
        visitor = gr.State(first, time_to_live=STATE_S)
        gr.HTML(TOP, html_template=TOP, js_on_load=None, apply_default_css=False)
        photo, examples_row, tree, drawn = _layout(first, source)
        note = component("note", "note.js", text="")
        form = correction_component()
        parts = (*drawn.values(), (form, draw_form))
        context = PageContext(page, store, visitor, tree, note, parts, apply_data)
        edit_panel(context, drawn["edits"][0])
        correction_panel(context, form, drawn["strip"][0], model)
        effect_panel(context, drawn["strip"][0])
        level_panel(context, drawn["strip"][0], drawn["node"][0])
        _wire_photograph(context, photo, examples_row, drawn["answer"][0])
        _wire_nodes(context, drawn["node"][0])
        if store is None:  # otherwise the correction panel handles the event
            page.load(mark_arrived, visitor, visitor, **QUICK)
        _explain_api(model)
        edit_api(model)
    refuse_addresses(page)
    return cast(gr.Blocks, page)


def _layout(first: Visitor, source: str) -> tuple[gr.Image, gr.HTML, gr.HTML, dict[str, Drawn]]:
    """Place the components; returns the input, the examples, the tree, and what is drawn by name."""
    with gr.Row(elem_classes="nbdt-stage"):
        with gr.Column(scale=4, min_width=300, elem_classes="nbdt-left"):
            photo = photograph(
                "Photograph", sources=["upload", "webcam", "clipboard"], elem_id="nbdt-photo"
            )
            examples_row = examples_view(first.model)
        with gr.Column(scale=7, min_width=300, elem_classes="nbdt-right"):
            answer = answer_view(first.model)
            tree = tree_view()
            # The hierarchy comes with the page: no second request.
            path = path_record(first)
            words = synonyms(first.hierarchy)
            tree.props |= {"tree": tree_record(first.hierarchy), "path": path, "synonyms": words}
            node = node_view()
            edits = edit_view()
    drawn: dict[str, Drawn] = {
        "answer": (answer, draw_answer),
        "tree": (tree, draw_tree),
        "strip": (strip_view(), partial(draw_strip, source=source)),
        "node": (node, draw_node),
        "edits": (edits, draw_edits),
    }
    return photo, examples_row, tree, drawn


# ---- events ------------------------------------------------------------------------------------


def _wire_photograph(
    context: PageContext, photo: gr.Image, examples_row: gr.HTML, answer: gr.HTML
) -> None:
    outputs = [context.visitor, *context.outputs]

    def show(visitor: Visitor, image: Image.Image | None) -> tuple[Any, ...]:
        mark_arrived(visitor)
        if image:
            visitor.show(image)
        else:
            visitor.photo = None
        return visitor, *context.redraw(visitor)

    @refusing
    def pick(visitor: Visitor, event: gr.EventData) -> tuple[Any, ...]:
        example = examples().get(str(payload(event).get("name")))
        if example is None:
            raise NBDTError("There is no such example; choose one of those on the page.")
        return str(example), *show(visitor, opened(str(example)))

    @refusing
    def change(visitor: Visitor, path: str | None) -> tuple[Any, ...]:
        """Show an upload; an example that was picked is shown already."""
        current = visitor.photo.hash if visitor.photo else None
        image = opened(path) if path else None
        if image and picture_hash(image) == current:
            return visitor, *(gr.skip() for _ in context.outputs)
        return show(visitor, image)

    # Not `input`: it fires again, with the old file, when a photograph is removed.
    options: dict[str, Any] = {"show_progress_on": answer, "concurrency_limit": 2, **NETWORK}
    photo.change(change, [context.visitor, photo], outputs, **options)
    examples_row.pick(pick, context.visitor, [photo, *outputs], show_progress_on=answer, **NETWORK)


def _wire_nodes(context: PageContext, node: gr.HTML) -> None:
    @refusing
    def select(visitor: Visitor, event: gr.EventData) -> tuple[Any, ...]:
        if not visitor.arrived:
            return gr.skip(), gr.HTML(text=FORGOTTEN)
        visitor.select(payload(event).get("id", ""))
        return draw_node(visitor), gr.HTML(text="")

    def close(visitor: Visitor) -> gr.HTML:
        visitor.selected = None
        return draw_node(visitor)

    # The note shows what a forgotten visitor reads: Gradio shows errors of queued events alone.
    context.tree.node_select(select, context.visitor, [node, context.note], **QUICK)
    node.node_close(close, context.visitor, node, **QUICK)


# ---- for programs ------------------------------------------------------------------------------


def _explain_api(model: NBDT) -> None:
    """Offer ``/explain``: it takes one image and returns the answer as JSON and a picture a decision."""
    with gr.Row(visible=False):
        image, record, pictures = photograph("image"), gr.JSON(), gr.Gallery(format="png")
        names, go = gr.JSON(label="only"), gr.Button()

    @refusing
    def explain_image(
        image: str, only: Any = None
    ) -> tuple[dict[str, Any], list[tuple[Image.Image, str]]]:
        """Explain one image, with the classes and groups of the list `only`, by default with all."""
        if not image:
            raise NBDTError("Send one image.")
        asked = model if only is None else model.restrict(text_list(only))
        explanation = explain(asked, opened(image), level="fast")[0]
        facts = {key: explanation.made.get(key) for key in REPORTED}
        captions = [decision.children[decision.chosen] for decision in explanation.path]
        pairs = zip(overlays(explanation), captions, strict=True)
        return {**explanation.path.to_dict(), **facts}, list(pairs)

    outputs, network = [record, pictures], NETWORK["concurrency_id"]
    go.click(explain_image, [image, names], outputs, api_name="explain", concurrency_id=network)
