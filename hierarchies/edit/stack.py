"""Undo and redo: every tree on the way is kept, so both are exact."""

from __future__ import annotations

from dataclasses import dataclass

from nbdt.tree.hierarchy import Hierarchy

from .record import Edit, EditError

LIMIT = 1000  # edits that can be undone; a version of 1,000 classes takes some 0.4 MB


@dataclass(frozen=True)
class EditStack:
    """A hierarchy with the edits that led to it and those that were undone. Immutable.

    ::

        stack = EditStack(hierarchy)
        stack = stack.push(edit.move(stack.hierarchy, "owl", "predator"))
        stack = stack.undo()

    Attributes:
        hierarchy: the tree as it is now.
        past: for each edit made, the tree before it and its record, oldest first.
        future: for each edit undone, the tree after it and its record, the next to redo last.
    """

    hierarchy: Hierarchy
    past: tuple[tuple[Hierarchy, Edit], ...] = ()
    future: tuple[tuple[Hierarchy, Edit], ...] = ()

    @property
    def edits(self) -> tuple[Edit, ...]:
        """The edits in force, oldest first."""
        return tuple(record for _, record in self.past)

    @property
    def can_undo(self) -> bool:
        """Whether an edit is in force."""
        return bool(self.past)

    @property
    def can_redo(self) -> bool:
        """Whether an edit was undone since the last one was made."""
        return bool(self.future)

    def push(self, result: tuple[Hierarchy, Edit]) -> EditStack:
        """With the result of an edit of `hierarchy`. Undone edits are forgotten, as everywhere.

        Only the last 1,000 edits can be undone.

        Raises:
            EditError: the edit was made on another tree.
        """
        changed, record = result
        if record.before != self.hierarchy.hash or record.after != changed.hash:
            raise EditError(
                f"This edit ({record.summary}) was made on the hierarchy {record.before[:12]}, "
                f"while the stack is at {self.hierarchy.hash[:12]}; edit `stack.hierarchy`."
            )
        return EditStack(changed, (*self.past, (self.hierarchy, record))[-LIMIT:])

    def undo(self) -> EditStack:
        """Without the last edit: the very tree that was there before it.

        Raises:
            EditError: nothing to undo.
        """
        if not self.past:
            raise EditError("There is no edit to undo.")
        before, record = self.past[-1]
        return EditStack(before, self.past[:-1], (*self.future, (self.hierarchy, record)))

    def redo(self) -> EditStack:
        """With the edit that was undone last.

        Raises:
            EditError: nothing to redo.
        """
        if not self.future:
            raise EditError("There is no edit to redo.")
        after, record = self.future[-1]
        return EditStack(after, (*self.past, (self.hierarchy, record)), self.future[:-1])
