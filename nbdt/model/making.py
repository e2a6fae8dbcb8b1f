"""The parts of a model, taken from any classifier."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from torch import Tensor, nn

from ..decide.attach import detach
from ..decide.head import NBDTHead
from ..errors import NBDTError
from ..network.described import described
from ..network.given import divided, shared_copy
from ..network.load import is_timm
from ..network.preprocessing import (
    GivenPreprocessing,
    Preprocessing,
    preprocessing_of,
    timm_preprocessing,
)
from ..tree.hierarchy import Hierarchy

if TYPE_CHECKING:
    from PIL.Image import Image


class Parts(NamedTuple):
    """The arguments of `NBDT`."""

    backbone: nn.Module
    head: NBDTHead
    architecture: str
    preprocessing: Preprocessing


def parts_of_timm(network: nn.Module, architecture: str, hierarchy: Hierarchy, rule: str) -> Parts:
    """Return the parts of a network that `create_timm` made; it loses its classifier.

    Raises NBDTError: the classifier is not one linear layer with an output per class.
    """
    classifier = cast(Any, network).get_classifier()
    if not isinstance(classifier, nn.Linear):
        raise NBDTError(
            f"Expected the classifier of {architecture!r} to be one linear layer, got "
            f"{type(classifier).__name__}; use NBDT.from_network or attach for such a network."
        )
    head = NBDTHead.from_linear(classifier, hierarchy, rule=rule)
    preprocessing = timm_preprocessing(network)
    cast(Any, network).reset_classifier(0)
    return Parts(network, head, architecture, preprocessing)


def parts_of(
    network: nn.Module,
    architecture: str,
    hierarchy: Hierarchy,
    rule: str,
    *,
    preprocessing: Callable[[Image], Any] | None,
    example: Tensor | None = None,
) -> Parts:
    """Return the parts of any classifier, see `NBDT.from_network`.

    `example` is a batch of two images, for a network without `preprocessing`.
    """
    given = None if preprocessing is None else preprocessing_of(preprocessing)
    if is_timm(network):
        with suppress(NBDTError):  # an architecture that timm does not know: it cannot be saved
            text, differences = described(network, architecture, hierarchy.num_classes)
            architecture = architecture if differences else text
        parts = parts_of_timm(network, architecture, hierarchy, rule)
        return parts if given is None else parts._replace(preprocessing=given)
    if given is None and hasattr(network, "pretrained_cfg"):  # timm's, with several last layers
        given = timm_preprocessing(network)
    if example is None and given is not None:
        example = given.example(next(network.parameters()))
    backbone, linear, example = divided(network, hierarchy.num_classes, example)
    head = NBDTHead.from_linear(linear, hierarchy, rule=rule)
    return Parts(
        backbone, head, architecture, given or GivenPreprocessing.missing(example.shape[-1])
    )


def parts_of_attached(
    network: nn.Module, preprocessing: Callable[[Image], Any] | None, example: Tensor | None
) -> Parts:
    """Return the parts of a network with a head, which stays as it is; else as `parts_of`.

    Raises NBDTError: it has no head inside.
    """
    heads = [part for part in network.modules() if isinstance(part, NBDTHead)]
    if len(heads) != 1 or heads[0] is network:
        raise NBDTError(
            f"{type(network).__name__} has no NBDTHead inside: attach(model, hierarchy, rule=…) puts "
            "one there, and NBDT.from_network makes a model of a network without."
        )
    head, plain = heads[0], detach(shared_copy(network))
    name = type(network).__name__
    return parts_of(
        plain, name, head.hierarchy, head.rule, preprocessing=preprocessing, example=example
    )
