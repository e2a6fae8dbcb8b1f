"""Any image classifier as a decision tree that a person can read, question and correct."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .lazy import lazy

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
__getattr__ = lazy(__name__, _HOME)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
