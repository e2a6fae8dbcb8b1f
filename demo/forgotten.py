"""A visitor whom the server has forgotten, while their page still shows what it knew of them.

States are dropped by age and number, and with the server. Who comes back is a newcomer to the
server, and would be told that nothing was ever uploaded or edited.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import gradio as gr

from .ui.part import dump
from .ui.stage import Stage
from .visitor import Visitor

FORGOTTEN = "The server has forgotten this page: its edits are gone. Show the photograph again."


def tell_forgotten(stage: Stage, ways: dict[Any, str]) -> None:
    """Let what shows a visitor's state tell who never arrived that they are forgotten.

    Opening the page is arriving, and so is showing a photograph, which draws everything anew.

    Args:
        stage: the page, with all its events.
        ways: the property in which a part shows an answer; the others' stands in the page's note.
    """
    opened = False
    for event in stage.page.fns.values():
        if stage.visitor not in event.inputs or event.fn is None:
            continue
        block, name = event.targets[0]
        part = None if block is None else stage.page.blocks.get(block)
        if name == "load":
            event.fn, opened = _arriving(event.fn), True
        elif part in stage.shown and name != "node_close":  # which may always be closed
            if part in ways and part in event.outputs:
                event.fn = _known(event.fn, part, event.outputs, ways[part])
            else:  # an error would not be seen: Gradio shows those of queued events alone
                event.fn = _noted(event.fn, len(event.outputs))
                event.outputs = [*event.outputs, stage.note]
    if not opened:
        stage.page.load(
            _arriving(lambda visitor: visitor),
            stage.visitor,
            stage.visitor,
            queue=False,
            show_progress="hidden",
            api_visibility="private",
        )


def _arriving(handle: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(handle)
    def arrive(visitor: Visitor, *rest: Any) -> Any:
        visitor.arrived = True
        return handle(visitor, *rest)

    return arrive


def _known(
    handle: Callable[..., Any], part: Any, outputs: Sequence[Any], way: str
) -> Callable[..., Any]:
    @wraps(handle)
    def known(visitor: Visitor, *rest: Any) -> Any:
        if visitor.arrived:
            return handle(visitor, *rest)
        props: dict[str, Any] = {way: _answer(rest)}
        told = gr.HTML(**props)
        answers = [told if output is part else gr.skip() for output in outputs]
        return answers if len(answers) > 1 else told

    return known


def _noted(handle: Callable[..., Any], outputs: int) -> Callable[..., Any]:
    @wraps(handle)
    def noted(visitor: Visitor, *rest: Any) -> tuple[Any, ...]:
        note: dict[str, Any] = {"text": "" if visitor.arrived else FORGOTTEN}
        if not visitor.arrived:
            return *(gr.skip() for _ in range(outputs)), gr.HTML(**note)
        found = handle(visitor, *rest)
        return *(found if isinstance(found, tuple) else (found,)), gr.HTML(**note)

    return noted


def _answer(rest: tuple[Any, ...]) -> str:
    """As the tree, the edits and the corrections each understand it."""
    sent = [getattr(one, "_data", None) for one in rest if isinstance(one, gr.EventData)]
    numbers = [data.get("seq") for data in sent if isinstance(data, dict)]
    seq = next((number for number in numbers if type(number) is int), 0)
    return dump({"seq": seq, "ok": False, "done": False, "text": FORGOTTEN})
