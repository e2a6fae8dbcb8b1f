"""Make torchvision importable beside a CPU-only torch, once this package is imported.

torchvision's wheel on PyPI is built for CUDA. Beside a torch without CUDA its compiled operators
do not load, and ``import torchvision`` then fails because it attaches shape functions to
``torchvision::nms``, which does not exist. Declaring that operator and its quantised
form is enough: nothing in this project calls them. A torchvision that works is left alone.
"""

import importlib
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, cast

from .without_compiler import compiler_on_demand

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def import_torchvision() -> None:
    """Import torchvision without torch's compiler, which would take a second.

    Raises ImportError, RuntimeError: torchvision is missing, or fails for another reason.
    """
    if "torchvision" not in sys.modules:
        with compiler_on_demand():
            importlib.import_module("torchvision")


class TorchvisionFinder(MetaPathFinder):
    """Finds torchvision where Python does, and has `_Repairing` load it."""

    def find_spec(
        self, fullname: str, path: Any = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return nothing for every other module."""
        spec = PathFinder.find_spec(fullname, path) if fullname == "torchvision" else None
        if spec is not None and spec.loader is not None:
            spec.loader = _Repairing(spec.loader)
        return spec


class _Repairing(Loader):
    """Runs a module again with the missing operators declared, if that is why it failed."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def exec_module(self, module: ModuleType) -> None:
        cast(ModuleSpec, module.__spec__).loader = module.__loader__ = self.loader
        try:
            self.loader.exec_module(module)
        except RuntimeError as error:
            if "torchvision::nms" not in str(error):
                raise
            for name in [name for name in sys.modules if name.startswith("torchvision.")]:
                del sys.modules[name]  # the half-initialised modules of the failed attempt
            _declare_operators()
            self.loader.exec_module(module)


def _declare_operators() -> None:
    import torch

    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            torch.library.define(f"torchvision::{name}", _SCHEMA)
