"""Any pretrained classifier as a readable decision tree, without training.

ImageNet's classes have a hierarchy that people can read; others get one that is induced from the
classifier's own weights and named by WordNet. Under the `marginal` rule the answers are the
classifier's.
"""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from torch import nn

from nbdt.errors import NBDTError, listed
from nbdt.model.model import NBDT
from nbdt.network import TIMM
from nbdt.network.given import classifier_of
from nbdt.network.load import blueprint, create_timm, import_timm, is_timm
from nbdt.network.weights import load_weights, read_weights
from nbdt.tree.hierarchy import Hierarchy

from .induced import induce
from .shipped import load
from .wordnet.database import wordnet
from .wordnet.senses import distinct_names

if TYPE_CHECKING:
    from PIL.Image import Image

EVERYDAY = "imagenet1k-readable"


class ClassLabels(NamedTuple):
    """A name for each output of a classifier, and its WordNet 3.0 id if it has one."""

    names: list[str]
    wnids: list[str | None]


def from_classifier(
    source: str | nn.Module = "timm:resnet101",
    *,
    weights: str | os.PathLike[str] | None = None,
    rule: str = "marginal",
    hierarchy: Hierarchy | None = None,
    preprocessing: "Callable[[Image], Any] | None" = None,
) -> NBDT:
    """Load a pretrained classifier with a hierarchy.

    For ImageNet's 1,000 classes under the `marginal` rule that is ``imagenet1k-readable``, else the
    one that the classifier's own weights induce.

    Class names and WordNet ids come from the labels in the model's configuration, from timm's
    tables for ImageNet classifiers or, without either, are "class 0", "class 1", …

    Args:
        source: ``timm:`` and an architecture, with options after commas if the weights need them:
            ``timm:mobilenetv2_100,pad_type=same,mean=0.5,std=0.5``, see `nbdt.network.load`; or a
            network, see `NBDT.from_network`.
        weights: a local file instead of the Hugging Face hub; it sets the number of classes.
        rule: as in `NBDTHead`. With "representative" the model needs training to be accurate.
        hierarchy: a hierarchy to use instead; its classes are the classifier's outputs, in order.
        preprocessing: as in `NBDT.from_network`, for a network that is not timm's.

    Raises NBDTError: an unknown architecture or option, no connection to the hub, weights that do
    not fit, a network that gives no logits, or a hierarchy of other classes.
    """
    if isinstance(source, str):
        architecture = source.removeprefix(TIMM)
        count = None if weights is None else count_classes(architecture, weights)
        network = create_timm(architecture, count, pretrained=True, weights=weights)
        facts = "timm's pretrained" if weights is None else os.path.basename(weights)
        provenance = {"classifier": TIMM + architecture, "weights": facts}
    else:
        network, architecture = source, type(source).__name__
        known = getattr(source, "pretrained_cfg", None) or {}
        architecture = known.get("architecture", architecture) if is_timm(source) else architecture
        provenance = {"classifier": architecture, "weights": "given"}
        if weights is not None:
            load_weights(network, weights)
    if hierarchy is None:
        linear = classifier_of(network)
        labels = class_labels(linear.out_features, _configuration(network))
        everyday = load(EVERYDAY)
        same = labels.wnids == [*everyday.class_wnids]
        # Under another rule the tree decides the accuracy.
        readable = same and rule == "marginal"
        hierarchy = everyday if readable else _induced(linear, labels, rule)
    else:
        outputs = int(getattr(network, "num_classes", hierarchy.num_classes))
        labels = class_labels(outputs, _configuration(network))
        _check_classes(hierarchy, labels, architecture)
    model = NBDT.from_network(
        network, architecture, hierarchy, rule=rule, preprocessing=preprocessing
    ).eval()
    model.provenance = provenance
    return model


def _configuration(network: nn.Module) -> Mapping[str, Any]:
    """Return timm's configuration of a network; of Hugging Face's, its labels under timm's name."""
    labels = getattr(getattr(network, "config", None), "id2label", None)
    if labels and list(labels.values()) != [f"LABEL_{index}" for index in range(len(labels))]:
        return {"label_names": [*labels.values()]}
    return cast(Mapping[str, Any], getattr(network, "pretrained_cfg", None) or {})


def count_classes(architecture: str, weights: str | os.PathLike[str]) -> int | None:
    """Return how many classes the file's classifier has; None if unknown."""
    if not os.path.isfile(weights):
        return None  # `create_timm` reports it
    network = blueprint(architecture, None)
    layer = cast(Any, network).pretrained_cfg["classifier"]  # one layer's name, or several
    layer = layer if isinstance(layer, str) else next(iter(layer or ()), None)
    matrix = read_weights(weights, network).get(f"{layer}.weight")
    return None if matrix is None else len(matrix)


def _induced(linear: nn.Linear, labels: ClassLabels, rule: str) -> Hierarchy:
    # Labels without ids may still be words ("cat"); numbered labels are not.
    numbered = labels == _numbered(len(labels.names))
    by_name = not numbered and not any(labels.wnids)
    return induce(
        linear.weight,
        labels.names,
        rule=rule,
        wnids=None if by_name else labels.wnids,
        names=not numbered,
    )


def _check_classes(hierarchy: Hierarchy, labels: ClassLabels, architecture: str) -> None:
    if hierarchy.num_classes != len(labels.names):
        raise NBDTError(
            f"{architecture!r} has {len(labels.names)} classes, the hierarchy has "
            f"{hierarchy.num_classes}; both need the same classes in the same order."
        )
    for place, (theirs, ours) in enumerate(zip(hierarchy.class_wnids, labels.wnids, strict=True)):
        if theirs and ours and theirs != ours:
            raise NBDTError(
                f"Class {place} is {hierarchy.classes[place]!r} ({theirs}) in the hierarchy and "
                f"{labels.names[place]!r} ({ours}) in timm's table for {architecture!r}; put the "
                "hierarchy's classes in the model's order."
            )


def class_labels(num_classes: int, config: Mapping[str, Any]) -> ClassLabels:
    """Return unique names, and ids, of a timm classifier's outputs; everyday names of ImageNet-1k.

    The ``label_names`` and ``label_descriptions`` of timm's configuration of the model are used if there
    is one for each output.
    """
    given = config.get("label_names")
    if given and len(given) == num_classes:
        return _labelled(list(map(str, given)), config.get("label_descriptions") or {})
    import_timm()
    from timm.data import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset({"num_classes": num_classes})
    if subset is None:
        return _numbered(num_classes)
    info = ImageNetInfo(subset)
    everyday = load(EVERYDAY)
    if [*everyday.class_wnids] == info.label_names():
        return ClassLabels([*everyday.classes], [*everyday.class_wnids])
    return _labelled(info.label_names(), info.label_descriptions(as_dict=True))


def _numbered(num_classes: int) -> ClassLabels:
    return ClassLabels([f"class {index}" for index in range(num_classes)], [None] * num_classes)


def _labelled(
    labels: Sequence[str], descriptions: Mapping[str, str] | Sequence[str]
) -> ClassLabels:
    """Name outputs by their descriptions' first word, WordNet's word for an id, or the label."""
    net = wordnet()
    wnids = [None if net.find(label) is None else label for label in labels]
    if not isinstance(descriptions, Mapping):
        descriptions = dict(zip(labels, descriptions, strict=False))
    names = [
        str(descriptions.get(label) or (net.name(net.index(wnid)) if wnid else label))
        for label, wnid in zip(labels, wnids, strict=True)
    ]
    unique = distinct_names([name.split(",")[0].strip() for name in names], wnids, net)
    if len(set(unique)) < len(unique):
        repeated = sorted(name for name, count in Counter(unique).items() if count > 1)
        raise NBDTError(f"The classifier has several classes called {listed(repeated)}.")
    return ClassLabels(unique, wnids)
