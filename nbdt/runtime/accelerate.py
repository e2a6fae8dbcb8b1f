"""Torch backbones whose feature map ONNX Runtime computes wherever no gradient is needed.

The package has the graph of the default network without its weights, 26 kB. Those of the torch
network go into it when the model is loaded, with the batch norms folded, so that nothing is converted and
nothing is kept on the disk. Hooks, gradients, training and other devices still use torch.
"""

from __future__ import annotations

from importlib.resources import files
from itertools import chain
from operator import is_
from typing import Any, NamedTuple, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from .. import __version__
from ..network.given import GivenNetwork
from ..network.installed_weights import ARCHITECTURE
from ..network.running import needs_torch
from .backbone import OnnxBackbone
from .session import Session, is_installed, name_and_version

RUNTIMES = TORCH, ONNX = "torch", "onnx"
GRAPHS = {ARCHITECTURE: f"{ARCHITECTURE}.onnx"}  # made by tools/make_graph.py
KEPT = "_modules", "_parameters", "_buffers", "_forward_hooks", "_forward_pre_hooks"  # of a module


class _Accelerated(NamedTuple):
    """A backbone's session, and the backbone when it was made; that itself is not in here."""

    session: Session
    tensors: list[Tensor]
    writes: int
    inner: list[nn.Module]
    empty: list[dict[Any, Any]]  # those of `KEPT` that had nothing in them
    full: list[dict[Any, Any]]
    sizes: list[int]  # how much the full ones had in them
    values: list[Any]  # and what

    @property
    def is_valid(self) -> bool:
        """Whether the session still gives what torch would; asked before every forward pass."""
        now = chain.from_iterable(map(dict.values, self.full))
        same = [*map(len, self.full)] == self.sizes and all(map(is_, now, self.values))
        same = same and not any(self.empty)
        plain = self.tensors[0].device.type == "cpu" and self.tensors[0].dtype == torch.float32
        written = _writes(self.tensors) != self.writes
        return same and plain and not written and not any(part.training for part in self.inner)


_accelerated: WeakKeyDictionary[nn.Module, _Accelerated] = WeakKeyDictionary()


def accelerate(backbone: nn.Module, architecture: str) -> bool:
    """Use ONNX Runtime for a backbone from now on; return whether it is installed and has the graph.

    A copy of the backbone uses torch, and so does the backbone itself once its weights, modules or
    hooks change. Torch does not count what is written through ``.data``: that goes unnoticed.
    """
    if architecture not in GRAPHS or not is_installed():
        return False
    data = (files("nbdt") / "runtime" / GRAPHS[architecture]).read_bytes()
    tensors = [*chain(backbone.parameters(), backbone.buffers())]
    every = [*backbone.modules()]
    kept = [vars(part)[name] for part in every for name in KEPT]
    empty, full = ([one for one in kept if bool(one) == some] for some in (False, True))
    values = [*chain.from_iterable(map(dict.values, full))]
    _accelerated[backbone] = _Accelerated(
        Session(data, folded(backbone)), tensors, _writes(tensors), every[1:],
        empty, full, [*map(len, full)], values,
    )  # fmt: skip
    return True


def runs_in_onnx(backbone: nn.Module, side: int | None = None) -> bool:
    """Return whether ONNX Runtime computes a backbone's feature maps where no gradient is needed.

    `side`: pixels of its images; None: as many as the graph is for.
    """
    session = _session(backbone)
    fits = session is not None and side in {None, session.shape[-1]}
    return isinstance(backbone, OnnxBackbone) or fits


def made_with(backbone: nn.Module, side: int) -> dict[str, Any]:
    """Return the "runtime" that computes a backbone's feature maps now, and "versions", for records.

    `side`: pixels of its images.
    """
    name = name_and_version() if runs_in_onnx(backbone, side) else f"{TORCH} {torch.__version__}"
    return {"runtime": name, "versions": {"nbdt": __version__, "torch": torch.__version__}}


def feature_map(backbone: nn.Module, images: Tensor) -> Tensor:
    """Return a backbone's last feature map, from ONNX Runtime where that gives the same."""
    session = None if torch.is_grad_enabled() else _session(backbone)
    plain = images.device.type == "cpu" and images.dtype == torch.float32
    if session is not None and plain and tuple(images.shape[1:]) == session.shape:
        return session.run(images)[0]
    # Convolutions on a CPU are up to 1.4 times as fast with the channels last. Other people's networks
    # may flatten with `view`, which needs them first.
    if images.device.type == "cpu" and not isinstance(backbone, OnnxBackbone | GivenNetwork):
        images = images.contiguous(memory_format=torch.channels_last)
    return cast(Tensor, cast(Any, backbone).forward_features(images))


def _session(backbone: nn.Module) -> Session | None:
    found = _accelerated.get(backbone)
    if found is None or needs_torch() or backbone.training or torch.is_autocast_enabled("cpu"):
        return None
    return found.session if found.is_valid else None


def _writes(tensors: list[Tensor]) -> int:
    """Return how often tensors were written to, where torch counts that."""
    return sum(0 if value.is_inference() else value._version for value in tensors)  # noqa: SLF001


def folded(network: nn.Module) -> dict[str, Tensor]:
    """Return the weight and bias of each convolution with those of the batch norm that follows it.

    Every convolution must be followed by one, in the order of the modules.
    """
    kinds = nn.Conv2d, nn.BatchNorm2d
    parts = [(name, part) for name, part in network.named_modules() if isinstance(part, kinds)]
    found: dict[str, Tensor] = {}
    with torch.no_grad():
        for (name, convolution), (_, norm) in zip(parts[::2], parts[1::2], strict=True):
            layer, after = cast(nn.Conv2d, convolution), cast(nn.BatchNorm2d, norm)
            scale = after.weight / (cast(Tensor, after.running_var) + after.eps).sqrt()
            weight = layer.weight * scale[:, None, None, None]
            found[f"{name}.weight"] = weight.contiguous()
            found[f"{name}.bias"] = after.bias - cast(Tensor, after.running_mean) * scale
    return found
