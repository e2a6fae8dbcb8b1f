"""Make torchvision importable beside a CPU-only torch.

torchvision's wheel on PyPI is built for CUDA. Beside a torch without CUDA its compiled operators
do not load, and ``import torchvision`` then fails because it attaches shape functions to
``torchvision::nms``, which does not exist. Declaring that operator and its quantised
form is enough: nothing in this project calls them. A torchvision that works is left alone.
"""

from __future__ import annotations

import importlib
import sys

from .without_compiler import compiler_on_demand

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def import_torchvision() -> None:
    """Import torchvision, declaring its missing operators if that is why it fails.

    Call this before importing anything that imports torchvision (timm, for one).

    Raises ImportError, RuntimeError: torchvision is missing, or fails for another reason.
    """
    if "torchvision" in sys.modules:
        return
    with compiler_on_demand():
        _import_or_declare()


def _import_or_declare() -> None:
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]  # the half-initialised modules of the failed attempt
        _declare_operators()
        importlib.import_module("torchvision")


def _declare_operators() -> None:
    import torch

    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            torch.library.define(f"torchvision::{name}", _SCHEMA)
