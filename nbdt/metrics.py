"""How good the answers are: pure functions of predictions and targets."""

from __future__ import annotations

from torch import Tensor

from .errors import NBDTError


def accuracy(predicted: Tensor, target: Tensor) -> float:
    """Share of equal entries of two (count,) index tensors.

    Raises:
        NBDTError: no entries, or other shapes.
    """
    if predicted.shape != target.shape or not len(target):
        raise NBDTError(
            f"Expected two index tensors of one length above 0, got {tuple(predicted.shape)} and "
            f"{tuple(target.shape)}."
        )
    return float((predicted == target).double().mean())
