"""Changes that people make to a hierarchy: edits, records, undo, history and differences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nbdt.lazy import lazy

if TYPE_CHECKING:
    from .operations import apply as apply
    from .operations import group as group
    from .operations import merge as merge
    from .operations import move as move
    from .operations import rename as rename
    from .operations import split as split
    from .operations import swap as swap
    from .operations import ungroup as ungroup
    from .record import Edit as Edit
    from .record import EditError as EditError
    from .undo import EditStack as EditStack

_OPERATIONS = ("apply", "group", "merge", "move", "rename", "split", "swap", "ungroup")
_HOME = {
    **dict.fromkeys(_OPERATIONS, "operations"),
    "Edit": "record",
    "EditError": "record",
    "EditStack": "undo",
}
__all__ = sorted(_HOME)
__getattr__ = lazy(__name__, _HOME)
