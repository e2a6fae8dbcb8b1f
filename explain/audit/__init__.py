"""Whether a model's explanations can be trusted, measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nbdt.lazy import lazy

if TYPE_CHECKING:
    from .run import audit as audit

__all__ = ["audit"]
__getattr__ = lazy(__name__, {"audit": "run"})
