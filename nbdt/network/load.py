"""timm networks: made by name, filled with weights from the hub or a local file."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ..errors import NBDTError, listed, nearest
from ..torchvision_cpu import import_torchvision
from .architecture import Architecture, parse_architecture

if TYPE_CHECKING:
    import types

PATIENCE = 3.0  # seconds to find out whether the hub can be reached


def create_timm(
    architecture: str,
    num_classes: int | None,
    pretrained: bool = False,
    weights: str | os.PathLike[str] | None = None,
) -> nn.Module:
    """A timm model with its classifier; the errors of `NBDT.from_timm`.

    `num_classes` None leaves the classifier that the pretrained weights have.
    """
    parsed = parse_architecture(architecture)
    _check_known(parsed.name)
    if weights is not None and not Path(weights).is_file():
        raise NBDTError(f"There is no weights file {os.fspath(weights)!r}.")
    network = _make(parsed, num_classes, pretrained=pretrained and weights is None)
    if weights is not None:
        load_weights(network, weights)
    return network


def _check_known(name: str) -> None:
    timm = import_timm()
    base, _, tag = name.partition(".")
    if not timm.is_model(base):
        raise NBDTError(
            f"timm knows no architecture {name!r}."
            f"{nearest(name, timm.list_models())} See timm.list_models()."
        )
    tags = timm.list_models(f"{base}.*", pretrained=True)
    if tag and tag != "untrained" and name not in tags:
        raise NBDTError(
            f"timm knows no pretrained weights {name!r}; of {base!r} it has {listed(tags) or 'none'}."
        )


def _make(parsed: Architecture, num_classes: int | None, *, pretrained: bool) -> nn.Module:
    try:
        with _offline_at_once() if pretrained else nullcontext():
            network = import_timm().create_model(
                parsed.name,
                pretrained=pretrained,
                num_classes=num_classes,
                pretrained_cfg_overlay=dict(parsed.inputs),
                **parsed.network,
            )
    except Exception as error:
        if parsed.network and isinstance(error, TypeError):
            options = ", ".join(parsed.network)
            raise NBDTError(f"timm's {parsed.name!r} does not take {options}: {error}.") from None
        if not pretrained:
            raise
        if "No pretrained weights exist" in str(error):
            raise NBDTError(
                f"timm has no pretrained weights for {parsed.name!r}; pass a file: weights=…."
            ) from None
        raise NBDTError(
            f"The pretrained weights of {parsed.name!r} could not be fetched from the Hugging "
            f"Face hub ({type(error).__name__}). Without a network, download them elsewhere"
            f"{_address(parsed.name)} and pass the file: weights='model.safetensors', or --weights "
            "to a command."
        ) from error
    return cast(nn.Module, network)


def _address(name: str) -> str:
    """Where a browser finds the weights."""
    config = import_timm().get_pretrained_cfg(name)
    known = getattr(config, "hf_hub_id", None)
    repository = f"{known}{config.architecture}.{config.tag}" if known == "timm/" else known
    return f" (https://huggingface.co/{repository}, model.safetensors)" if repository else ""


@contextmanager
def _offline_at_once() -> Iterator[None]:
    """Where the hub cannot be reached, only what is kept counts: its client retries a minute."""
    from huggingface_hub import constants

    host = urlsplit(constants.ENDPOINT).hostname
    # Behind a proxy only the client knows what can be reached.
    if constants.HF_HUB_OFFLINE or getproxies() or host is None or _answers(host):
        yield
        return
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = False


def _answers(host: str) -> bool:
    try:
        socket.create_connection((host, 443), timeout=PATIENCE).close()
    except OSError:
        return False
    return True


def import_timm() -> types.ModuleType:
    """timm, with this project's own networks registered."""
    import_torchvision()
    import timm

    from . import cifar_resnet, small  # noqa: F401  they register their models on import

    return timm


def load_weights(network: nn.Module, path: str | os.PathLike[str]) -> None:
    """Load a local state dict into a network, whose parameters keep their type.

    Raises:
        NBDTError: not a file of tensors, or tensors that do not fit the network.
    """
    state = read_weights(path)
    result = mismatch(network, state)
    if result:
        raise NBDTError(f"The weights in {os.fspath(path)!r} do not fit the network: {result}.")
    network.load_state_dict(state)


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a local state dict, by their names in a network that nothing wraps.

    Raises:
        NBDTError: not a file of tensors.
    """
    try:
        if str(path).endswith(".safetensors"):
            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        state = state.get("state_dict", state)
        return {str(name).removeprefix("module."): _tensor(state[name]) for name in state}
    except Exception as error:
        raise NBDTError(
            f"{os.fspath(path)!r} is not a readable file of tensors ({type(error).__name__}); "
            "expected safetensors or a plain state dict."
        ) from error


def _tensor(value: object) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(f"expected a tensor, got {type(value).__name__}")
    return value


def mismatch(network: nn.Module, state: Mapping[str, Tensor]) -> str:
    """What keeps `state` from fitting `network`, or nothing."""
    return shape_mismatch(network, {name: tuple(value.shape) for name, value in state.items()})


def shape_mismatch(network: nn.Module, found: Mapping[str, tuple[int, ...]]) -> str:
    """What keeps tensors of these shapes from fitting `network`, or nothing."""
    own = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    # Before torch 0.4.1 batch norms did not count their batches; torch counts such ones from 0.
    missing = [n for n in own if n not in found and not n.endswith(".num_batches_tracked")]
    extra = [name for name in found if name not in own]
    shapes = [
        f"{name} {found[name]} for {own[name]}"
        for name in own
        if name in found and found[name] != own[name]
    ]
    problems = {"missing": missing, "unexpected": extra, "of another shape": shapes}
    return "; ".join(f"{kind}: {listed(names)}" for kind, names in problems.items() if names)
