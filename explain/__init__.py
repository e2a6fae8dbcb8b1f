"""Why the model said so: the path, a map for each of its decisions, and pictures of both."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .attribution import explain as explain
    from .evidence_index import EvidenceIndex as EvidenceIndex
    from .explanation import Explanation as Explanation

_HOME = {"EvidenceIndex": "evidence_index", "Explanation": "explanation", "explain": "attribution"}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'nbdt.explain' has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)
