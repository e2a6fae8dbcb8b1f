"""The text that names a network: a timm architecture, then options after commas.

``mobilenetv2_100,pad_type=same,mean=0.5,std=0.5`` is one argument in every shell, and the whole
text is what a saved model stores: it is made again with the same options. Only options of a known
kind are taken, because the text may come from a stranger's config.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import NBDTError, nearest

MAX_SIDE = 4096  # pixels


@dataclass(frozen=True)
class Architecture:
    """A parsed text.

    Attributes:
        name: what timm calls it, ``resnet101.a1h_in1k`` for instance; the part after the dot says
            which pretrained weights.
        network: keyword arguments of ``timm.create_model``.
        inputs: what replaces entries of timm's own configuration of the input.
    """

    name: str
    network: Mapping[str, Any]
    inputs: Mapping[str, Any]


def parse_architecture(text: str) -> Architecture:
    """The parts of ``name[,option=value]…``.

    Raises:
        NBDTError: an option that is unknown, repeated, or has a value that it cannot have.
    """
    name, *options = text.split(",")
    found: dict[str, Any] = {}
    for option in options:
        key, _, value = option.partition("=")
        if key not in _KINDS or key in found:
            problem = "repeats" if key in found else "has an unknown"
            raise NBDTError(
                f"{text!r} {problem} option {key!r}.{nearest(key, _KINDS)} "
                f"Options are: {', '.join(_KINDS)}; as in {name},pad_type=same,mean=0.5,std=0.5."
            )
        found[key] = _value(text, key, value)
    inputs = {key: value for key, value in found.items() if key not in _NETWORK}
    side = inputs.pop("size", found.get("img_size"))
    if side:
        inputs["input_size"] = (3, side, side)
    network = {key: value for key, value in found.items() if key in _NETWORK}
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
    """``0.5`` for all three, or ``0.485/0.456/0.406``."""
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
