"""Explain an answer: the path, a map for each of its decisions, and pictures of both."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nbdt.lazy import lazy

if TYPE_CHECKING:
    from .attribution import explain as explain
    from .evidence.search import Evidence as Evidence
    from .result.explanation import Explanation as Explanation

_HOME = {
    "Evidence": "evidence.search",
    "Explanation": "result.explanation",
    "explain": "attribution",
}
__all__ = sorted(_HOME)
__getattr__ = lazy(__name__, _HOME)
