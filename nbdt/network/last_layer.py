"""Find the layer that gives a classifier's logits: by running it where that can be done, else by structure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

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
_FIRST = {
    nn.Linear: 0,
    nn.Conv1d: 1,
    nn.Conv2d: 2,
    nn.Conv3d: 3,
}  # axes of positions in their input
_SIDES = (224, 32, 28, 96, 128, 160, 256, 299, 384, 512)  # that networks are made for, in pixels
_CHEAP = 64  # pixels that most networks without a size of their own take


class _Run(NamedTuple):
    """What came out when a model ran on an example."""

    output: Any  # of the model
    logits: Tensor  # (batch, classes), the output itself or a part of it
    given: dict[str, list[Tensor]]  # by layers that may give the logits, with noise of their own


def layer_of_logits(
    model: nn.Module, num_classes: int, *, layer: str | None = None, example: Any = None
) -> str:
    """Return the name of the layer whose output is the model's; `OUTPUT` if that is the place.

    The model runs once, on the `example` or on an input that its first layer takes. The noise that
    is added to each layer's output shows which one the model's output is. Modes, buffers and
    the state of random numbers stay as they are. A model that takes none of the inputs tried is
    judged by its structure, see `last_layer`.

    Args:
        model: any classifier.
        num_classes: the number of its logits.
        layer: the layer to check; None: find it.
        example: the model's argument, or a tuple or mapping of its arguments.

    Raises:
        NBDTError: the output is no logits, such as probabilities; it is an object to which no layer
            gives the logits; or it is not what `layer` gives.
    """
    if layer:
        find_module(model, layer)
    if example is not None:
        ran: _Run | None = _run(model, num_classes, example, layer)
    else:
        ran = None if width(model, "out") else _try(model, num_classes, layer)
    if ran is None:
        return last_layer(model, num_classes) if layer is None else layer
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


def no_tensor(model: nn.Module, output: Any) -> str:
    """Return what to do about a model whose output is an object."""
    part = "[0]" if isinstance(output, tuple | list) else ".logits"
    part = "['logits']" if isinstance(output, Mapping) and not hasattr(output, "logits") else part
    return (
        f"{type(model).__name__} gives a {type(output).__name__} instead of logits (batch, "
        f"classes). Wrap it in a module whose forward returns `model(x){part}`, and attach to that."
    )


def _refuse_probabilities(model: nn.Module, ran: _Run) -> None:
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


def _try(model: nn.Module, num_classes: int, layer: str | None) -> _Run | None:
    """Run a model on what its first layer takes; None if it takes nothing that was tried."""
    for shape in _shapes(model):
        weight = next(model.parameters())
        draw = torch.Generator().manual_seed(0)
        example = torch.randn(shape, generator=draw).to(weight.device, weight.dtype)
        try:
            return _run(model, num_classes, example, layer)
        except NBDTError:  # it ran, and gave something else for such an input
            return None
        except Exception:  # noqa: BLE001, S112  whatever a model raises, the input was not for it
            continue
    return None


def _shapes(model: nn.Module) -> Iterator[tuple[int, ...]]:
    """Yield shapes of inputs that a model probably takes: those it names, then usual ones."""
    first = next((part for part in model.modules() if type(part) in _FIRST), None)
    if first is None or any(parameter.is_meta for parameter in model.parameters()):
        return
    if isinstance(first, nn.Linear):  # or another one that is used before it
        widths = [part.in_features for part in model.modules() if isinstance(part, nn.Linear)]
        yield from ((2, width) for width in [*dict.fromkeys(widths)][:4])
        return
    named = [getattr(part, "config", part) for part in model.modules()]
    sides = [getattr(part, name, None) for part in named for name in ("image_size", "img_size")]
    sides += list((getattr(model, "pretrained_cfg", None) or {}).get("input_size", ()))[-1:]
    whole = [side[-1] if isinstance(side, tuple | list) else side for side in sides]
    usual = [side for side in whole if isinstance(side, int)]
    for side in dict.fromkeys([_CHEAP, *usual, *_SIDES]):
        yield 2, first.in_channels, *[side] * _FIRST[type(first)]


def _run(model: nn.Module, num_classes: int, example: Any, layer: str | None) -> _Run:
    """Run a model in evaluation mode, with noise on the output of every layer that fits."""
    given: dict[str, list[Tensor]] = {}
    draw = torch.Generator().manual_seed(1)

    def add_noise(name: str) -> Callable[..., Tensor]:
        def hook(_layer: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
            noise = torch.randn(output.shape, generator=draw).to(output)
            given.setdefault(name, []).append(output + noise)
            return output + noise

        return hook

    hooks = [
        part.register_forward_hook(add_noise(name))
        for name, part in model.named_modules()
        if name and (width(part, "out") == num_classes or name == layer)
    ]
    run = getattr(model, "_orig_mod", model)  # without torch's compiler
    try:
        with unchanged(model):
            if isinstance(example, Mapping):
                output = run(**example)
            else:
                output = run(*example if isinstance(example, tuple) else (example,))
    finally:
        for hook in hooks:
            hook.remove()
    return _Run(output, logits_in(output, num_classes), given)


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Evaluate without gradients; then restore modes, buffers and the state of random numbers."""
    kept = [
        (part, name, buffer, buffer.clone())
        for part in model.modules()
        for name, buffer in part.named_buffers(recurse=False)
    ]
    devices = {parameter.device for parameter in model.parameters() if parameter.is_cuda}
    try:
        with evaluating(model), torch.no_grad(), torch.random.fork_rng([*devices]):
            yield
    finally:
        for part, name, buffer, before in kept:
            setattr(part, name, buffer)
            if not buffer.is_meta and not torch.equal(buffer, before):
                buffer.copy_(before)


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


def logits_in(output: Any, num_classes: int) -> Tensor:
    """Return a model's output itself, its `logits`, or the first of several.

    Raises NBDTError: that is no tensor (batch, classes).
    """
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


def last_layer(model: nn.Module, num_classes: int) -> str:
    """Return the name of the layer that probably gives the logits, without running the model.

    It is the last registered linear layer with an output per class, or else such a 1 × 1
    convolution. It is `OUTPUT` if no single layer gives the logits: the model computes on after it
    (SqueezeNet: ReLU, then a pool), several parallel layers share the answer (distilled models,
    CrossViT), or it is a part of an adapter (LoRA).

    Raises NBDTError: no such layer, or one that a softmax follows.
    """
    *others, last = _fitting(model, num_classes)
    _refuse_squashing(model, last)
    goes_on = any(not isinstance(part, _RESHAPING) for part in _after(model, last, sure=True))
    shared = any(_side_by_side(model, name, last) for name in others)
    return OUTPUT if goes_on or shared or _in_adapter(model, last) else last


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
