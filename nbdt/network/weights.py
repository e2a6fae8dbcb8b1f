"""The class weights inside a local file of tensors."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import NBDTError, listed

if TYPE_CHECKING:
    from torch import Tensor

# What timm, torchvision and the CIFAR networks of the literature call their last layer.
USUAL = ("classifier", "fc", "head", "head.fc", "heads.head", "linear", "head.linear")


def class_weights(
    path: str | os.PathLike[str], num_classes: int, tensor: str | None = None
) -> Tensor:
    """The matrix (classes, features) of the last linear layer.

    Args:
        path: safetensors, or a state dict that torch can read without executing code.
        num_classes: rows that it has.
        tensor: its name, where the file has several that fit.

    Raises:
        NBDTError: no such file of tensors, or not exactly one matrix that fits.
    """
    tensors = _tensors(path)
    fitting = [n for n, t in tensors.items() if t.ndim == 2 and len(t) == num_classes]
    if tensor is not None and tensor not in fitting:
        raise NBDTError(
            f"{os.fspath(path)!r} has no matrix {tensor!r} with {num_classes:,} rows; those with "
            f"as many are: {listed(fitting) or 'none'}."
        )
    usual = [name for name in fitting if name.removesuffix(".weight") in USUAL]
    chosen = [tensor] if tensor else usual if len(usual) == 1 else fitting
    if len(chosen) != 1:
        raise NBDTError(
            f"{os.fspath(path)!r} has {len(chosen)} matrices with {num_classes:,} rows, one a "
            f"class ({listed(chosen) or 'none'}); "
            + ("name the one of the classifier: --tensor." if chosen else "check the classes.")
        )
    return tensors[chosen[0]]


def _tensors(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The file's tensors, without the ``module.`` that data-parallel training puts before names."""
    import torch
    from safetensors.torch import load_file

    if not Path(path).is_file():
        raise NBDTError(f"There is no model and no weights file {os.fspath(path)!r}.")
    try:
        if str(path).endswith(".safetensors"):
            state: object = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise NBDTError(
            f"{os.fspath(path)!r} is not a readable file of tensors ({type(error).__name__}); "
            "expected safetensors or a plain state dict."
        ) from error
    state = state.get("state_dict", state) if isinstance(state, Mapping) else {}
    items = state.items() if isinstance(state, Mapping) else ()
    return {
        str(name).removeprefix("module."): value
        for name, value in items
        if isinstance(value, torch.Tensor)
    }
