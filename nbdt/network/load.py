"""timm networks: parse the text that names one, make it, fill it with weights.

``mobilenetv2_100,pad_type=same,mean=0.5,std=0.5`` is one argument in every shell: a timm architecture,
then options after commas. A saved model stores the whole text, so the same network is made again. Only
options of a known kind are taken, because the text may come from the config of an untrusted model.
"""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit
from urllib.request import getproxies

from torch import nn

from ..errors import NBDTError, listed, nearest
from ..torchvision_cpu import import_torchvision
from .preprocessing import MAX_SIDE
from .weights import load_weights

if TYPE_CHECKING:
    import types

PATIENCE = 3.0  # seconds to find out whether the hub can be reached


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
    """Return where a browser finds the weights."""
    config = import_timm().get_pretrained_cfg(name)
    known = getattr(config, "hf_hub_id", None)
    repository = f"{known}{config.architecture}.{config.tag}" if known == "timm/" else known
    return f" (https://huggingface.co/{repository}, model.safetensors)" if repository else ""


@contextmanager
def _offline_at_once() -> Iterator[None]:
    """Use the cache alone if the hub cannot be reached: its client would retry for a minute."""
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
    """Return timm, with this project's own networks registered."""
    import_torchvision()
    import timm

    from . import small_networks  # noqa: F401  it registers its models on import

    return timm


# ---- names ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Architecture:
    """A parsed name.

    Attributes:
        name: timm's name, such as ``resnet101.a1h_in1k``; the part after the dot names pretrained
            weights.
        network: keyword arguments of ``timm.create_model``.
        inputs: entries that replace those of timm's configuration of the input.
    """

    name: str
    network: Mapping[str, Any]
    inputs: Mapping[str, Any]


def parse_architecture(text: str) -> Architecture:
    """Parse ``name[,option=value]…``.

    Raises:
        NBDTError: an option that is unknown or repeated, or a value that it cannot have.
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
    parse, expected = _KINDS[key]
    try:
        return parse(value)
    except ValueError:
        raise NBDTError(f"{text!r}: expected {key} to be {expected}, got {value!r}.") from None


def _one_of(*choices: str) -> tuple[Callable[[str], str], str]:
    def parse(value: str) -> str:
        return choices[choices.index(value)]

    return parse, " or ".join(map(repr, choices))


def _pixels(value: str) -> int:
    side = int(value)
    if not 1 <= side <= MAX_SIDE:
        raise ValueError(value)
    return side


def _stride(value: str) -> int:
    return (8, 16, 32)[(8, 16, 32).index(int(value))]


def _share(value: str) -> float:
    share = float(value)
    if not 0 < share <= 1:
        raise ValueError(value)
    return share


def _channels(value: str) -> tuple[float, float, float]:
    """Parse ``0.5`` for all three, or ``0.485/0.456/0.406``."""
    parts = [float(part) for part in value.split("/")]
    red, green, blue = parts * 3 if len(parts) == 1 else parts
    if not all(math.isfinite(part) for part in (red, green, blue)):
        raise ValueError(value)
    return red, green, blue


def _scales(value: str) -> tuple[float, float, float]:
    scales = _channels(value)
    if min(scales) <= 0:
        raise ValueError(value)
    return scales


_SIDE = (_pixels, f"a number of pixels from 1 to {MAX_SIDE}")
_NETWORK: Mapping[str, tuple[Callable[[str], Any], str]] = {
    "pad_type": _one_of("same", "valid"),  # of convolutions; "same" for TensorFlow's weights
    "img_size": _SIDE,  # of transformers, which are made for one size
    "output_stride": (_stride, "8, 16 or 32"),  # pixels a position of the last feature map
}
_KINDS: Mapping[str, tuple[Callable[[str], Any], str]] = {
    **_NETWORK,
    "size": _SIDE,
    "mean": (_channels, "one number, or three as in 0.485/0.456/0.406"),
    "std": (_scales, "one number above 0, or three as in 0.229/0.224/0.225"),
    "crop_pct": (_share, "a share above 0, at most 1"),
    "interpolation": _one_of("bilinear", "bicubic", "lanczos", "nearest"),
}
