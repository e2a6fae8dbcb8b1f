"""Find the layer that gives a classifier's logits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..errors import NBDTError, listed, nearest

OUTPUT = ""  # the name of the model itself: its output is the logits
# After one of these there are no logits any more, and a second softmax would be wrong silently.
_SQUASHING = (
    nn.Softmax,
    nn.Softmax2d,
    nn.Softmin,
    nn.LogSoftmax,
    nn.Sigmoid,
    nn.LogSigmoid,
    nn.Tanh,
)
_RESHAPING = (nn.Identity, nn.Flatten, nn.Unflatten)


def last_layer(model: nn.Module, num_classes: int) -> str:
    """Return the name of the layer that probably gives the logits.

    It is the last registered linear layer with an output per class, or else such a 1 × 1
    convolution. It is `OUTPUT` if no single layer gives the logits: the model computes on after it
    (SqueezeNet: ReLU, then a pool), several parallel layers share the answer (distilled models,
    CrossViT), or it is a part of an adapter (LoRA). `layer_that_answers` runs the model and is sure.

    Raises NBDTError: no such layer, or one that a softmax follows.
    """
    *others, last = _fitting(model, num_classes)
    _refuse_squashing(model, last)
    goes_on = any(not isinstance(part, _RESHAPING) for part in _after(model, last, sure=True))
    shared = any(_side_by_side(model, name, last) for name in others)
    return OUTPUT if goes_on or shared or _in_adapter(model, last) else last


def layer_that_answers(model: nn.Module, num_classes: int, example: Any) -> str:
    """Return the same as `last_layer`, found by running the model on an example.

    It is the layer with an output per class that runs once and whose output is the model's; `OUTPUT`
    if there is none and the model gives one tensor. Modes and weights stay as they are. The example is
    the model's argument, or a tuple or mapping of its arguments.

    Raises:
        NBDTError: the model does not return logits (batch, classes), but for instance probabilities.
    """
    output, given = _run_once(model, num_classes, example)
    logits = _logits(output, num_classes)
    for name, found in given.items():
        if len(found) == 1 and torch.equal(found[0].flatten(1), logits):
            return name
    sums = logits.sum(dim=1)
    if bool((logits >= 0).all()) and torch.allclose(sums, torch.ones_like(sums)):
        raise NBDTError(
            f"{type(model).__name__} gives probabilities, not logits: they sum to 1. Remove the "
            "softmax; a head gives log-probabilities itself."
        )
    if output is not logits:
        raise NBDTError(
            f"{type(model).__name__} computes its logits from more than one layer and gives a "
            f"{type(output).__name__}: there is no place for a head. Wrap it in a module that gives the "
            "logits alone."
        )
    return OUTPUT


def _run_once(
    model: nn.Module, num_classes: int, example: Any
) -> tuple[Any, dict[str, list[Tensor]]]:
    """Return the model's output, in evaluation mode, and those of each layer that fits."""
    given: dict[str, list[Tensor]] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda _layer, _inputs, output: given.setdefault(name, []).append(output)

    hooks = [
        part.register_forward_hook(keep(name))
        for name, part in model.named_modules()
        if name and width(part, "out") == num_classes
    ]
    try:
        with evaluating(model), torch.no_grad():
            if isinstance(example, Mapping):
                return model(**example), given
            return model(*example if isinstance(example, tuple) else (example,)), given
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Switch to evaluation mode; at the end restore every module's own mode."""
    training = [part for part in model.modules() if part.training]
    model.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


def _logits(output: Any, num_classes: int) -> Tensor:
    """Return a model's output itself, its `logits`, or the first of several."""
    if isinstance(output, Mapping):
        found = output.get("logits")
    elif isinstance(output, tuple | list):
        found = getattr(output, "logits", output[0] if output else None)
    else:
        found = getattr(output, "logits", output)
    if not isinstance(found, Tensor) or found.ndim != 2 or found.shape[1] != num_classes:
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise NBDTError(
            f"Expected logits (batch, {num_classes}) from the model, one for each class of the "
            f"hierarchy, got {shape}."
        )
    return found


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


def find_module(model: nn.Module, name: str) -> nn.Module:
    """Return the module of that name. Raises NBDTError, with the nearest name, if there is none."""
    known = dict(model.named_modules(remove_duplicate=False))
    if name not in known:
        raise NBDTError(f"{type(model).__name__} has no module {name!r}.{nearest(name, known)}")
    return cast(nn.Module, known[name])


def width(module: nn.Module, side: str) -> int | None:
    """Return the inputs ("in") or outputs ("out") of a linear layer or 1 × 1 convolution, else None."""
    if isinstance(module, nn.Linear):
        return int(getattr(module, f"{side}_features"))
    if isinstance(module, nn.Conv2d) and set(module.kernel_size) == {1} and module.groups == 1:
        return int(getattr(module, f"{side}_channels"))
    return None


def _after(model: nn.Module, name: str, *, sure: bool) -> Iterator[nn.Module]:
    """Yield what the modules around a module register after it; if `sure`, only what surely runs."""
    while name:
        name, _, child = name.rpartition(".")
        around = model.get_submodule(name)
        if sure and not isinstance(around, nn.Sequential):
            return
        children = dict(around.named_children())
        yield from list(children.values())[list(children).index(child) + 1 :]


def _refuse_squashing(model: nn.Module, name: str) -> None:
    for part in _after(model, name, sure=False):
        if isinstance(part, _SQUASHING):
            kind = type(part).__name__
            raise NBDTError(
                f"In {type(model).__name__} a {kind} follows the last layer {name!r}, so that the "
                f"model gives no logits. Remove the {kind}: a head gives log-probabilities itself. "
                f"(If the model does not run it, say layer={name!r}.)"
            )


def _in_adapter(model: nn.Module, name: str) -> bool:
    """Return whether a module around it is an adapter of a layer, as peft's are."""
    while name:
        name = name.rpartition(".")[0]
        if name and isinstance(getattr(model.get_submodule(name), "base_layer", None), nn.Module):
            return True
    return False


def _side_by_side(model: nn.Module, first: str, last: str) -> bool:
    """Return whether the layers are parallel: siblings that nothing runs one after the other."""
    parts, others = first.split("."), last.split(".")
    differing = [i for i, pair in enumerate(zip(parts, others, strict=False)) if len({*pair}) > 1]
    if len(parts) != len(others) or len(differing) != 1:
        return False
    around = model.get_submodule(".".join(parts[: differing[0]]))
    if isinstance(around, nn.Sequential):
        return False
    same_input = width(model.get_submodule(first), "in") == width(model.get_submodule(last), "in")
    return isinstance(around, nn.ModuleList) or same_input
