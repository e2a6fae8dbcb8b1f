"""What would happen without a training photograph: asked on the strip, answered by a new fit."""

from typing import Any

import gradio as gr

from nbdt.decide.paths import Path, as_percent
from nbdt.errors import NBDTError
from nbdt.memory.preview import Change, Effect, effect_of
from nbdt.model.cascade import refuse_cascade
from nbdt.progress import counted

from ..ui.component import dump
from ..ui.events import NETWORK, PageContext, payload, sequence_number
from ..visitor import Visitor

LISTED = 8  # changed answers


def effect_panel(context: PageContext, strip: gr.HTML) -> None:
    """Wire the strip's questions; a strike itself is a mark, which needs a store."""

    def ask(visitor: Visitor, event: gr.EventData) -> gr.HTML:
        sent = payload(event)
        reply: dict[str, Any] = {"seq": sequence_number(sent), "row": str(sent.get("row", ""))[:64]}
        try:
            done, (photo, _) = effect_without(visitor, sent.get("row")), visitor.shown()
            path = answer_words(*done.paths(visitor.current_model().head.rules, photo.features))
            lines = [f"This photograph: {path}", *effect_words(done)]
            reply |= {"lines": lines, "may_strike": context.store is not None}
        except NBDTError as error:
            reply["error"] = str(error)
        return gr.HTML(effect=dump(reply))

    strip.ask_effect(ask, context.visitor, strip, show_progress="hidden", **NETWORK)


def effect_without(visitor: Visitor, row: object) -> Effect:
    """Return the effect of striking a row out of what the visitor's answers are fitted on.

    Raises NBDTError: no such row, a class that would have too few left, or a model without a
    memory.
    """
    model = visitor.current_model()
    refuse_cascade(model, "fitted again", "Ask the large model.")
    if model.memory is None or model.fitted is None or not isinstance(row, str):
        raise NBDTError("These answers are not fitted on a memory of photographs.")
    changes = [Change(key) for key in model.memory.table.find([row])]
    return effect_of(model.memory, model.head.rules, model.fitted, changes)


def answer_words(before: Path, after: Path) -> str:
    """Return the answer before and after in one sentence."""
    one, other = (f"{path.class_name} {as_percent(path.probability)}" for path in (before, after))
    return f"{one} before, {other} after."


def effect_words(done: Effect) -> list[str]:
    """Return what happens to the other photographs, a line each."""
    before, after = map(as_percent, done.accuracy)
    others = counted(done.photographs, "other photograph")
    right = f"{before} right before, {after} after; {counted(len(done.changed), 'answer')} changed."
    lines = [f"{others}, each answered by a fit without it: {right}"]
    lines += [
        f"{one.reference} ({one.label}): {one.before} → {one.after}"
        for one in done.changed[:LISTED]
    ]
    more = len(done.changed) - LISTED
    return lines + ([f"and {more:,} more"] if more > 0 else [])


def struck_rows(visitor: Visitor) -> list[dict[str, str]]:
    """Return the photographs that do not count for this visitor, the last one first."""
    if visitor.own is None:
        return []
    rows = visitor.own.corrected.rows
    return [
        {"row": change.id, "name": rows.names[rows.place(change.id)]}
        for change in reversed(visitor.own.corrected.changes)
        if change.label is None and change.id in rows.places
    ]
