"""What happens without a training photograph: asked on the strip, and done for one visitor."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gradio as gr

from nbdt.errors import NBDTError
from nbdt.explain.memory.effect import answer_words, effect_words

from ..corrections.own_model import OwnModel
from ..ui.component import dump
from ..ui.events import QUICK, PageContext, payload, refusing, sequence_number
from ..visitor import Visitor

if TYPE_CHECKING:
    from nbdt.memory.effect import Effect


def effect_panel(context: PageContext, strip: gr.HTML) -> None:
    """Wire the strip's questions; without a store also what the visitor decides.

    With a store that is a mark, which the correction panel keeps.
    """
    options: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    strip.ask_effect(_ask, context.visitor, strip, concurrency_id="network", **options)
    if context.store is None:
        outputs = [context.visitor, *context.outputs]
        strip.strike(_changing(context, strike), context.visitor, outputs, **QUICK)
        strip.take_back(_changing(context, take_back), context.visitor, outputs, **QUICK)


def _ask(visitor: Visitor, event: gr.EventData) -> gr.HTML:
    sent = payload(event)
    reply: dict[str, Any] = {"seq": sequence_number(sent), "row": str(sent.get("row", ""))[:64]}
    try:
        done = effect_without(visitor, sent.get("row"))
        path = answer_words(*done.paths(visitor.current_model().head.rules, _features(visitor)))
        reply["lines"] = [f"This photograph: {path}", *effect_words(done)]
    except NBDTError as error:
        reply["error"] = str(error)
    return gr.HTML(effect=dump(reply))


def _features(visitor: Visitor) -> Any:
    if visitor.photo is None:
        raise NBDTError("There is no photograph yet; upload one first.")
    return visitor.photo.features


def effect_without(visitor: Visitor, row: object) -> Effect:
    """Return the effect of striking a row out of what the visitor's answers are fitted on.

    Raises:
        NBDTError: no such row, a class that would have too few left, or a model without a memory.
    """
    from nbdt.memory.effect import effect_of

    model = visitor.current_model()
    if model.memory is None or model.fitted is None or not isinstance(row, str):
        raise NBDTError("These answers are not fitted on a memory of photographs.")
    return effect_of(model.memory, model.head.rules, model.fitted, [row])


def strike(visitor: Visitor, row: object) -> None:
    """Answer this visitor without a photograph from now on. Raises as `effect_without`."""
    from nbdt.memory.corrected import Corrected
    from nbdt.memory.preview import Change, with_head

    done = effect_without(visitor, row)
    before = () if visitor.own is None else visitor.own.corrected.changes
    rows, changes = done.memory.rows, (*before, Change(str(row)))
    corrected = Corrected(
        rows, done.after, changes, {}, done.photographs, len(done.changed),
        done.accuracy[1] - done.accuracy[0],
    )  # fmt: skip
    model = with_head(visitor.answering, done.after, done.memory)
    visitor.adapt(OwnModel(model, corrected, visitor.own))


def take_back(visitor: Visitor, row: object) -> None:
    """Let a photograph count again; without later strikes the model is the one before, to the bit."""
    later: list[str] = []
    while visitor.own is not None:
        last = visitor.own.corrected.changes[-1].id
        visitor.adapt(visitor.own.before)
        if last == row:
            break
        later.append(last)
    for key in reversed(later):
        strike(visitor, key)


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


def _changing(
    context: PageContext, act: Callable[[Visitor, object], None]
) -> Callable[..., tuple[Any, ...]]:
    @refusing
    def handle(visitor: Visitor, event: gr.EventData) -> tuple[Any, ...]:
        act(visitor, payload(event).get("reference"))
        return visitor, *context.redraw(visitor)

    return handle
