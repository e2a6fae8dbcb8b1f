"""Which options a timm network was made with: timm does not keep them, so they are found by comparing."""

from collections.abc import Iterator
from typing import Any, cast

from torch import nn

from .load import ACTIVATIONS, POOLS, blueprint

# What has no effect in evaluation, or is decided elsewhere.
_IGNORED = {"training", "num_classes", "drop_rate", "drop_prob", "grad_checkpointing", "fused_attn"}
_PASSING = {"Dropout", "DropPath", "Identity"}


def described(network: nn.Module, architecture: str, num_classes: int) -> tuple[str, list[str]]:
    """Return the architecture with the options that a network needs, and what still differs.

    Args:
        network: of timm, with or without its classifier.
        architecture: its name and the options that are known, as `nbdt.network.load` parses them.

    Raises NBDTError: an architecture that timm does not know.
    """
    wanted = _signature(network)
    differences = _differences(wanted, blueprint(architecture, num_classes))
    for option in _options(network) if differences else ():
        kept = [
            part for part in architecture.split(",") if part.split("=")[0] != option.split("=")[0]
        ]
        try:
            text = ",".join([*kept, option])
            left = _differences(wanted, blueprint(text, num_classes))
        except Exception:  # noqa: BLE001, S112  an option that this architecture does not take
            continue
        if len(left) < len(differences):
            architecture, differences = text, left
        if not differences:
            break
    return architecture, differences


def _options(network: nn.Module) -> Iterator[str]:
    """Yield options that may explain a difference."""
    from timm.layers import get_act_layer

    parts = list(network.modules())
    convolutions = [part for part in parts if isinstance(part, nn.Conv2d)]
    norms = [part.eps for part in parts if isinstance(part, nn.BatchNorm2d)]
    kinds = {type(part) for part in parts}
    size = getattr(getattr(network, "patch_embed", None), "img_size", None)
    if convolutions:
        yield f"in_chans={convolutions[0].in_channels}"
    if size:
        yield f"img_size={size[0]}"
    yield from (f"global_pool={pool}" for pool in POOLS)
    yield from (f"act_layer={name}" for name in ACTIVATIONS if get_act_layer(name) in kinds)
    yield from (f"bn_eps={eps}" for eps in dict.fromkeys(norms))
    yield from ("output_stride=16", "output_stride=8", "pad_type=same", "qk_norm=true")
    yield from ("class_token=false", "no_embed_class=true", "qkv_bias=false", "head_bias=false")
    yield from ("fc_norm=true", "final_norm=false", "head_norm_first=true")
    yield from ("stem_type=deep", "stem_type=deep_tiered", "stem_width=32")
    yield f"reg_tokens={getattr(network, 'num_reg_tokens', 0)}"


def _differences(wanted: dict[str, str], other: nn.Module) -> list[str]:
    cast(Any, other).reset_classifier(0)
    found = _signature(other)
    return [
        f"{name or 'network'}: {wanted.get(name, 'none')}, timm's {found.get(name, 'none')}"
        for name in dict.fromkeys([*wanted, *found])
        if wanted.get(name) != found.get(name)
    ]


def _signature(network: nn.Module) -> dict[str, str]:
    """Return the kind and the settings of each module but the classifier, and the shapes of weights."""
    classifier = cast(Any, network).get_classifier()
    found = {name: str(tuple(value.shape)) for name, value in network.state_dict().items()}
    for name, part in network.named_modules():
        if part is classifier:
            found = {key: shape for key, shape in found.items() if not key.startswith(f"{name}.")}
            continue
        kind = type(part).__name__
        if kind in _PASSING:
            continue
        found[name] = f"{kind}({part.extra_repr()})"
        for key, value in vars(part).items():
            if isinstance(value, str | int | float | tuple) and key not in _IGNORED:
                found[f"{name}.{key}"] = str(value)
    return found
