"""timm networks: parse the text that names one, and make it.

``mobilenetv2_100,pad_type=same,mean=0.5,std=0.5`` is one argument in every shell: a timm architecture,
then options after commas. A saved model stores the whole text, so the same network is made again. Only
options of a known kind are taken, because the text may come from the config of an untrusted model.
"""

import math
import os
import re
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import torch
from torch import nn

from ..errors import NBDTError, listed, nearest
from ..torchvision_cpu import import_torchvision
from ..without_compiler import compiler_on_demand
from . import installed_weights
from .fetch import FILE, hub_weights, repository_of
from .preprocessing import MAX_SIDE
from .weights import load_weights

if TYPE_CHECKING:
    import types


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


def is_timm(network: nn.Module) -> bool:
    """Return whether it has timm's parts and configuration, and one linear layer as classifier."""
    names = ("pretrained_cfg", "forward_features", "forward_head", "reset_classifier")
    return all(hasattr(network, name) for name in names) and isinstance(
        cast(Any, network).get_classifier(), nn.Linear
    )


def blueprint(architecture: str, num_classes: int | None) -> nn.Module:
    """Return the network that `create_timm` makes, without memory for its numbers (torch's "meta")."""
    import_timm()
    with torch.device("meta"):
        return create_timm(architecture, num_classes)


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


def _make(parsed: "Architecture", num_classes: int | None, *, pretrained: bool) -> nn.Module:
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


def import_timm() -> "types.ModuleType":
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


def input_channels(architecture: str) -> int:
    """Return the channels of a network's input: 3, unless its name says otherwise."""
    named = re.search(r",in_chans=(\d+)", architecture)
    return int(named[1]) if named else 3


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
        inputs["input_size"] = (values.get("in_chans", 3), side, side)
    network = {key: value for key, value in values.items() if key in _NETWORK}
    return Architecture(name, network, inputs)


def _value(text: str, key: str, value: str) -> Any:
    parse, fits, expected = _KINDS[key]
    with suppress(ValueError, KeyError):
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
_BOOL = ({"true": True, "false": False}.__getitem__, (True, False).__contains__, "true or false")
POOLS = ("max", "avgmax", "catavgmax", "avg", "token", "map", "fast")
ACTIVATIONS = ("relu", "relu6", "leaky_relu", "prelu", "elu", "celu", "selu", "gelu", "gelu_tanh",
               "quick_gelu", "silu", "mish", "hard_swish", "hard_mish", "sigmoid", "tanh")  # fmt: skip
_INTERPOLATIONS = ("bilinear", "bicubic", "lanczos", "nearest")
_NETWORK: Mapping[str, _Kind] = {
    # of convolutions; "same" for TensorFlow's weights
    "pad_type": (str, ("same", "valid").__contains__, "'same' or 'valid'"),
    "img_size": _SIDE,  # of transformers, which are made for one size
    # pixels a position of the last feature map
    "output_stride": (int, (8, 16, 32).__contains__, "8, 16 or 32"),
    "in_chans": (int, range(1, 65).__contains__, "a number of channels from 1 to 64"),
    "global_pool": (str, POOLS.__contains__, " or ".join(POOLS)),
    "act_layer": (str, ACTIVATIONS.__contains__, " or ".join(ACTIVATIONS)),
    "bn_eps": (float, lambda eps: 0 < eps < 1, "a number between 0 and 1"),
    **dict.fromkeys(("qk_norm", "qkv_bias", "class_token", "no_embed_class"), _BOOL),
    **dict.fromkeys(("fc_norm", "final_norm", "head_norm_first", "head_bias"), _BOOL),
    "stem_type": (str, ("deep", "deep_tiered").__contains__, "deep or deep_tiered"),
    "stem_width": (int, range(1, 257).__contains__, "a number of channels from 1 to 256"),
    "reg_tokens": (int, range(65).__contains__, "a number from 0 to 64"),
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
