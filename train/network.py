"""The network that is trained: fresh, or with weights that already know something."""

from __future__ import annotations

import os
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from nbdt.class_labels import plain
from nbdt.errors import NBDTError
from nbdt.hierarchies.classifier import class_labels
from nbdt.networks import create_timm, mismatch, read_weights
from nbdt.preprocessing import Preprocessing

from .class_order import ClassOrder
from .config import Recipe
from .data import Labelled, Streamed, normalise

WHITENING_IMAGES = 5000


class Start(NamedTuple):
    """A network, and whether its classifier was trained for the very classes of this run."""

    network: nn.Module
    knows_classes: bool


def make_network(
    recipe: Recipe, order: ClassOrder, weights: str | os.PathLike[str] | None = None
) -> Start:
    """The recipe's network with an output a class.

    Args:
        recipe: architecture, and whether it starts from pretrained weights.
        order: the classes.
        weights: a local file instead of the Hugging Face hub. A classifier of another number of
            classes is left out.

    Raises:
        NBDTError: unknown architecture, no network for the hub, weights that do not fit, or a
            classifier that is not one linear layer.
    """
    count = len(order.names)
    if weights is not None:
        network = create_timm(recipe.architecture, count)
        trained_for = _load(network, weights, count)
    elif recipe.pretrained:
        network = create_timm(recipe.architecture, None, pretrained=True)
        trained_for = int(cast(Any, network).num_classes)
        if not _same_classes(network, trained_for, order):
            cast(Any, network).reset_classifier(count)
            _calm(network)
    else:
        network, trained_for = create_timm(recipe.architecture, count), 0
    if not isinstance(cast(Any, network).get_classifier(), nn.Linear):
        raise NBDTError(
            f"The classifier of {recipe.architecture!r} is not one linear layer, so no tree can be "
            "made from it; choose another architecture."
        )
    return Start(network, _same_classes(network, trained_for, order))


def _load(network: nn.Module, weights: str | os.PathLike[str], count: int) -> int:
    """Fill the network from a file; how many classes the file's classifier knows."""
    state = read_weights(weights)
    own = network.state_dict()
    name = cast(Any, network).pretrained_cfg["classifier"]
    rows = state.get(f"{name}.weight", torch.empty(0)).shape[0]
    if rows != count:
        kept = {key: value for key, value in state.items() if not key.startswith(f"{name}.")}
        fresh: dict[str, Tensor] = {k: v for k, v in own.items() if k.startswith(f"{name}.")}
        state = kept | fresh
    problem = mismatch(network, state)
    if problem:
        raise NBDTError(f"The weights in {os.fspath(weights)!r} do not fit the network: {problem}.")
    network.load_state_dict(state)
    if rows != count:
        _calm(network)
    return rows


def _calm(network: nn.Module) -> None:
    """Start a new classifier small: some of timm's start so wide that it drowns the features."""
    classifier = cast(Any, network).get_classifier()
    if isinstance(classifier, nn.Linear):
        classifier.reset_parameters()


def _same_classes(network: nn.Module, trained_for: int, order: ClassOrder) -> bool:
    """Whether what timm says of the outputs' classes agrees with `order`, one by one."""
    if trained_for != len(order.names):
        return False
    labels = class_labels(trained_for, cast(Any, network).pretrained_cfg)
    if any(labels.wnids) and all(order.wnids):
        return tuple(labels.wnids) == order.wnids
    return [plain(name) for name in labels.names] == [plain(name) for name in order.names]


def whiten(
    network: nn.Module, data: Labelled | Streamed, preprocessing: Preprocessing, floor: float
) -> None:
    """Start the stem from the first training images' patches. Raises NBDTError if it cannot."""
    if not hasattr(network, "whiten"):
        raise NBDTError("The recipe sets whiten, which only small_convnet can do.")
    if isinstance(data, Streamed):
        raise NBDTError("whiten needs images in memory; raise memory_gigabytes.")
    images = data.images[:WHITENING_IMAGES]
    cast(Any, network).whiten(normalise(images, preprocessing.mean, preprocessing.std), floor)
