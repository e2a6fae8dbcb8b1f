"""Files of weights: read their tensors, fill a network, find the classifier's matrix."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import NBDTError, listed

if TYPE_CHECKING:  # commands import this module before they need torch
    from torch import Tensor, nn

# Names of the last layer in timm, torchvision and the CIFAR networks of the literature.
USUAL = ("classifier", "fc", "head", "head.fc", "heads.head", "linear", "head.linear")


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Return the tensors of a local state dict, by name without data-parallel's ``module.``.

    Args:
        path: safetensors, or a state dict that torch can read without executing code; other
            entries of such a file are left out.

    Raises:
        NBDTError: not a file of tensors.
    """
    import torch
    from safetensors.torch import load_file

    try:
        if str(path).endswith(".safetensors"):
            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        state = state.get("state_dict", state)
        tensors = {str(k): v for k, v in state.items() if isinstance(v, torch.Tensor)}
        if not tensors:
            raise TypeError("no tensors")
    except Exception as error:
        raise NBDTError(
            f"{os.fspath(path)!r} is not a readable file of tensors ({type(error).__name__}); "
            "expected safetensors or a plain state dict."
        ) from error
    return {name.removeprefix("module."): value for name, value in tensors.items()}


def load_weights(network: nn.Module, path: str | os.PathLike[str]) -> None:
    """Load a local state dict into a network, whose parameters keep their type.

    Raises:
        NBDTError: not a file of tensors, or tensors that do not fit the network.
    """
    state = read_weights(path)
    problem = mismatch(network, state)
    if problem:
        raise NBDTError(f"The weights in {os.fspath(path)!r} do not fit the network: {problem}.")
    network.load_state_dict(state)


def class_weights(
    path: str | os.PathLike[str], num_classes: int, tensor: str | None = None
) -> Tensor:
    """Return the matrix (classes, features) of a file's last linear layer.

    Args:
        path: safetensors, or a state dict that torch can read without executing code.
        num_classes: its rows.
        tensor: its name, needed if several fit.

    Raises:
        NBDTError: no such file of tensors, or not exactly one matrix that fits.
    """
    if not Path(path).is_file():
        raise NBDTError(f"There is no model and no weights file {os.fspath(path)!r}.")
    tensors = read_weights(path)
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


def mismatch(network: nn.Module, state: Mapping[str, Tensor]) -> str:
    """Return why `state` does not fit `network`, or ""."""
    return shape_mismatch(network, {name: tuple(value.shape) for name, value in state.items()})


def shape_mismatch(network: nn.Module, given: Mapping[str, tuple[int, ...]]) -> str:
    """Return why tensors of these shapes do not fit `network`, or ""."""
    expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    # Batch norms of torch before 0.4.1 have no count of batches; torch counts them from 0.
    missing = [n for n in expected if n not in given and not n.endswith(".num_batches_tracked")]
    extra = [name for name in given if name not in expected]
    shapes = [
        f"{name} {given[name]} for {expected[name]}"
        for name in expected
        if name in given and given[name] != expected[name]
    ]
    problems = {"missing": missing, "unexpected": extra, "of another shape": shapes}
    return "; ".join(f"{kind}: {listed(names)}" for kind, names in problems.items() if names)
