"""Put a head into any model: `attach`, `detach`, `flat`."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from ..errors import NBDTError
from ..network.last_layer import OUTPUT, find_module, layer_of_logits, no_tensor, replace
from ..tree.hierarchy import Hierarchy
from .head import NBDTHead

M = TypeVar("M", bound=nn.Module)
OUTPUT_HEAD = "nbdt_head"  # the submodule's name where the rules are on a model's output


def attach(
    model: M, hierarchy: Hierarchy, *, rule: str, layer: str | None = None, example: Any = None
) -> M:
    """Put an `NBDTHead` in the place of the layer that gives the model's logits; return the model.

    The model runs once to find the layer whose output is its own, see
    `nbdt.network.last_layer.layer_of_logits`. It is kept inside the head, so that `detach` gives the
    model back. If no single layer gives the logits, the head goes on the model's output, as its
    submodule `nbdt_head`.

    Args:
        model: any classifier; it is changed in place.
        hierarchy: its classes are, in order, the model's outputs.
        rule: as in `DecisionRules`.
        layer: the name of the layer that gives the logits; "" for the model's output.
        example: the model's argument, or a tuple or mapping of its arguments; by default an input
            that its first layer takes.

    Raises NBDTError: no such layer, a `layer` whose output is not the model's, a model that gives
    probabilities, or an object to which no single layer gives the logits; a model that takes none of
    the inputs tried, that has a head already, or that TorchScript made.
    """
    if _heads(model):
        raise NBDTError("The model has an NBDTHead already; detach(model) first.")
    if isinstance(model, torch.jit.ScriptModule):
        raise NBDTError(
            "A TorchScript model cannot be changed; attach to the model it was made of."
        )
    name = layer_of_logits(model, hierarchy.num_classes, layer=layer, example=example)
    linear = find_module(model, name) if name != OUTPUT else nn.Identity()
    head = NBDTHead.from_linear(linear, hierarchy, rule=rule)
    if name == OUTPUT:
        _put_on_output(model, head)
    else:
        replace(model, linear, head)
    return model


def detach(model: M) -> M:
    """Undo `attach` by putting the same layer back, and return the model.

    Raises NBDTError: the model has no head, or is one.
    """
    for name, head in _require_heads(model).items():
        if not name:
            raise NBDTError("This is a bare NBDTHead; its linear layer is `head.linear`.")
        if name.rpartition(".")[2] == OUTPUT_HEAD:
            _take_off_output(model.get_submodule(name.rpartition(".")[0]))
        else:
            replace(model, head, head.linear)
    return model


@contextmanager
def flat(model: nn.Module) -> Iterator[None]:
    """Make the model return flat logits, which `TreeSupervisionLoss` takes, inside the block.

    It works through wrappers such as DistributedDataParallel, for one thread at a time: the switch
    is on the head.

    Raises NBDTError: the model has no head.
    """
    heads = _require_heads(model).values()
    before = [head.gives_flat for head in heads]
    for head in heads:
        head.gives_flat = True
    try:
        yield
    finally:
        for head, value in zip(heads, before, strict=True):
            head.gives_flat = value


def _heads(model: nn.Module) -> dict[str, NBDTHead]:
    return {name: part for name, part in model.named_modules() if isinstance(part, NBDTHead)}


def _require_heads(model: nn.Module) -> dict[str, NBDTHead]:
    heads = _heads(model)
    if not heads:
        raise NBDTError(
            f"{type(model).__name__} has no NBDTHead; attach(model, hierarchy, rule=…) first."
        )
    return heads


def _put_on_output(model: nn.Module, head: NBDTHead) -> None:
    parameter = next(model.parameters(), None)
    head.train(model.training).to(parameter.device if parameter is not None else None)
    model.add_module(OUTPUT_HEAD, head)
    if type(model).forward is not nn.Sequential.forward:  # which now ends with the head
        model.register_forward_hook(_decide_output)


def _take_off_output(model: nn.Module) -> None:
    delattr(model, OUTPUT_HEAD)
    hooks = model._forward_hooks  # noqa: SLF001  a handle would not survive a deep copy
    for key in [key for key, hook in hooks.items() if hook is _decide_output]:
        del hooks[key]


def _decide_output(model: nn.Module, _inputs: Any, output: Any) -> Tensor:
    """Apply the rules, as a forward hook that finds the head on the model: copies use their own."""
    if not isinstance(output, Tensor):
        raise NBDTError(no_tensor(model, output))
    return cast(Tensor, getattr(model, OUTPUT_HEAD)(output))
