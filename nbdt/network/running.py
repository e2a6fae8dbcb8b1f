"""Run a classifier once without leaving a trace, on an input that was given or is found."""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..errors import NBDTError

# How many axes of positions the input of a layer has.
_FIRST = {nn.Linear: 0, nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}
_SIDES = (64, 224, 32, 28, 96, 128, 160, 256, 299, 384, 512)  # pixels: a cheap one, then usual ones


class Run(NamedTuple):
    """What came out when a model ran on an example."""

    example: Any
    output: Any  # of the model
    logits: Tensor  # (batch, classes), the output itself or a part of it
    given: dict[str, list[Tensor]]  # by layers that may give the logits, with noise of their own


def try_inputs(model: nn.Module, num_classes: int | None, layer: str | None = None) -> Run:
    """Run a model on what its first layer takes, or on images.

    Raises NBDTError: it takes nothing that was tried; the message says what that was, and the last
    reason.
    """
    tried, reason = [], "its first layer is neither linear nor a convolution with weights"
    for shape in _shapes(model):
        weight = next(model.parameters())
        draw = torch.Generator().manual_seed(0)
        example = torch.randn(shape, generator=draw).to(weight.device, weight.dtype)
        try:
            return run(model, num_classes, example, layer)
        except Exception as error:  # noqa: BLE001  whatever a model raises, the input was not for it
            tried.append("×".join(map(str, shape)))
            words = str(error).strip(" .\n")[:300] or "no message"
            reason = f"the last gave {type(error).__name__}: {words}"
            if isinstance(error, NBDTError) and len(shape) > 2:  # no other size would give logits
                break
    raise NBDTError(
        f"{type(model).__name__} took none of the inputs tried ({', '.join(tried) or 'none'}): {reason}."
    )


def _shapes(model: nn.Module) -> Iterator[tuple[int, ...]]:
    """Yield shapes of inputs that a model probably takes: those it names, then usual ones."""
    first = next((part for part in model.modules() if isinstance(part, (*_FIRST,))), None)
    if first is None or any(value.is_meta or is_lazy(value) for value in model.parameters()):
        return
    axes = next(axes for kind, axes in _FIRST.items() if isinstance(first, kind))
    if axes == 0:  # or another one that is used before it
        widths = [part.in_features for part in model.modules() if isinstance(part, nn.Linear)]
        yield from ((2, width) for width in [*dict.fromkeys(widths)][:4])
    named = [getattr(part, "config", part) for part in model.modules()]
    sides = [getattr(part, name, None) for part in named for name in ("image_size", "img_size")]
    timm = list((getattr(model, "pretrained_cfg", None) or {}).get("input_size", ()))[-1:]
    whole = [side[-1] if isinstance(side, tuple | list) else side for side in sides]
    usual = [side for side in whole if isinstance(side, int)]
    # Some networks turn colours and patches into channels before their first layer.
    for channels in dict.fromkeys([getattr(first, "in_channels", 3), 3]):
        for side in dict.fromkeys([*usual, _SIDES[0], *timm, *_SIDES]):
            yield 2, int(channels), *[side] * (axes or 2)


def run(model: nn.Module, num_classes: int | None, example: Any, layer: str | None) -> Run:
    """Run a model in evaluation mode, with noise on the output of every layer that fits."""
    given: dict[str, list[Tensor]] = {}
    draw = torch.Generator().manual_seed(1)

    def add_noise(name: str, output: Tensor) -> Tensor:
        noise = torch.randn(output.shape, generator=draw).to(output)
        given.setdefault(name, []).append(output + noise)
        return output + noise

    names = [
        name
        for name, part in model.named_modules()
        if name and (width(part, "out") in {num_classes} - {None} or name == layer)
    ]
    plain = getattr(model, "_orig_mod", model)  # without torch's compiler
    with hooked(model, names, add_noise), unchanged(model):
        if isinstance(example, Mapping):
            output = plain(**example)
        else:
            output = plain(*example if isinstance(example, tuple) else (example,))
    return Run(example, output, logits_in(output, num_classes), given)


_torch_only: ContextVar[bool] = ContextVar("_torch_only", default=False)


@contextmanager
def in_torch() -> Iterator[None]:
    """Have torch run backbones inside the block, also those that ONNX Runtime could."""
    token = _torch_only.set(True)
    try:
        yield
    finally:
        _torch_only.reset(token)


def needs_torch() -> bool:
    """Return whether this is inside a block of `in_torch`."""
    return _torch_only.get()


@contextmanager
def hooked(
    model: nn.Module, names: Iterable[str], function: Callable[[str, Any], Any]
) -> Iterator[None]:
    """Call `function` with the name and output of modules that run in this thread, inside the block.

    What it returns, unless that is None, replaces the output. Other threads may share the model.
    """
    owner = threading.get_ident()

    def hook(name: str, _module: nn.Module, _inputs: Any, output: Any) -> Any:
        return function(name, output) if threading.get_ident() == owner else None

    with in_torch(), ExitStack() as handles:
        for name in names:
            layer = model.get_submodule(name)
            handles.enter_context(layer.register_forward_hook(partial(hook, name)))
        yield


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


def logits_in(output: Any, num_classes: int | None) -> Tensor:
    """Return a model's output itself, its `logits`, or the first of several.

    Raises NBDTError: that is no tensor (batch, classes); None stands for any number of them.
    """
    if isinstance(output, Mapping):
        found = output.get("logits")
    elif isinstance(output, tuple | list):
        found = getattr(output, "logits", output[0] if output else None)
    else:
        found = getattr(output, "logits", output)
    fits = isinstance(found, Tensor) and found.ndim == 2
    if not fits or num_classes not in {None, cast(Tensor, found).shape[1]}:
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise NBDTError(
            f"Expected logits (batch, {num_classes or 'classes'}) from the model, one for each class "
            f"of the hierarchy, got {shape}."
        )
    return cast(Tensor, found)


def width(module: nn.Module, side: str) -> int | None:
    """Return the inputs ("in") or outputs ("out") of a linear layer or 1 × 1 convolution, else None."""
    if isinstance(module, nn.Linear):
        return int(getattr(module, f"{side}_features"))
    if isinstance(module, nn.Conv2d) and set(module.kernel_size) == {1} and module.groups == 1:
        return int(getattr(module, f"{side}_channels"))
    return None
