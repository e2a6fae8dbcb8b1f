"""Find the layer that gives a classifier's logits, by running it."""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..errors import NBDTError, listed, nearest
from .running import Run, run, try_inputs, width

OUTPUT = ""  # the name of the model itself: its output is the logits


def layer_of_logits(
    model: nn.Module, num_classes: int, *, layer: str | None = None, example: Any = None
) -> str:
    """Return the name of the layer whose output is the model's; `OUTPUT` if that is the place.

    The model runs once, on the `example` or on an input that its first layer takes. The noise that
    is added to each layer's output shows which one the model's output is. Modes, buffers and
    the state of random numbers stay as they are. A `layer` is not checked in a model that takes none
    of the inputs tried.

    Args:
        num_classes: the number of its logits.
        layer: the layer to check; None: find it.
        example: the model's argument, or a tuple or mapping of its arguments.

    Raises NBDTError: the output is no logits, such as probabilities; it is an object to which no layer
    gives the logits; it is not what `layer` gives; or the model takes none of the inputs tried and no
    `layer` is named.
    """
    if layer:
        find_module(model, layer)
    if width(model, "out") and example is None and layer is None:
        _fitting(model, num_classes)  # raises: there is nothing inside a layer
    try:
        ran = (
            try_inputs(model, num_classes, layer)
            if example is None
            else run(model, num_classes, example, layer)
        )
    except NBDTError as error:
        if example is not None:
            raise
        if layer is not None:
            return layer
        raise _not_run(model, num_classes, error) from error
    answering = [
        name
        for name, found in ran.given.items()
        if len(found) == 1 and torch.equal(found[0].flatten(1).to(ran.logits), ran.logits)
    ]
    if not answering:
        _refuse_probabilities(model, ran)
    if layer and layer not in answering:
        place = answering[0] if answering else OUTPUT
        raise NBDTError(
            f"The output of {type(model).__name__} is not what its layer {layer!r} gives: the model "
            "goes on after it, or reads its weight without calling it. Attach with "
            f"layer={place!r}."
        )
    if answering and layer != OUTPUT:
        return layer or answering[0]
    if ran.output is not ran.logits:
        raise NBDTError(
            f"{no_tensor(model, ran.output)} No single layer gives its logits, so "
            "there is no other place for a head."
        )
    return OUTPUT


def _not_run(model: nn.Module, num_classes: int, error: NBDTError) -> NBDTError:
    """Return what to do about a model that took none of the inputs tried."""
    try:
        fitting = _fitting(model, num_classes)
    except NBDTError as missing:
        return NBDTError(f"{missing} {error}")
    return NBDTError(
        f"{error} Give example=…, what the model is called with, or name the layer that gives its "
        f"logits: layer={fitting[-1]!r} ({num_classes} outputs have: {listed(fitting)})."
    )


def no_tensor(model: nn.Module, output: Any) -> str:
    """Return what to do about a model whose output is an object."""
    part = "[0]" if isinstance(output, tuple | list) else ".logits"
    part = "['logits']" if isinstance(output, Mapping) and not hasattr(output, "logits") else part
    return (
        f"{type(model).__name__} gives a {type(output).__name__} instead of logits (batch, "
        f"classes). Wrap it in a module whose forward returns `model(x){part}`, and attach to that."
    )


def _refuse_probabilities(model: nn.Module, ran: Run) -> None:
    """Raise NBDTError if the output is a softmax or a sigmoid of something."""
    name, logits = type(model).__name__, ran.logits.float()
    sums = logits.sum(dim=1)
    if bool((logits >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-3):
        raise NBDTError(
            f"{name} gives probabilities, not logits: they sum to 1. Remove the softmax; a head "
            "gives log-probabilities itself."
        )
    for layer, found in ran.given.items():
        if found[0].numel() == logits.numel() and torch.allclose(
            found[0].flatten(1).float().sigmoid(), logits, atol=1e-3
        ):
            raise NBDTError(
                f"{name} gives the sigmoid of its layer {layer!r}, not logits. Remove the sigmoid; a "
                "head gives log-probabilities itself."
            )


def class_weights(model: nn.Module, num_classes: int) -> Tensor:
    """Return the weights (classes, features) of the last layer that has an output per class.

    Raises NBDTError: no such layer.
    """
    layer = model.get_submodule(_fitting(model, num_classes)[-1])
    return cast(Tensor, layer.weight).flatten(1)


def _fitting(model: nn.Module, num_classes: int) -> list[str]:
    layers = {name: part for name, part in model.named_modules() if width(part, "out")}
    fitting = [name for name, part in layers.items() if width(part, "out") == num_classes]
    linear = [name for name in fitting if isinstance(layers[name], nn.Linear)]
    fitting = linear or fitting
    if not fitting or fitting == [""]:
        found = [f"{name} ({width(part, 'out')})" for name, part in layers.items()]
        raise NBDTError(
            f"Expected a linear layer inside {type(model).__name__} with {num_classes} outputs, "
            f"one for each class of the hierarchy, or a 1 × 1 convolution; found "
            f"{listed(found[-5:]) or 'none'}. If the model's output is {num_classes} logits all "
            "the same, say layer='' to put the rules on the output; or use NBDTHead."
        )
    return fitting


def replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Replace a module everywhere: a model may reach one layer by two names."""
    for name, part in list(model.named_modules(remove_duplicate=False)):
        if part is old:
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, new)


def find_module(model: nn.Module, name: str) -> nn.Module:
    """Return the module of that name. Raises NBDTError, with the nearest name, if there is none."""
    known = dict(model.named_modules(remove_duplicate=False))
    if name not in known:
        raise NBDTError(f"{type(model).__name__} has no module {name!r}.{nearest(name, known)}")
    return cast(nn.Module, known[name])
