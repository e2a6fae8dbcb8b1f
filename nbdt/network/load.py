"""timm networks: parse the text that names one, make it; and read files of weights.

``mobilenetv2_100,pad_type=same,mean=0.5,std=0.5`` is one argument in every shell: a timm architecture,
then options after commas. A saved model stores the whole text, so the same network is made again. Only
options of a known kind are taken, because the text may come from the config of an untrusted model.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ..errors import NBDTError, listed, nearest
from ..torchvision_cpu import import_torchvision
from ..without_compiler import compiler_on_demand
from . import installed_weights
from .fetch import FILE, hub_weights, repository_of
from .preprocessing import MAX_SIDE

if TYPE_CHECKING:
    import types

# Names of the last layer in timm, torchvision and the CIFAR networks of the literature.
USUAL = ("classifier", "fc", "head", "head.fc", "heads.head", "linear", "head.linear")


def create_timm(
    architecture: str,
    num_classes: int | None,
    pretrained: bool = False,
    weights: str | os.PathLike[str] | None = None,
) -> nn.Module:
    """Make a timm model with its classifier; raise as `NBDT.from_timm` does.

    `num_classes` None keeps the classifier that the pretrained weights have.
    """
    parsed = parse_architecture(architecture)
    _check_known(parsed.name)
    if weights is not None and not Path(weights).is_file():
        raise NBDTError(f"There is no weights file {os.fspath(weights)!r}.")
    installed = pretrained and weights is None and parsed.name == installed_weights.ARCHITECTURE
    network = _make(
        parsed, num_classes, pretrained=pretrained and weights is None and not installed
    )
    if weights is not None:
        load_weights(network, weights)
    elif installed:
        installed_weights.load_into(network)
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
        with hub_weights(_configuration(parsed.name)) if pretrained else nullcontext():
            network = import_timm().create_model(
                parsed.name,
                pretrained=pretrained,
                num_classes=num_classes,
                pretrained_cfg_overlay=dict(parsed.inputs),
                **parsed.network,
            )
    except NBDTError:
        raise
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
        repository = repository_of(_configuration(parsed.name))
        address = f" (https://huggingface.co/{repository}, {FILE})" if repository else ""
        raise NBDTError(
            f"The pretrained weights of {parsed.name!r} could not be fetched from the Hugging "
            f"Face hub ({type(error).__name__}). Without a network, download them elsewhere"
            f"{address} and pass the file: weights={FILE!r}, or --weights to a command."
        ) from error
    return cast(nn.Module, network)


def _configuration(name: str) -> Any:
    return import_timm().get_pretrained_cfg(name)


def import_timm() -> types.ModuleType:
    """Return timm, with this project's own networks registered."""
    import_torchvision()
    with compiler_on_demand():
        import timm

        from . import small_networks  # noqa: F401  it registers its models on import

    return timm


@dataclass(frozen=True)
class Architecture:
    """A parsed name."""

    name: str  # timm's, as in resnet101.a1h_in1k: the part after the dot names pretrained weights
    network: Mapping[str, Any]  # keyword arguments of ``timm.create_model``
    inputs: Mapping[str, Any]  # what replaces entries of timm's configuration of the input


def parse_architecture(text: str) -> Architecture:
    """Parse ``name[,option=value]…``.

    Raises NBDTError: an option that is unknown or repeated, or a value that it cannot have.
    """
    name, *options = text.split(",")
    values: dict[str, Any] = {}
    for option in options:
        key, _, value = option.partition("=")
        if key not in _KINDS or key in values:
            problem = "repeats" if key in values else "has an unknown"
            raise NBDTError(
                f"{text!r} {problem} option {key!r}.{nearest(key, _KINDS)} "
                f"Options are: {', '.join(_KINDS)}; as in {name},pad_type=same,mean=0.5,std=0.5."
            )
        values[key] = _value(text, key, value)
    inputs = {key: value for key, value in values.items() if key not in _NETWORK}
    side = inputs.pop("size", values.get("img_size"))
    if side:
        inputs["input_size"] = (3, side, side)
    network = {key: value for key, value in values.items() if key in _NETWORK}
    return Architecture(name, network, inputs)


def _value(text: str, key: str, value: str) -> Any:
    parse, fits, expected = _KINDS[key]
    with suppress(ValueError):
        parsed = parse(value)
        if fits(parsed):
            return parsed
    raise NBDTError(f"{text!r}: expected {key} to be {expected}, got {value!r}.")


def _channels(value: str) -> tuple[float, ...]:
    """Parse ``0.5`` for all three, or ``0.485/0.456/0.406``."""
    parts = [float(part) for part in value.split("/")]
    red, green, blue = parts * 3 if len(parts) == 1 else parts
    return red, green, blue


# How to parse an option, which values it may have, and those in words.
_Kind: TypeAlias = tuple[Callable[[str], Any], Callable[[Any], bool], str]
_SIDE = (int, lambda side: 1 <= side <= MAX_SIDE, f"a number of pixels from 1 to {MAX_SIDE}")
_INTERPOLATIONS = ("bilinear", "bicubic", "lanczos", "nearest")
_NETWORK: Mapping[str, _Kind] = {
    # of convolutions; "same" for TensorFlow's weights
    "pad_type": (str, ("same", "valid").__contains__, "'same' or 'valid'"),
    "img_size": _SIDE,  # of transformers, which are made for one size
    # pixels a position of the last feature map
    "output_stride": (int, (8, 16, 32).__contains__, "8, 16 or 32"),
}
_KINDS: Mapping[str, _Kind] = {
    **_NETWORK,
    "size": _SIDE,
    "mean": (
        _channels,
        lambda means: all(map(math.isfinite, means)),
        "one number, or three as in 0.485/0.456/0.406",
    ),
    "std": (
        _channels,
        lambda scales: all(0 < scale < math.inf for scale in scales),
        "one number above 0, or three as in 0.229/0.224/0.225",
    ),
    "crop_pct": (float, lambda share: 0 < share <= 1, "a share above 0, at most 1"),
    "interpolation": (str, _INTERPOLATIONS.__contains__, " or ".join(map(repr, _INTERPOLATIONS))),
}


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Return the tensors of a local state dict, by name without data-parallel's ``module.``.

    The file is safetensors, or a state dict that torch can read without executing code; its other entries
    are left out.

    Raises NBDTError: not a file of tensors.
    """
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

    Raises NBDTError: not a file of tensors, or tensors that do not fit the network.
    """
    state = read_weights(path)
    problem = mismatch(network, state)
    if problem:
        raise NBDTError(f"The weights in {os.fspath(path)!r} do not fit the network: {problem}.")
    network.load_state_dict(state)


def class_weights(
    path: str | os.PathLike[str], num_classes: int, tensor: str | None = None
) -> Tensor:
    """Return the matrix (classes, features) of a file's last linear layer, read as `read_weights` does.

    If several have `num_classes` rows, `tensor` names the one.

    Raises NBDTError: no such file of tensors, or not exactly one matrix that fits.
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
