"""Any image classifier as a decision tree that a person can read, question and correct."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .attaching import attach as attach
    from .attaching import detach as detach
    from .attaching import flat as flat
    from .errors import NBDTError as NBDTError
    from .head import DecisionRules as DecisionRules
    from .head import NBDTHead as NBDTHead
    from .hierarchy import Hierarchy as Hierarchy
    from .model import NBDT as NBDT
    from .nodes import HierarchyError as HierarchyError
    from .paths import Decision as Decision
    from .paths import Path as Path

__version__ = "0.1.0"

# Loaded on first use: importing torch alone takes seconds, and `nbdt --help` needs none of it.
_HOME = {
    "DecisionRules": "head",
    "Decision": "paths",
    "Hierarchy": "hierarchy",
    "HierarchyError": "nodes",
    "NBDT": "model",
    "NBDTError": "errors",
    "NBDTHead": "head",
    "Path": "paths",
    "attach": "attaching",
    "detach": "attaching",
    "flat": "attaching",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'nbdt' has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
