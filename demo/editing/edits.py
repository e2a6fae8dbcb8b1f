"""One visitor's edit, as it comes from the page, and what it changes in the answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from nbdt.errors import listed
from nbdt.hierarchies import edit
from nbdt.hierarchies.edit.draft import find
from nbdt.hierarchies.edit.operations import Edit, EditError, EditStack
from nbdt.tree.hierarchy import Hierarchy
from nbdt.tree.nodes import MAX_NAME, short

MAX_NODES = 1000  # of one edit
MAX_UNDO = 100  # edits; a tree of 1,000 classes takes some 0.4 MB, and there are many visitors
TOGETHER = ", to group them there"  # ends the record of a move that is half of a grouping

Result = tuple[Hierarchy, Edit]


class Request(NamedTuple):
    """An edit as somebody asked for it: the right types, and nothing else is known of it."""

    kind: str
    nodes: tuple[str, ...]
    to: str | None
    name: str | None

    @classmethod
    def of(cls, payload: object) -> Request:
        """From what came over the wire. Raises EditError."""
        if not isinstance(payload, Mapping):
            raise EditError(f"Expected an edit as a JSON object, got {short(payload)}.")
        kind, nodes = payload.get("kind"), payload.get("nodes") or []
        if not isinstance(kind, str) or kind not in KINDS:
            raise EditError(f"Unknown edit {short(kind)}; choose one of {listed(KINDS, 99)}.")
        if not isinstance(nodes, list | tuple) or len(nodes) > MAX_NODES:
            raise EditError(f"Expected 'nodes' to be at most {MAX_NODES:,} ids in a list.")
        words = tuple(_word(node, "nodes") for node in nodes)
        to, name = (_optional(payload, key) for key in ("to", "name"))
        request = cls(kind, words, to, name.strip() if name else None)
        request.check_complete()
        return request

    def check_complete(self) -> None:
        """Raises EditError unless this has what its kind takes."""
        least, most, needs = _TAKES[self.kind]
        if not least <= len(self.nodes) <= most:
            wanted = str(least) if least == most else f"{least} or more"
            raise EditError(f"{self.kind!r} takes {wanted} nodes, got {len(self.nodes)}.")
        for field in needs:
            if not getattr(self, field):
                raise EditError(f"{self.kind!r} needs {field!r}, which is missing or empty.")


def _word(value: object, field: str) -> str:
    if not isinstance(value, str) or len(value) > MAX_NAME:
        raise EditError(f"Expected {field!r} to be text of at most {MAX_NAME} characters.")
    return value


def _optional(payload: Mapping[Any, Any], field: str) -> str | None:
    value = payload.get(field)
    return None if value is None else _word(value, field)


# ---- the stack ---------------------------------------------------------------------------------


def edited(stack: EditStack, payload: object) -> EditStack:
    """The stack after one edit, or after "undo", "redo" or "reset".

    Args:
        stack: stays as it is.
        payload: hostile until checked: ``kind``, and as that needs them ``nodes`` (ids or
            unambiguous names), ``to`` and ``name``; anything else is ignored.

    Raises:
        EditError: no such edit, or one that cannot be made on this tree; the message says why.
    """
    request = Request.of(payload)
    if request.name in stack.hierarchy.classes:
        raise EditError(f"{short(request.name)} is a class; give the group another name.")
    after = KINDS[request.kind](stack, request)
    return replace(after, past=after.past[-MAX_UNDO:])


def undo(stack: EditStack) -> EditStack:
    """Without the last edit; a grouping across groups is one, though it was recorded as several.

    Raises:
        EditError: nothing to undo.
    """
    stack = stack.undo()
    while stack.past and _half(stack.past[-1][1]):
        stack = stack.undo()
    return stack


def redo(stack: EditStack) -> EditStack:
    """With the edit that was undone last. Raises EditError: nothing to redo."""
    stack = stack.redo()
    while _half(stack.past[-1][1]):
        stack = stack.redo()
    return stack


def reset(stack: EditStack) -> EditStack:
    """Back to where the edits began; all of them can be redone. Raises EditError: no edits."""
    stack = stack.undo()
    while stack.past:
        stack = stack.undo()
    return stack


def group(stack: EditStack, nodes: Sequence[str], name: str) -> EditStack:
    """Group nodes, first moved to where the last of them is if they are in different groups.

    Raises:
        EditError: as `nbdt.hierarchies.edit.operations.move` and `group`.
    """
    tree = stack.hierarchy
    places = [find(tree, node) for node in nodes]
    home = tree.parents[places[-1]]
    if home < 0:
        return stack.push(edit.group(tree, nodes, name))  # which refuses the root in its own words
    ids = [tree.ids[place] for place in places]
    for place, node in zip(places, ids, strict=True):
        if tree.parents[place] != home:
            now = stack.hierarchy
            changed, record = edit.move(now, node, now.ids[now.parents[now.index(ids[-1])]])
            stack = stack.push((changed, replace(record, summary=record.summary + TOGETHER)))
    return stack.push(edit.group(stack.hierarchy, ids, name))


def last_edits(stack: EditStack) -> tuple[Edit, ...]:
    """The records of the last edit: several for a grouping across groups, none without edits."""
    count = min(1, len(stack.past))
    while 0 < count < len(stack.past) and _half(stack.past[-count - 1][1]):
        count += 1
    return stack.edits[len(stack.past) - count :]


def next_edits(stack: EditStack) -> tuple[Edit, ...]:
    """The records that `redo` would bring back, in the order of their making."""
    found: list[Edit] = []
    for _, record in reversed(stack.future):
        found.append(record)
        if not _half(record):
            break
    return tuple(found)


def before_last(stack: EditStack) -> Hierarchy:
    """The tree before the last edit; the current one without edits."""
    count = len(last_edits(stack))
    return stack.past[-count][0] if count else stack.hierarchy


def in_words(records: Sequence[Edit]) -> str:
    """The records of one edit as a sentence."""
    text = "; ".join(record.summary.removesuffix(TOGETHER) for record in records)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _half(record: Edit) -> bool:
    return record.kind == "move" and record.summary.endswith(TOGETHER)


def _pushed(make: Callable[[Hierarchy, Request], Result]) -> Callable[..., EditStack]:
    return lambda stack, request: stack.push(make(stack.hierarchy, request))


KINDS: dict[str, Callable[[EditStack, Request], EditStack]] = {
    "move": _pushed(lambda h, r: edit.move(h, r.nodes[0], r.to or "")),
    "group": lambda stack, r: group(stack, r.nodes, r.name or ""),
    "ungroup": _pushed(lambda h, r: edit.ungroup(h, r.nodes[0])),
    "rename": _pushed(lambda h, r: edit.rename(h, r.nodes[0], r.name or "")),
    "merge": _pushed(lambda h, r: edit.merge(h, r.nodes[0], r.nodes[1], r.name)),
    "swap": _pushed(lambda h, r: edit.swap(h, r.nodes[0], r.nodes[1])),
    "split": _pushed(lambda h, r: edit.split(h, r.nodes[0], r.nodes[1:], r.name or "")),
    "undo": lambda stack, _: undo(stack),
    "redo": lambda stack, _: redo(stack),
    "reset": lambda stack, _: reset(stack),
}
# Fewest and most nodes, and the other fields that must be there.
_TAKES: dict[str, tuple[int, int, tuple[str, ...]]] = {
    "move": (1, 1, ("to",)),
    "group": (2, MAX_NODES, ("name",)),
    "ungroup": (1, 1, ()),
    "rename": (1, 1, ("name",)),
    "merge": (2, 2, ()),
    "swap": (2, 2, ()),
    "split": (3, MAX_NODES, ("name",)),
    "undo": (0, 0, ()),
    "redo": (0, 0, ()),
    "reset": (0, 0, ()),
}
