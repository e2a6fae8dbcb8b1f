"""What a model is, as a hash: the same weights, settings and tree give the same text anywhere."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from .model import NBDT

_known: WeakKeyDictionary[nn.Module, tuple[object, str]] = WeakKeyDictionary()


def model_hash(model: NBDT) -> str:
    """SHA-256 over everything that decides an answer: weights, preprocessing, hierarchy, rule."""
    parts = [embedding_hash(model), weights_hash(model.head.linear)]
    return _digest([*parts, model.hierarchy.hash, model.rule])


def embedding_hash(model: NBDT) -> str:
    """SHA-256 over what decides an embedding: an edited hierarchy leaves it as it was."""
    settings = json.dumps(asdict(model.preprocess), sort_keys=True)
    return _digest([weights_hash(model.backbone), model.architecture, settings])


def weights_hash(module: nn.Module) -> str:
    """SHA-256 over the module's state: names, types, shapes and values.

    Hashing 45 million weights takes about 0.2 s, so the result is kept while the tensors' places,
    versions and sums stay the same: writes through ``.data`` pass the version by, and a
    permutation keeps the sum.
    """
    state = module.state_dict()
    key = [
        (name, value.data_ptr(), _version(value), float(value.sum()))
        for name, value in state.items()
    ]
    known = _known.get(module)
    if known and known[0] == key:
        return known[1]
    hashed = hashlib.sha256()
    for name, value in sorted(state.items()):
        hashed.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        plain = value.detach().cpu().contiguous().reshape(-1)
        hashed.update(plain.view(torch.uint8).numpy().data)
    _known[module] = (key, hashed.hexdigest())
    return hashed.hexdigest()


def _version(value: Tensor) -> int:
    """How often the tensor was written to, where torch counts that."""
    return 0 if value.is_inference() else value._version  # noqa: SLF001


def _digest(parts: list[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
