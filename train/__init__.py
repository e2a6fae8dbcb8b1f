"""How models are fitted and measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nbdt.lazy import lazy

if TYPE_CHECKING:
    from .corrections.run import fit_corrections as fit_corrections
    from .loss import TreeSupervisionLoss as TreeSupervisionLoss
    from .recipe import Recipe as Recipe
    from .run import train as train

# Importing the loss does not import Lightning.
_HOME = {
    "Recipe": "recipe",
    "TreeSupervisionLoss": "loss",
    "fit_corrections": "corrections.run",
    "train": "run",
}
__all__ = sorted(_HOME)
__getattr__ = lazy(__name__, _HOME)
