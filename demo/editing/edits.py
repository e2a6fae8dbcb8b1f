"""One visitor's edit, as it comes from the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from nbdt.hierarchies.edit.operations import make
from nbdt.hierarchies.edit.record import (
    KINDS,
    Edit,
    EditError,
    EditRequest,
    check_complete,
    check_kind,
)
from nbdt.hierarchies.edit.stack import EditStack
from nbdt.tree.nodes import MAX_NAME, short

MAX_NODES = 1000  # of one edit
MAX_UNDO = 100  # edits; a tree of 1,000 classes takes some 0.4 MB, and there are many visitors
_STEPS: dict[str, Callable[[EditStack], EditStack]] = {
    "undo": EditStack.undo,
    "redo": EditStack.redo,
    "reset": EditStack.reset,
}


def edited(stack: EditStack, payload: object) -> EditStack:
    """The stack after one edit, or after "undo", "redo" or "reset".

    Args:
        stack: stays as it is.
        payload: hostile until checked: ``kind``, and as that needs them ``nodes`` (ids or
            unambiguous names), ``to`` and ``name``; anything else is ignored.

    Raises:
        EditError: no such edit, or one that cannot be made on this tree; the message says why.
    """
    request = read_request(payload)
    if request.kind in _STEPS:
        return _STEPS[request.kind](stack)
    check_complete(request)
    if request.name in stack.hierarchy.classes:
        raise EditError(f"{short(request.name)} is a class; give the group another name.")
    if request.kind == "group":
        after = stack.group(request.nodes, request.name or "")
    else:
        after = stack.push(make(stack.hierarchy, request))
    return replace(after, past=after.past[-MAX_UNDO:])


def read_request(payload: object) -> EditRequest:
    """What came over the wire, each field of its type. Raises EditError."""
    if not isinstance(payload, Mapping):
        raise EditError(f"Expected an edit as a JSON object, got {short(payload)}.")
    kind, nodes = payload.get("kind"), payload.get("nodes") or []
    check_kind(kind, {**KINDS, **_STEPS})
    if not isinstance(nodes, list | tuple) or len(nodes) > MAX_NODES:
        raise EditError(f"Expected 'nodes' to be at most {MAX_NODES:,} ids in a list.")
    words = tuple(_word(node, "nodes") for node in nodes)
    to, name = (_optional(payload, key) for key in ("to", "name"))
    return EditRequest(str(kind), words, to, name.strip() if name else None)


def _word(value: object, field: str) -> str:
    if not isinstance(value, str) or len(value) > MAX_NAME:
        raise EditError(f"Expected {field!r} to be text of at most {MAX_NAME} characters.")
    return value


def _optional(payload: Mapping[Any, Any], field: str) -> str | None:
    value = payload.get(field)
    return None if value is None else _word(value, field)


def in_words(records: Sequence[Edit]) -> str:
    """The records of one edit as a sentence."""
    text = "; ".join(record.summary for record in records)
    return f"{text[:1].upper()}{text[1:]}." if text else ""
