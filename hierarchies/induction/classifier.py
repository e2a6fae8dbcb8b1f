"""Any pretrained timm classifier as a readable tree, with no training: `from_classifier`.

The tree is induced from the classifier's own weights and named by WordNet. Under the `marginal`
rule its answers are the classifier's.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

from torch import nn

from nbdt.errors import NBDTError, listed
from nbdt.model.model import NBDT
from nbdt.network.load import create_timm, import_timm, parse_architecture
from nbdt.network.weights import read_weights
from nbdt.tree.hierarchy import Hierarchy
from nbdt.tree.nodes import WNID

from ..wordnet.database import wordnet
from ..wordnet.senses import _qualified
from .induced import induce

PREFIX = "timm:"


class ClassLabels(NamedTuple):
    """What a classifier's outputs stand for: a name each, and WordNet 3.0's id where it has one."""

    names: list[str]
    wnids: list[str | None]


def from_classifier(
    source: str = "timm:resnet101",
    *,
    weights: str | os.PathLike[str] | None = None,
    rule: str = "marginal",
    hierarchy: Hierarchy | None = None,
) -> NBDT:
    """A pretrained timm classifier with the tree that its own weights induce, ready to explain.

    Class names and WordNet ids are those of timm's tables for ImageNet's classifiers, else the
    labels that the model's configuration has, else "class 0", "class 1", …

    Args:
        source: ``timm:`` and an architecture, with options after commas where the weights ask for
            them: ``timm:mobilenetv2_100,pad_type=same,mean=0.5,std=0.5``; see `nbdt.network.load`.
        weights: a local file instead of the Hugging Face hub; it says how many classes there are.
        rule: as in `NBDTHead`. With "representative" the tree has to be trained before it is good.
        hierarchy: a tree to use instead; its classes are, in order, the classifier's outputs.

    Raises:
        NBDTError: unknown architecture or option, no network for the hub, weights that do not
            fit, a classifier that is not one linear layer, or a hierarchy of other classes.
    """
    architecture = source.removeprefix(PREFIX)
    count = None if weights is None else _count_classes(architecture, weights)
    network = create_timm(architecture, count, pretrained=True, weights=weights)
    linear = _linear(network, architecture)
    labels = class_labels(linear.out_features, cast(Any, network).pretrained_cfg)
    if hierarchy is None:
        hierarchy = _induced(linear, labels, rule)
    else:
        _check_classes(hierarchy, labels, architecture)
    model = NBDT.from_network(network, architecture, hierarchy, rule=rule).eval()
    model.provenance = {
        "classifier": PREFIX + architecture,
        "weights": "timm's pretrained" if weights is None else os.path.basename(weights),
    }
    return model


def _count_classes(architecture: str, weights: str | os.PathLike[str]) -> int | None:
    """How many classes the file's classifier has; None where that cannot be told."""
    if not os.path.isfile(weights):
        return None  # `create_timm` says so
    name = parse_architecture(architecture).name.split(".", maxsplit=1)[0]
    timm = import_timm()
    if not timm.is_model(name):
        return None
    layer = timm.models.get_pretrained_cfg(name).classifier  # one layer's name, or several
    layer = layer if isinstance(layer, str) else next(iter(layer or ()), None)
    matrix = read_weights(weights).get(f"{layer}.weight")
    return None if matrix is None else len(matrix)


def _linear(network: nn.Module, architecture: str) -> nn.Linear:
    classifier = cast(Any, network).get_classifier()
    if not isinstance(classifier, nn.Linear):
        raise NBDTError(
            f"The classifier of {architecture!r} is not one linear layer but "
            f"{type(classifier).__name__}, so no tree can be induced from it; choose another model."
        )
    return classifier


def _induced(linear: nn.Linear, labels: ClassLabels, rule: str) -> Hierarchy:
    # Labels without ids may still be words ("cat"); numbered ones are not.
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
            f"{architecture!r} tells {len(labels.names)} classes apart, the hierarchy has "
            f"{hierarchy.num_classes}; they must be the same classes in one order."
        )
    carried = hierarchy.class_wnids
    for place, (theirs, ours) in enumerate(zip(carried, labels.wnids, strict=True)):
        if theirs and ours and theirs != ours:
            raise NBDTError(
                f"Class {place} is {hierarchy.classes[place]!r} ({theirs}) in the hierarchy and "
                f"{labels.names[place]!r} ({ours}) in timm's table for {architecture!r}; put the "
                "hierarchy's classes in the model's order."
            )


# ---- what the outputs are called ------------------------------------------------------------


def class_labels(num_classes: int, config: Mapping[str, Any]) -> ClassLabels:
    """Names and ids of a timm classifier's outputs; the names are unique.

    Args:
        num_classes: how many outputs there are.
        config: timm's configuration of the model, of which ``label_names`` and
            ``label_descriptions`` count where there are as many as outputs.
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
    return _labelled(info.label_names(), info.label_descriptions(as_dict=True))


def _numbered(num_classes: int) -> ClassLabels:
    return ClassLabels([f"class {index}" for index in range(num_classes)], [None] * num_classes)


def _labelled(
    labels: Sequence[str], descriptions: Mapping[str, str] | Sequence[str]
) -> ClassLabels:
    """By their descriptions' first word, or WordNet's for an id, or the label itself."""
    net = wordnet()
    known = set(net.offsets.tolist())
    wnids = [
        label if WNID.fullmatch(label) and int(label[1:]) in known else None for label in labels
    ]
    if not isinstance(descriptions, Mapping):
        descriptions = dict(zip(labels, descriptions, strict=False))
    names = [
        str(descriptions.get(label) or (net.name(net.index(wnid)) if wnid else label))
        for label, wnid in zip(labels, wnids, strict=True)
    ]
    return ClassLabels(_unique([name.split(",")[0].strip() for name in names], wnids), wnids)


def _unique(names: Sequence[str], wnids: Sequence[str | None]) -> list[str]:
    """Names that differ by more than case: "crane (bird)", or numbered where ids are missing."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, name in enumerate(names):
        places[name.casefold()].append(place)
    found, known = list(names), set(names)
    for same in (row for row in places.values() if len(row) > 1):
        ids = [wnid for place in same if (wnid := wnids[place])]
        labels = [f"{names[place]} ({number})" for number, place in enumerate(same, start=1)]
        if len(set(ids)) == len(same):
            others = known.difference(names[place] for place in same)
            labels = _qualified(names[same[0]], ids, others, wordnet())
        for place, label in zip(same, labels, strict=True):
            found[place] = names[place] + label[len(names[place]) :]  # each in its own case
    if len(set(found)) < len(found):
        repeated = sorted(name for name, count in Counter(found).items() if count > 1)
        raise NBDTError(f"The classifier has several classes called {listed(repeated)}.")
    return found
