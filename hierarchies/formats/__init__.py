"""Hierarchies in files of several formats: `read` and `write`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nbdt.lazy import lazy

if TYPE_CHECKING:
    from .class_order import FormatError as FormatError
    from .files import read as read
    from .files import write as write

_HOME = {"FormatError": "class_order", "read": "files", "write": "files"}
__all__ = sorted(_HOME)
__getattr__ = lazy(__name__, _HOME)
