"""What the panels of the page share: its components, and the options and checks of its events."""

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr

from nbdt.errors import NBDTError

from ..store import Store
from ..visitor import Visitor
from .component import dump

Drawn = tuple[gr.HTML, Callable[[Visitor], gr.HTML]]  # a component and the function that draws it

# Options of events that are answered at once: no queue, no progress bar, not part of the API.
QUICK: dict[str, Any] = {
    "queue": False,
    "show_progress": "hidden",
    "trigger_mode": "multiple",
    "api_visibility": "private",
}
# Options of events that run the network: one at a time, not part of the API.
NETWORK: dict[str, Any] = {"api_visibility": "private", "concurrency_id": "network"}
# The server drops a visitor's state after some hours, when there are too many, and when it stops.
# The page of such a visitor still shows what the server no longer has.
FORGOTTEN = "The server has forgotten this page: its edits are gone. Show the photograph again."


@dataclass(frozen=True)
class PageContext:
    """What a panel needs to join the page."""

    page: gr.Blocks  # the page itself, for what happens when it is opened
    store: Store | None  # corrections and saved hierarchies; None if nothing is to be kept
    visitor: gr.State  # a `Visitor`, on the server only
    tree: gr.HTML  # the interactive hierarchy
    note: gr.HTML  # one line for results and errors, read out by screen readers; its prop is `text`
    # every output that shows the visitor's state, with the function that draws it
    components: tuple[Drawn, ...]
    # the training data for applying corrections; None where visitors may not
    apply_data: Path | None = None

    @property
    def outputs(self) -> list[gr.HTML]:
        """The components that are drawn again after any change of the visitor."""
        return [component for component, _ in self.components]

    def redraw(self, visitor: Visitor) -> tuple[Any, ...]:
        """Return values for `outputs`."""
        return tuple(draw(visitor) for _, draw in self.components)


def refused(error: NBDTError | str) -> gr.Error:
    """Return the error for the page and the API; Gradio shows messages as HTML, so escape it."""
    return gr.Error(html.escape(str(error), quote=False), print_exception=False)


def refusing(handle: Callable[..., Any]) -> Callable[..., Any]:
    """Turn a handler's `NBDTError` into `refused`, for the page and the API."""

    @wraps(handle)
    def checked(*values: Any) -> Any:
        try:
            return handle(*values)
        except NBDTError as error:
            raise refused(error) from None

    return checked


def payload(event: gr.EventData) -> dict[str, Any]:
    """Return what the browser sent with an event; empty if it was anything but an object."""
    data = getattr(event, "_data", None)
    return data if isinstance(data, dict) else {}


def sequence_number(sent: dict[str, Any]) -> int:
    """Return the number by which the browser recognises the reply to what it sent."""
    number = sent.get("seq")
    return number if type(number) is int else 0


def reply_to(sent: dict[str, Any], text: str, *, done: bool = False) -> str:
    """Return the reply to what a browser sent, as JSON text: `done` or why not."""
    return dump({"seq": sequence_number(sent), "done": done, "text": text})


def for_arrived(
    handle: Callable[..., Any], component: gr.HTML, prop: str, outputs: Sequence[Any]
) -> Callable[..., Any]:
    """Let only visitors who arrived reach a handler; the others read `FORGOTTEN`.

    A visitor arrives by opening the page or by showing a photograph, which draws everything again.
    The handler returns values for `outputs`; `component` is the one that shows replies, as `prop`.
    """

    @wraps(handle)
    def checked(visitor: Visitor, *rest: Any) -> Any:
        if visitor.arrived:
            return handle(visitor, *rest)
        events = [value for value in rest if isinstance(value, gr.EventData)]
        number = sequence_number(payload(events[0])) if events else 0
        reply = dump({"seq": number, "ok": False, "done": False, "text": FORGOTTEN})
        props: dict[str, Any] = {prop: reply}
        shown = gr.HTML(**props)
        values = [shown if output is component else gr.skip() for output in outputs]
        return values if len(values) > 1 else shown

    return checked


def mark_arrived(visitor: Visitor) -> Visitor:
    """Note that the visitor opened the page; the handler of its ``load`` event."""
    visitor.arrived = True
    return visitor
