"""Hashes of models: the same weights, settings and tree give the same text anywhere."""

import hashlib
import json
from typing import Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ..decide.head import NBDTHead
from ..network.preprocessing import Preprocessing

_known: WeakKeyDictionary[nn.Module, tuple[object, str]] = WeakKeyDictionary()


class Embedder(Protocol):
    """The parts of a model, or of an `Encoder`, that make an embedding."""

    @property
    def backbone(self) -> nn.Module: ...  # noqa: D102
    @property
    def architecture(self) -> str: ...  # noqa: D102
    @property
    def preprocess(self) -> Preprocessing: ...  # noqa: D102


class Classifier(Embedder, Protocol):
    """The parts of a model that decide an answer."""

    @property
    def head(self) -> NBDTHead: ...  # noqa: D102


def model_hash(model: Classifier) -> str:
    """Return the SHA-256 of what decides an answer: weights, preprocessing, tree, rule, cascade."""
    parts = [embedding_hash(model), weights_hash(model.head.linear)]
    parts += [model.head.hierarchy.hash, model.head.rule]
    if cascade := getattr(model, "cascade", None):
        judge = cascade.judge
        parts += [model_hash(cascade.small), weights_hash(judge.linear), judge.hierarchy.hash]
        parts += [repr(cascade.gate)]
    return _digest(parts)


def embedding_hash(model: Embedder) -> str:
    """Return the SHA-256 of what decides an embedding; an edited hierarchy does not change it."""
    settings = json.dumps(model.preprocess.facts(), sort_keys=True)
    return _digest([weights_hash(model.backbone), model.architecture, settings])


def weights_hash(module: nn.Module) -> str:
    """Return the SHA-256 of a module's state: names, types, shapes and values.

    Hashing 45 million weights takes about 0.2 s, so the result is cached while the tensors'
    addresses, versions and sums stay the same. Versions miss writes through ``.data``, and sums
    miss permutations.
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
    """Return how often a tensor was written to, if torch counts that."""
    return 0 if value.is_inference() else value._version  # noqa: SLF001


def _digest(parts: list[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
