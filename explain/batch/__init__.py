"""Any number of images explained, a row an image, in Parquet parts that survive a kill."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nbdt.lazy import lazy

if TYPE_CHECKING:
    from .run import explain_all as explain_all

__all__ = ["explain_all"]
__getattr__ = lazy(__name__, {"explain_all": "run"})
