"""How a batch is computed: the precision, and no more work than its files need."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor

import nbdt
from nbdt.errors import check_known
from nbdt.model.model import NBDT

from ..attribution import GRAD_CAM, answers_made, explain
from ..maps.layers import map_layer
from ..maps.levels import FAST
from ..maps.node_maps import head_logits, path_maps
from ..result.explanation import Explanation
from .options import AUTO, BFLOAT16, FLOAT32, BatchOptions

Explainer: TypeAlias = Callable[[Tensor], Sequence[Explanation]]


def resolve_precision(precision: str, device: torch.device) -> str:
    """Return 'float32' or 'bfloat16'; 'auto' is bfloat16 where the hardware multiplies in it.

    Raises NBDTError: another word.
    """
    if precision == AUTO:
        return BFLOAT16 if _has_bfloat16(device) else FLOAT32
    check_known("precision", precision, (AUTO, FLOAT32, BFLOAT16))
    return precision


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    flags = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(flags.get("avx512_bf16") or flags.get("amx_bf16"))


@contextmanager
def computing(model: NBDT, precision: str) -> Iterator[None]:
    """Compute the backbone in `precision` inside; pool, head, rules and maps stay in float32."""
    if precision == FLOAT32:
        yield
        return
    feature_map, device = model.feature_map, model.device.type

    def autocast(images: Tensor) -> Tensor:
        with torch.autocast(device, dtype=torch.bfloat16):
            return feature_map(images).float()

    model.feature_map = autocast  # type: ignore[method-assign]
    try:
        yield
    finally:
        del model.feature_map  # the class's method shows again


def made_on(model: NBDT, precision: str) -> dict[str, Any]:
    """Return the device, precision and versions that a part records."""
    device = model.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    versions = {"nbdt": nbdt.__version__, "torch": torch.__version__}
    versions["python"] = platform.python_version()
    return {"device": name, "precision": precision, "versions": versions}


@contextmanager
def explaining(model: NBDT, options: BatchOptions) -> Iterator[Explainer]:
    """Give a function from a batch of images to what is stored of each, in the chosen precision.

    Raises NBDTError: the network fails for every image, for example without positions to map.
    """
    explainer = _cheapest(model, options)
    with computing(model, options.precision):
        _try_once(explainer, model)
        yield explainer


def _cheapest(model: NBDT, options: BatchOptions) -> Explainer:
    if not options.pages and options.maps == "none":
        return partial(_paths, model, options.accuracy, with_maps=False)
    if not options.pages and options.maps == "npz" and options.method == GRAD_CAM:
        return partial(_paths, model, options.accuracy, with_maps=True)
    return partial(
        explain, model, method=options.method, accuracy=options.accuracy, level=FAST,
        evidence=options.evidence or False, counterfactuals=options.counterfactuals,
    )  # fmt: skip


def _paths(
    model: NBDT, accuracy: float | None, images: Tensor, *, with_maps: bool
) -> list[Explanation]:
    """Return paths and at most the maps of chosen children: half the work of `explain`."""
    layer = map_layer(model, images) if with_maps else None
    with torch.inference_mode():
        features = layer.features if layer else model.features(images).float()
        paths = model.head.rules.paths(head_logits(model, features))
    maps = path_maps(model, layer, paths) if layer else [()] * len(paths)
    given = answers_made(model, features, paths, accuracy)
    return [
        Explanation(path, path_maps, made=answer)
        for path, path_maps, answer in zip(paths, maps, given, strict=True)
    ]


def _try_once(explainer: Explainer, model: NBDT) -> None:
    """Explain one grey image."""
    side = model.preprocess.size
    explainer(torch.zeros(1, 3, side, side, device=model.device))
