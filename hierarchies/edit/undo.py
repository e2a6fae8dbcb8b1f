"""Undo and redo: every hierarchy in between is kept, so both are exact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from nbdt.tree.hierarchy import Hierarchy

from .draft import Draft
from .operations import group, move
from .record import Edit, EditError

LIMIT = 1000  # edits that can be undone; a version of 1,000 classes takes some 0.4 MB


@dataclass(frozen=True)
class EditStack:
    """A hierarchy with the edits that led to it and those that were undone. Immutable.

    ::

        stack = EditStack(hierarchy)
        stack = stack.push(edit.move(stack.hierarchy, "owl", "predator"))
        stack = stack.undo()
    """

    hierarchy: Hierarchy  # the tree as it is now
    # For each edit made, the tree before it and its record, oldest first.
    past: tuple[tuple[Hierarchy, Edit], ...] = ()
    # For each edit undone, the tree after it and its record, the next to redo last.
    future: tuple[tuple[Hierarchy, Edit], ...] = ()

    @property
    def edits(self) -> tuple[Edit, ...]:
        """The edits in force, oldest first."""
        return tuple(record for _, record in self.past)

    def push(self, result: tuple[Hierarchy, Edit]) -> EditStack:
        """With the result of an edit of `hierarchy`. Undone edits are forgotten.

        Only the last 1,000 edits can be undone.

        Raises EditError: the edit was made on another tree.
        """
        changed, record = result
        if record.before != self.hierarchy.hash or record.after != changed.hash:
            raise EditError(
                f"This edit ({record.summary}) was made on the hierarchy {record.before[:12]}, "
                f"while the stack is at {self.hierarchy.hash[:12]}; edit `stack.hierarchy`."
            )
        return EditStack(changed, (*self.past, (self.hierarchy, record))[-LIMIT:])

    def group(self, nodes: Sequence[str], name: str) -> EditStack:
        """Group nodes, first moved to where the last of them is if they are in different groups.

        Such a grouping is one step of `undo`, recorded as several edits: see `Edit.part_of`.

        Raises EditError: as `operations.move` and `operations.group`.
        """
        hierarchy, stack = self.hierarchy, self
        places = [*map(Draft(hierarchy).find, nodes)]
        ids = [hierarchy.ids[place] for place in places]
        around = hierarchy.parents[places[-1]] if places else -1
        for place, node in zip(places, ids, strict=True):
            if around >= 0 and hierarchy.parents[place] != around:
                now = stack.hierarchy
                to = now.ids[now.parents[now.index(ids[-1])]]
                changed, record = move(now, node, to)
                stack = stack.push((changed, replace(record, part_of="group")))
        return stack.push(group(stack.hierarchy, ids, name))

    def undo(self) -> EditStack:
        """Return the stack without the last edit and those that prepared it.

        Raises EditError: nothing to undo.
        """
        if not self.past:
            raise EditError("There is no edit to undo.")
        stack = self
        while stack is self or (stack.past and stack.past[-1][1].part_of):
            (before, record), now = stack.past[-1], stack.hierarchy
            stack = EditStack(before, stack.past[:-1], (*stack.future, (now, record)))
        return stack

    def redo(self) -> EditStack:
        """Return the stack with the edit that was undone last.

        Raises EditError: nothing to redo.
        """
        if not self.future:
            raise EditError("There is no edit to redo.")
        stack = self
        while stack is self or (stack.future and stack.past[-1][1].part_of):
            (after, record), now = stack.future[-1], stack.hierarchy
            stack = EditStack(after, (*stack.past, (now, record)), stack.future[:-1])
        return stack

    def reset(self) -> EditStack:
        """Without any edit; all of them can be redone. Raises EditError: there are none."""
        stack = self.undo()
        while stack.past:
            stack = stack.undo()
        return stack

    @property
    def last_edits(self) -> tuple[Edit, ...]:
        """What `undo` would take back, oldest first."""
        return self.edits[len(self.undo().past) :] if self.past else ()

    @property
    def next_edits(self) -> tuple[Edit, ...]:
        """What `redo` would bring back, oldest first."""
        return self.redo().edits[len(self.past) :] if self.future else ()

    @property
    def before_last(self) -> Hierarchy:
        """The tree that `undo` would give; the current one without edits."""
        return self.undo().hierarchy if self.past else self.hierarchy
