"""Where a batch is computed, and how precisely."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

import nbdt
from nbdt.errors import NBDTError
from nbdt.model.model import NBDT

from .options import AUTO, BFLOAT16, FLOAT32


def best_device() -> torch.device:
    """A GPU where there is one."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def to_device(model: NBDT) -> NBDT:
    """The model itself, on the best device, its weights channels-last."""
    return model.to(device=best_device(), memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def resolve_precision(precision: str, device: torch.device) -> str:
    """'float32' or 'bfloat16'; 'auto' is bfloat16 where the hardware multiplies in it.

    Raises:
        NBDTError: another word.
    """
    if precision == AUTO:
        return BFLOAT16 if _has_bfloat16(device) else FLOAT32
    if precision not in {FLOAT32, BFLOAT16}:
        raise NBDTError(f"Unknown precision {precision!r}; there are auto, float32 and bfloat16.")
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
    """Inside, the backbone computes in `precision`; pool, head, rules and maps stay in float32."""
    if precision == FLOAT32:
        yield
        return
    whole, kind = model.feature_map, model.device.type

    def half(images: Tensor) -> Tensor:
        with torch.autocast(kind, dtype=torch.bfloat16):
            return whole(images).float()

    model.feature_map = half  # type: ignore[method-assign]
    try:
        yield
    finally:
        del model.feature_map  # the class's own again


def made_on(model: NBDT, precision: str) -> dict[str, Any]:
    """What a part says of how it was made."""
    device = model.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    versions = {"nbdt": nbdt.__version__, "torch": torch.__version__}
    versions["python"] = platform.python_version()
    return {"device": name, "precision": precision, "versions": versions}
