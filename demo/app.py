"""The page as Gradio blocks. Logic lives in the rooms below; here it is only laid out and wired."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import gradio as gr
from PIL import Image

from nbdt.correction import picture_hash
from nbdt.errors import NBDTError
from nbdt.explain import explain
from nbdt.explain.result.pictures import overlays
from nbdt.model.model import NBDT

from .corrections.panel import correction_panel, correction_part
from .editing.panel import draw_edits, edit_api, edit_panel, edit_view
from .errors import refused
from .examples import examples, examples_view
from .forgotten import tell_forgotten
from .ui.part import part
from .ui.stage import Stage
from .uploads import opened, photograph, refuse_addresses, upload_folder
from .views.answer import answer_view, draw_answer
from .views.node import draw_node, node_view
from .views.strip import draw_strip, strip_view
from .views.tree import draw as draw_tree
from .views.tree import path_record, tree_record, tree_view
from .visitor import Visitor

if TYPE_CHECKING:
    from nbdt.explain import EvidenceIndex

    from .store import Store

STATE_S = 2 * 3600  # seconds after its last photograph that a visitor is forgotten
FILES_S = 3600  # seconds that an uploaded file is kept
TOP = (
    '<header class="nbdt-top"><h1>See the decision</h1><p class="nbdt-lead">A network that answers '
    "with a path, from the general to the particular. At every fork you see how sure it was, and "
    "which part of the photograph decided.</p></header>"
)
QUICK: dict[str, Any] = {
    "queue": False,
    "show_progress": "hidden",
    "trigger_mode": "multiple",
    "api_visibility": "private",
}


def build(
    model: NBDT,
    *,
    store: Store | None = None,
    index: EvidenceIndex | None = None,
    apply_data: Path | None = None,
    source: str = "MODEL",
) -> gr.Blocks:
    """The page for one model.

    Args:
        model: what answers, in evaluation mode.
        store: keeps corrections and saved hierarchies; without one nothing is kept.
        index: training photographs for both sides of each step.
        apply_data: photographs that corrections are applied with; None where nobody may.
        source: what the model is called on the command line.

    Raises:
        NBDTError: the index belongs to another network.
    """
    if index is not None:
        index.for_model(model)
    # Read by every component when it is made; of our own, so that it can be emptied by age.
    os.environ["GRADIO_TEMP_DIR"] = str(upload_folder())
    with gr.Blocks(
        title="NBDT: see the decision", analytics_enabled=False, delete_cache=(600, FILES_S)
    ) as page:
        newcomer = Visitor.new(model, index)
        visitor = gr.State(newcomer, time_to_live=STATE_S)
        gr.HTML(TOP, html_template=TOP, js_on_load=None, apply_default_css=False)
        with gr.Row(elem_classes="nbdt-stage"):
            with gr.Column(scale=4, min_width=300, elem_classes="nbdt-left"):
                photo = photograph(
                    "Photograph", sources=["upload", "webcam", "clipboard"], elem_id="nbdt-photo"
                )
                chosen = examples_view(model)
            with gr.Column(scale=7, min_width=300, elem_classes="nbdt-right"):
                answer = answer_view(model)
                tree = tree_view()
                tree.props |= _first_tree(newcomer)
                node = node_view()
                edits = edit_view()
        strip = strip_view()
        note = part("note", "note.js", text="")
        correction = correction_part()
        stage = Stage(
            page=page,
            store=store,
            visitor=visitor,
            tree=tree,
            strip=strip,
            note=note,
            parts=(
                (answer, draw_answer),
                (tree, draw_tree),
                (strip, partial(draw_strip, source=source)),
                (node, draw_node),
                (edits, draw_edits),
                correction,
            ),
            apply_data=apply_data,
        )
        edit_panel(stage, edits)
        correction_panel(stage, correction[0], model)
        _wire_photograph(stage, photo, chosen, answer)
        _wire_nodes(stage, node)
        tell_forgotten(stage, {tree: "reply", edits: "said", correction[0]: "reply"})
        _api(model)
        edit_api(model)
    refuse_addresses(page)
    return cast(gr.Blocks, page)


# ---- events ------------------------------------------------------------------------------------


def _wire_photograph(stage: Stage, photo: gr.Image, chosen: gr.HTML, answer: gr.HTML) -> None:
    outputs = [stage.visitor, *stage.shown]

    def show(visitor: Visitor, path: str | None) -> tuple[Any, ...]:
        visitor.arrived = True
        try:
            if path:
                visitor.show(opened(path))
            else:
                visitor.photo = None
            return visitor, *stage.redraw(visitor)
        except NBDTError as error:
            raise refused(error) from None

    def pick(visitor: Visitor, event: gr.EventData) -> tuple[Any, ...]:
        found = examples().get(str(field(event, "name")))
        if found is None:
            raise refused("There is no such example; choose one of those on the page.")
        return str(found.path), *show(visitor, str(found.path))

    def change(visitor: Visitor, path: str | None) -> tuple[Any, ...]:
        """Also called after an example was picked, which is shown already."""
        try:
            known = visitor.photo.hash if visitor.photo else None
            if path and picture_hash(opened(path)) == known:
                return visitor, *(gr.skip() for _ in stage.shown)
        except NBDTError as error:
            raise refused(error) from None
        return show(visitor, path)

    # Not `input`: that comes once more, with the old file, when a photograph is taken away.
    photo.change(
        change,
        [stage.visitor, photo],
        outputs,
        show_progress_on=answer,
        api_visibility="private",
        concurrency_id="network",
        concurrency_limit=2,
    )
    chosen.pick(
        pick,
        stage.visitor,
        [photo, *outputs],
        show_progress_on=answer,
        api_visibility="private",
        concurrency_id="network",
    )


def _first_tree(newcomer: Visitor) -> dict[str, str]:
    """The tree comes with the page: no second request."""
    tree, rule = newcomer.hierarchy, newcomer.model.rule
    return {"tree": tree_record(tree), "path": path_record(newcomer.stack, rule, None)}


def _wire_nodes(stage: Stage, node: gr.HTML) -> None:
    def select(visitor: Visitor, event: gr.EventData) -> gr.HTML:
        try:
            visitor.select(field(event, "id"))
            return draw_node(visitor, photo=False)
        except NBDTError as error:
            raise refused(error) from None

    def close(visitor: Visitor) -> gr.HTML:
        visitor.selected = None
        return draw_node(visitor, photo=False)

    stage.tree.node_select(select, stage.visitor, node, **QUICK)
    node.node_close(close, stage.visitor, node, **QUICK)


def field(event: gr.EventData, name: str) -> Any:
    """What the browser sent under that name; None if it sent nothing or no event at all."""
    data = getattr(event, "_data", None)
    return data.get(name) if isinstance(data, dict) else None


# ---- for programs ------------------------------------------------------------------------------


def _api(model: NBDT) -> None:
    """``/explain``: one image to the path as JSON, beside one picture a decision."""
    with gr.Row(visible=False):
        image, record, pictures = photograph("image"), gr.JSON(), gr.Gallery(format="png")
        go = gr.Button()

    def explain_image(image: str) -> tuple[dict[str, Any], list[tuple[Image.Image, str]]]:
        if not image:
            raise refused("Send one image.")
        try:
            found = explain(model, opened(image))[0]
        except NBDTError as error:
            raise refused(error) from None
        captions = [decision.children[decision.chosen] for decision in found.path]
        return found.path.to_dict(), list(zip(overlays(found), captions, strict=True))

    go.click(
        explain_image,
        image,
        [record, pictures],
        api_name="explain",
        concurrency_id="network",
    )
