"""Any image classifier as a decision tree that a person can read, question and correct."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from .lazy import lazy
from .torchvision_cpu import TorchvisionFinder

if TYPE_CHECKING:
    from .decide.attach import attach as attach
    from .decide.attach import detach as detach
    from .decide.attach import flat as flat
    from .decide.head import DecisionRules as DecisionRules
    from .decide.head import NBDTHead as NBDTHead
    from .decide.paths import Decision as Decision
    from .decide.paths import Path as Path
    from .errors import NBDTError as NBDTError
    from .model.model import NBDT as NBDT
    from .tree.hierarchy import Hierarchy as Hierarchy
    from .tree.nodes import HierarchyError as HierarchyError

__version__ = "0.1.0"

# Loaded on first use: importing torch alone takes seconds, and `nbdt --help` needs none of it.
_HOME = {
    "DecisionRules": "decide.head",
    "Decision": "decide.paths",
    "Hierarchy": "tree.hierarchy",
    "HierarchyError": "tree.nodes",
    "NBDT": "model.model",
    "NBDTError": "errors",
    "NBDTHead": "decide.head",
    "Path": "decide.paths",
    "attach": "decide.attach",
    "detach": "decide.attach",
    "flat": "decide.attach",
}
__all__ = sorted(_HOME)
sys.meta_path.insert(0, TorchvisionFinder())  # beside a CPU-only torch, torchvision fails otherwise
__getattr__ = lazy(__name__, _HOME)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
