"""Editing the hierarchy on the page: what an edit changes, undo and redo, versions, files."""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import gradio as gr

from nbdt.errors import NBDTError
from nbdt.hierarchies.edit import EditError, EditStack
from nbdt.hierarchies.edit.record import Consequences, consequences
from nbdt.hierarchies.measure.effect import Reference, effect, reference_effect
from nbdt.model.model import NBDT
from nbdt.tree.hierarchy import Hierarchy
from nbdt.tree.nodes import short

from ..ui.component import component, dump
from ..ui.events import QUICK, PageContext, for_arrived, payload, refusing, sequence_number
from ..visitor import Visitor
from . import versions
from .edits import edited, in_words, suggest
from .versions import short_hash

MAX_EDITS = 200  # in one call of the API
MAX_TEXT = 2**22  # characters of one call


def edit_view() -> gr.HTML:
    """Return the part that shows what an edit changes, and versions. Its props are JSON text."""
    props = dict.fromkeys(("effect", "status", "file", "saved", "difference"), "")
    files = "edit_effect.js", "edit_versions.js", "edit.js"
    return component("edit", *files, label="Your hierarchy", **props)


def draw_edits(visitor: Visitor) -> gr.HTML:
    """Draw what the visitor's edits change."""
    return gr.HTML(effect=dump(effect_record(visitor)))


def effect_record(visitor: Visitor) -> dict[str, Any]:
    """Measure the last edit, and all edits since the model's own hierarchy, as plain data."""
    model, stack = visitor.answering, visitor.stack
    own, now, before = model.hierarchy, stack.hierarchy, stack.before_last
    records = stack.last_edits
    if now is own or now.hash == own.hash:
        return {"edited": False, "hash": short_hash(now)}
    reference, problem = _reference(model if visitor.only is None else visitor.current_model())
    possible = consequences(records, model.rule) if records else None
    recent = [visitor.logits(photo) for photo in visitor.recent]

    def measured(since: Hierarchy) -> dict[str, Any]:
        trees = visitor.possible(since), visitor.possible(now)
        record = effect(*trees, model.rule, recent, reference)
        return record if visitor.photo else {**record, "before": None, "after": None}

    return {
        "edited": True,
        "hash": short_hash(now),
        "edits": len(stack.past),
        "words": in_words(records) or "This hierarchy is from a file or a saved version.",
        "consequences": _in_plain_words(possible, model.rule),
        "soft_changes": model.rule != "marginal",
        "problem": problem,
        "step": measured(before) if records else None,
        "total": None if records and before.hash == own.hash else measured(own),
    }


def _in_plain_words(possible: Consequences | None, rule: str) -> str:
    """Say without technical terms what an edit, or another hierarchy (None), can change."""
    if possible and not possible.hard_answer:
        return "A new name changes no decision and no answer."
    what = "an edit like this" if possible else "another hierarchy"
    if possible.soft_answer if possible else rule != "marginal":
        rest = "the path and the class at its end"
    else:
        rest = "the path, and where the likeliest child at every step leads; never the answer"
    return f"In this model {what} can change {rest}."


def _reference(model: NBDT) -> tuple[Reference | None, str]:
    """Return the reference set, and in words why there is none."""
    try:
        reference = Reference.of(model)
    except NBDTError as error:
        return None, str(error)
    missing = "This model was saved without a reference set, so its accuracy cannot be measured."
    return reference, "" if reference else missing


def edit_panel(context: PageContext, view: gr.HTML) -> None:
    """Wire the tree's edits and the buttons of `edit_view`; call it inside the page's Blocks."""
    panel, outputs = EditPanel(context, view), [context.visitor, *context.outputs]
    tree, visitor = context.tree, context.visitor
    tree.tree_edit(
        for_arrived(panel.tree_changed(_edit), tree, "reply", outputs), visitor, outputs, **QUICK
    )
    tree.tree_only(
        for_arrived(panel.tree_changed(_allow), tree, "reply", outputs), visitor, outputs, **QUICK
    )
    tree.name_wanted(for_arrived(offer_names, tree, "reply", [tree]), visitor, tree, **QUICK)
    for name in versions.ACTIONS:
        act = for_arrived(panel.act(name), view, "status", outputs)
        getattr(view, f"edit_{name}")(act, visitor, outputs, **QUICK)


@dataclass(frozen=True)
class EditPanel:
    """Handlers of events; each returns the visitor and a value for every part of the page."""

    context: PageContext
    view: gr.HTML

    def tree_changed(
        self, act: Callable[[Visitor, dict[str, Any]], str]
    ) -> Callable[..., tuple[Any, ...]]:
        """Return the handler that does what the tree sends; the line below the tree says what."""
        tree = self.context.tree

        def handle(visitor: Visitor, event: gr.EventData) -> tuple[Any, ...]:
            before, sent = (visitor.stack, visitor.only), payload(event)
            reply: dict[str, Any] = {"seq": sequence_number(sent), "ok": True}
            try:
                reply |= {"text": act(visitor, sent), "hash": short_hash(visitor.hierarchy)}
                return self._redrawn(visitor, {tree: {"reply": dump(reply)}})
            except NBDTError as error:
                visitor.stack, visitor.only = before
                reply = {"seq": reply["seq"], "ok": False, "text": str(error)}
                return self._only(tree, {"reply": dump(reply)})

        return handle

    def act(self, name: str) -> Callable[..., tuple[Any, ...]]:
        """Return the handler of one of the panel's buttons."""

        def handle(visitor: Visitor, event: gr.EventData) -> tuple[Any, ...]:
            before = visitor.stack
            try:
                props = versions.ACTIONS[name](self.context.store, visitor, payload(event))
                if visitor.stack is before:
                    return self._only(self.view, props)
                return self._redrawn(visitor, {self.view: props})
            except NBDTError as error:
                return self._only(self.view, {"status": dump({"ok": False, "text": str(error)})})

        return handle

    def _redrawn(self, visitor: Visitor, more: dict[gr.HTML, versions.Props]) -> tuple[Any, ...]:
        """Draw every part; `more` holds props that a part gets in addition."""
        if visitor.selected not in visitor.hierarchy.ids:
            visitor.selected = None
        drawn = []
        for shown, draw in self.context.components:
            value = draw(visitor)
            added = more.get(shown)
            drawn.append(gr.HTML(**{**value.constructor_args, **added}) if added else value)
        return visitor, *drawn

    def _only(self, target: gr.HTML, props: versions.Props) -> tuple[Any, ...]:
        """Change these props of one part, and nothing else."""
        shown = self.context.outputs
        return gr.skip(), *(gr.HTML(**props) if one is target else gr.skip() for one in shown)


def offer_names(visitor: Visitor, event: gr.EventData) -> gr.HTML:
    """Suggest names for a group that the visitor is about to make."""
    sent, names = payload(event), list[str]()
    with suppress(NBDTError):
        names = suggest(visitor.hierarchy, sent.get("nodes") or [])
    return gr.HTML(names=dump({"seq": sent.get("seq"), "names": names}))


def _allow(visitor: Visitor, sent: dict[str, Any]) -> str:
    visitor.allow(sent.get("names"))
    classes = len(visitor.hierarchy.classes)
    if visitor.only is None:
        return f"All {classes:,} classes are allowed again."
    return f"It now answers only with {len(visitor.only):,} of {classes:,} classes."


def _edit(visitor: Visitor, sent: dict[str, Any]) -> str:
    visitor.stack = stack = edited(visitor.stack, sent)
    kind = sent.get("kind")
    if kind == "undo":
        return f"Undone. It was: {in_words(stack.next_edits)}"
    if kind == "reset":
        return "Back at the hierarchy that you began with."
    return f"{'Redone. ' if kind == 'redo' else ''}{in_words(stack.last_edits)}"


def edit_api(model: NBDT) -> None:
    """``/edit``: a hierarchy and edits in, the edited hierarchy and what it changes out."""
    with gr.Row(visible=False):
        hierarchy = gr.Textbox(label="hierarchy")
        edits = gr.Textbox(label="edits")
        result, report = gr.Textbox(label="result"), gr.JSON(label="report")
        go = gr.Button()

    @refusing
    def edit_hierarchy(hierarchy: str, edits: str) -> tuple[str, dict[str, Any]]:
        return edited_by_program(model, hierarchy, edits)

    go.click(edit_hierarchy, [hierarchy, edits], [result, report], api_name="edit")


def edited_by_program(model: NBDT, hierarchy: str, edits: str) -> tuple[str, dict[str, Any]]:
    """Return the edited hierarchy as JSON, and a report of the edits and what they change.

    Args:
        hierarchy: what `Hierarchy.to_json` gives; "" for the model's own.
        edits: a JSON list of objects with ``kind``, ``nodes`` and, as the kind needs them, ``to``
            and ``name``.

    Raises NBDTError: a hierarchy of other classes, or an edit that cannot be made; then none is
    made.
    """
    for text in (hierarchy, edits):
        if not isinstance(text, str) or len(text) > MAX_TEXT:
            raise EditError(f"Send JSON text of at most {MAX_TEXT:,} characters.")
    own = model.hierarchy
    start = versions.fitted(Hierarchy.from_json(hierarchy), own.classes) if hierarchy else own
    stack = EditStack(start)
    for payload_of_edit in _edit_list(edits):
        stack = edited(stack, payload_of_edit)
    reference, problem = _reference(model)
    report: dict[str, Any] = {
        "edits": [record.to_dict() for record in stack.edits],
        "consequences": consequences(stack.edits, model.rule).to_dict(),
        "reference": reference_effect(start, stack.hierarchy, model.rule, reference),
    }
    return stack.hierarchy.to_json(), report | ({"problem": problem} if problem else {})


def _edit_list(text: str) -> list[Any]:
    try:
        edits = json.loads(text) if text.strip() else []
    except (ValueError, RecursionError) as error:
        raise EditError(f"The edits are not JSON ({short(str(error))}).") from None
    if not isinstance(edits, list) or len(edits) > MAX_EDITS:
        raise EditError(f"Expected a JSON list of at most {MAX_EDITS} edits, got {short(edits)}.")
    return edits
