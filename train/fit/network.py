"""The network that is trained: with random, pretrained or saved weights."""

from __future__ import annotations

import os
from typing import Any, cast

import torch
from torch import Tensor, nn

from nbdt.errors import NBDTError
from nbdt.hierarchies.classifier import class_labels
from nbdt.model.model import NBDT
from nbdt.network.load import create_timm, mismatch, read_weights
from nbdt.network.preprocessing import Preprocessing
from nbdt.tree.class_names import normalised_name

from ..data.class_order import ClassOrder
from ..data.dataset import Labelled, Streamed, normalise
from ..recipe import Recipe

WHITENING_IMAGES = 5000


def make_network(
    recipe: Recipe, order: ClassOrder, weights: str | os.PathLike[str] | None = None
) -> tuple[nn.Module, bool]:
    """Return the recipe's network with one output a class, and whether it knows these classes.

    It knows them if its classifier was trained for the very classes of this run.

    Args:
        recipe: architecture, and whether it starts from pretrained weights.
        order: the classes.
        weights: a local file instead of the Hugging Face hub, or the folder of a saved model. A
            classifier of another number of classes, or of a saved model's other classes, is left
            out.

    Raises:
        NBDTError: unknown architecture, no network for the hub, weights that do not fit, or a
            classifier that is not one linear layer.
    """
    count = len(order.names)
    if weights is not None:
        network = create_timm(recipe.architecture, count)
        knows_classes = _load(network, weights, order)
    elif recipe.pretrained:
        network = create_timm(recipe.architecture, None, pretrained=True)
        trained_for = int(cast(Any, network).num_classes)
        knows_classes = _same_classes(network, trained_for, order)
        if not knows_classes:
            cast(Any, network).reset_classifier(count)
            _reset_small(network)
    else:
        network, knows_classes = create_timm(recipe.architecture, count), False
    if not isinstance(cast(Any, network).get_classifier(), nn.Linear):
        raise NBDTError(
            f"The classifier of {recipe.architecture!r} is not one linear layer, so no tree can be "
            "made from it; choose another architecture."
        )
    return network, knows_classes


def _load(network: nn.Module, weights: str | os.PathLike[str], order: ClassOrder) -> bool:
    """Load the weights; return whether the classifier is now one of the run's classes."""
    name = str(cast(Any, network).pretrained_cfg["classifier"])
    saved = os.path.isdir(weights)
    state = _saved_model(weights, name, order) if saved else read_weights(weights)
    rows = state.get(f"{name}.weight", torch.empty(0)).shape[0]
    knows_size = rows == len(order.names)
    if not knows_size:
        rest = {key: value for key, value in state.items() if not key.startswith(f"{name}.")}
        fresh = network.state_dict().items()
        state = rest | {key: value for key, value in fresh if key.startswith(f"{name}.")}
    problem = mismatch(network, state)
    if problem:
        raise NBDTError(
            f"The weights in {os.fspath(weights)!r} do not fit the network: {problem}. Name the "
            "architecture that they were trained with: --set architecture=NAME."
        )
    network.load_state_dict(state)
    if not knows_size:
        _reset_small(network)
    return knows_size and (saved or _same_classes(network, rows, order))


def _saved_model(
    folder: str | os.PathLike[str], classifier: str, order: ClassOrder
) -> dict[str, Tensor]:
    """Return the tensors of a saved model; the classifier's only if it has the run's classes."""
    model = NBDT.load(folder)
    places = {normalised_name(name): row for row, name in enumerate(model.hierarchy.classes)}
    names = [normalised_name(name) for name in order.names]
    state: dict[str, Tensor] = dict(model.backbone.state_dict())
    if sorted(names) == sorted(places):
        rows = [places[name] for name in names]
        linear = model.head.linear.state_dict()
        state |= {f"{classifier}.{key}": value[rows] for key, value in linear.items()}
    return state


def _reset_small(network: nn.Module) -> None:
    """Start a new classifier with small weights: some of timm's are so large that training stalls."""
    classifier = cast(Any, network).get_classifier()
    if isinstance(classifier, nn.Linear):
        classifier.reset_parameters()


def _same_classes(network: nn.Module, trained_for: int, order: ClassOrder) -> bool:
    """Return whether the classes that timm names for the outputs are those of `order`, one by one."""
    if trained_for != len(order.names):
        return False
    labels = class_labels(trained_for, cast(Any, network).pretrained_cfg)
    if any(labels.wnids) and all(order.wnids):
        return tuple(labels.wnids) == order.wnids
    return [normalised_name(name) for name in labels.names] == [
        normalised_name(name) for name in order.names
    ]


def whiten(
    network: nn.Module, data: Labelled | Streamed, preprocessing: Preprocessing, floor: float
) -> None:
    """Start the stem from the patches of the first training images.

    Raises:
        NBDTError: the network has no such stem, or the images are not in memory.
    """
    if not hasattr(network, "whiten"):
        raise NBDTError("The recipe sets whiten, which only small_convnet can do.")
    if isinstance(data, Streamed):
        raise NBDTError("whiten needs images in memory; raise memory_gigabytes.")
    images = data.images[:WHITENING_IMAGES]
    cast(Any, network).whiten(normalise(images, preprocessing.mean, preprocessing.std), floor)
