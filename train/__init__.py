"""How models are fitted and measured."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .config import Recipe as Recipe
    from .corrections import fit_corrections as fit_corrections
    from .loss import TreeSupervisionLoss as TreeSupervisionLoss
    from .run import train as train

# Importing the loss does not import Lightning.
_HOME = {
    "Recipe": "config",
    "TreeSupervisionLoss": "loss",
    "fit_corrections": "corrections",
    "train": "run",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'nbdt.train' has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)
