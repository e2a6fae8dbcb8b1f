"""Files of weights, as training tools write them: read without executing code, matched to a network."""

import os
import re
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any, Self

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ..errors import NBDTError, listed

# Names of the last layer in timm, torchvision and the CIFAR networks of the literature.
# The entries of a checkpoint that hold weights, the moving average of them first, as timm has it.
_ENTRIES = ("state_dict_ema", "model_ema", "ema", "state_dict", "model", "model_state_dict")
_WRAPPERS = re.compile(r"^((module|_orig_mod)\.)+")  # of DataParallel and torch.compile


class _LeftOut:
    """Takes the place of every other object in a checkpoint: its class is not even imported."""

    def __new__(cls, *_arguments: Any, **_options: Any) -> Self:
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        """Keep nothing."""


def read_weights(
    path: str | os.PathLike[str], network: nn.Module | None = None
) -> dict[str, Tensor]:
    """Return the tensors of a local file of weights, by name.

    The file is safetensors, a state dict, or a checkpoint of PyTorch Lightning, timm, torchvision's
    references or the like, whose moving average of the weights is taken if it has one. Names
    lose what DataParallel and torch.compile put before them and, for a `network`, whatever comes
    before its own names; tensors of other parts are then left out. No code of the file runs.

    Raises NBDTError: not a file of tensors, or one with several such networks.
    """
    try:
        state = load_file(path) if str(path).endswith(".safetensors") else _unpickle(path)
        tensors = _tensors(state)
    except Exception as error:
        raise NBDTError(
            f"{os.fspath(path)!r} is not a readable file of tensors ({type(error).__name__}); "
            "expected safetensors or what torch.save(model.state_dict()) writes."
        ) from error
    return tensors if network is None else _named_as(network.state_dict(), tensors, path)


def _unpickle(path: str | os.PathLike[str]) -> Any:
    """Read a file of torch.save, with `_LeftOut` for all that is no tensor, number or text."""
    try:
        others = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except ValueError:  # of torch before 1.6
        others = ["argparse.Namespace"]
    with torch.serialization.safe_globals([(_LeftOut, name) for name in others]):
        return torch.load(path, map_location="cpu", weights_only=True)


def _tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    inside = [value for value in state.values() if isinstance(value, Mapping)]
    named = [state[entry] for entry in _ENTRIES if isinstance(state.get(entry), Mapping)]
    for found in (*named, state, *sorted(inside, key=len, reverse=True)):
        tensors = {str(name): value for name, value in found.items() if isinstance(value, Tensor)}
        tensors.pop("n_averaged", None)  # which torch's AveragedModel keeps beside its weights
        if tensors:
            return {_WRAPPERS.sub("", name, 1): value for name, value in tensors.items()}
    raise TypeError("no tensors")


def _named_as(
    names: Collection[str], state: dict[str, Tensor], path: str | os.PathLike[str]
) -> dict[str, Tensor]:
    """Return the tensors whose names are a network's, without what a wrapper put before them."""
    before: Counter[str] = Counter()
    for given in state:
        ends = [0, *(dot.end() for dot in re.finditer(r"\.", given))]
        found = next((given[:end] for end in ends if given[end:] in names), None)
        before.update([] if found is None else [found])
    most = [prefix for prefix, count in before.items() if count == max(before.values())]
    if len(most) > 1:
        raise NBDTError(
            f"{os.fspath(path)!r} has several networks that fit, under {listed(most)}; save the "
            "state_dict of one."
        )
    prefix = most[0] if most else ""
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def load_weights(network: nn.Module, path: str | os.PathLike[str]) -> None:
    """Load a local file of weights into a network, whose parameters keep their type.

    Raises NBDTError: not a file of tensors, or tensors that do not fit the network.
    """
    state = read_weights(path, network)
    if problem := mismatch(network, state):
        raise NBDTError(
            f"The weights in {os.fspath(path)!r} do not fit the network: {problem}. "
            "Name the architecture that they were trained with."
        )
    network.load_state_dict(state)


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
