"""How models are fitted and measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nbdt.lazy import lazy

if TYPE_CHECKING:
    from .corrections.run import fit_corrections as fit_corrections
    from .fit.run import train as train
    from .loss import TreeSupervisionLoss as TreeSupervisionLoss
    from .recipe import Recipe as Recipe

# Importing the loss does not import Lightning.
_HOME = {
    "Recipe": "recipe",
    "TreeSupervisionLoss": "loss",
    "fit_corrections": "corrections.run",
    "train": "fit.run",
}
__all__ = sorted(_HOME)
__getattr__ = lazy(__name__, _HOME)
