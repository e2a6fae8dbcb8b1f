"""Changes that people make to a hierarchy: edits, records, undo, history and differences."""

from .operations import apply, group, merge, move, rename, split, swap, ungroup
from .record import Edit, EditError
from .undo import EditStack

__all__ = [
    "Edit", "EditError", "EditStack", "apply", "group", "merge", "move", "rename", "split", "swap",
    "ungroup",
]  # fmt: skip
