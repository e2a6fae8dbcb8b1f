"""The network that is trained: with random, pretrained or saved weights."""

import dataclasses
import os
from dataclasses import dataclass
from typing import Any, cast

from torch import nn

from nbdt.errors import NBDTError
from nbdt.hierarchies.classifier import class_labels, count_classes
from nbdt.model.cascade import refuse_cascade
from nbdt.model.model import NBDT
from nbdt.network.load import create_timm
from nbdt.network.preprocessing import Preprocessing, timm_preprocessing
from nbdt.runtime.backbone import NO_GRADIENTS, OnnxBackbone
from nbdt.tree.class_names import normalised_name

from ..data.class_order import ClassOrder
from ..data.dataset import Images, normalise
from ..recipe import Recipe

WHITENING_IMAGES = 5000


@dataclass(frozen=True)
class Start:
    """The network that a run starts from, before the classes of its data are known."""

    # with the architecture and size of a saved model, and the network's own size where it names
    # none
    recipe: Recipe
    network: nn.Module  # with the classifier of its weights
    preprocessing: Preprocessing  # of its input; small images ("shift") are used uncropped
    classes: tuple[str, ...] = ()  # of a saved model, in the order of its classifier; else empty
    has_weights: bool = False  # whether its weights are trained ones


def start_network(recipe: Recipe, weights: str | os.PathLike[str] | None = None) -> Start:
    """Make the recipe's network, with its weights; images are not needed yet.

    `weights` is a local file instead of the Hugging Face hub, or the folder of a saved model.

    Raises NBDTError: unknown architecture, no network for the hub, weights that do not fit, or a
    classifier that is not one linear layer.
    """
    if weights is not None and os.path.isdir(weights):
        start = _from_model(recipe, weights)
    else:
        count = None
        if weights is not None:  # a classifier is not needed
            count = count_classes(recipe.architecture, weights) or 0
        network = create_timm(recipe.architecture, count, recipe.pretrained, weights)
        if count == 0:
            cast(Any, network).reset_classifier(1)
        has_weights = recipe.pretrained or weights is not None
        preprocessing = timm_preprocessing(network)
        start = Start(recipe, network, preprocessing, has_weights=has_weights)
    if not isinstance(cast(Any, start.network).get_classifier(), nn.Linear):
        raise NBDTError(
            f"The classifier of {recipe.architecture!r} is not one linear layer, so no tree can be "
            "made from it; choose another architecture."
        )
    size = start.recipe.image_size or start.preprocessing.size
    crop = 1.0 if recipe.augment == "shift" else start.preprocessing.crop_pct  # small images: whole
    return dataclasses.replace(
        start,
        recipe=dataclasses.replace(start.recipe, image_size=size),
        preprocessing=dataclasses.replace(start.preprocessing, size=size, crop_pct=crop),
    )


def _from_model(recipe: Recipe, folder: str | os.PathLike[str]) -> Start:
    model = NBDT.load(folder)
    refuse_cascade(model, "trained", "Train its large model, then make the cascade again.")
    if isinstance(model.backbone, OnnxBackbone):
        raise NBDTError(f"{os.fspath(folder)!r} cannot be trained. {NO_GRADIENTS}")
    classes, seen = model.hierarchy.classes, model.preprocess
    network = create_timm(model.architecture, len(classes))
    network.load_state_dict(model.backbone.state_dict(), strict=False)
    cast(Any, network).get_classifier().load_state_dict(model.head.linear.state_dict())
    recipe = dataclasses.replace(recipe, architecture=model.architecture, image_size=seen.size)
    return Start(recipe, network, seen, classes, has_weights=True)


def with_classes(start: Start, order: ClassOrder) -> tuple[nn.Module, bool]:
    """Return the network with one output a class, and whether it knows these classes.

    It knows them if its classifier was trained for the very classes of this run. A classifier of
    another number of classes, or of a saved model's other classes, starts with new weights.
    """
    network, count = cast(Any, start.network), len(order.names)
    if not start.has_weights:
        return create_timm(start.recipe.architecture, count), False
    classifier = network.get_classifier()
    names = [normalised_name(name) for name in order.names]
    places = {normalised_name(name): row for row, name in enumerate(start.classes)}
    if places and sorted(names) == sorted(places):
        rows = [places[name] for name in names]
        state = {key: value[rows] for key, value in classifier.state_dict().items()}
        classifier.load_state_dict(state)
        return start.network, True
    knows = not places and _same_classes(network, classifier.out_features, order)
    if not knows and (places or classifier.out_features != count):
        network.reset_classifier(count)
        # Some of timm's new classifiers are so large that training stalls.
        network.get_classifier().reset_parameters()
    return start.network, knows


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


def whiten(network: nn.Module, data: Images, preprocessing: Preprocessing, floor: float) -> None:
    """Start the stem from the patches of the first training images.

    Raises NBDTError: the network has no such stem, or the images are not in memory.
    """
    if not hasattr(network, "whiten"):
        raise NBDTError("The recipe sets whiten, which only small_convnet can do.")
    if data.pixels is None:
        raise NBDTError("whiten needs images in memory; raise memory_gigabytes.")
    images = data.pixels[:WHITENING_IMAGES]
    cast(Any, network).whiten(normalise(images, preprocessing.mean, preprocessing.std), floor)
