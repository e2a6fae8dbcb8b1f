"""The page's store in SQLite or PostgreSQL: corrections, photographs, hierarchies, models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nbdt.lazy import lazy

if TYPE_CHECKING:
    from .store import Store as Store

__all__ = ["Store"]
__getattr__ = lazy(__name__, {"Store": "store"})
