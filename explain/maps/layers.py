"""The layer that a node map is computed on, and the gradient of the head with respect to it.

A map is Grad-CAM: the gradient of a score with respect to the layer, averaged over positions, times
the layer itself (Selvaraju et al., 2017; raw and signed here, neither clipped nor rescaled). All maps
of an image share one forward pass and one backward pass:

- average pool, then the linear head: the gradient is the head's own weights, nothing to compute;
- something more between the layer and the head (a norm in ConvNeXt, a hidden layer in MobileNetV3):
  the exact gradient through just that;
- a class token: the patch tokens of the last block do not reach the answer, so the layer is the last
  one whose patch tokens do, and the gradient goes through the blocks after it.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from nbdt.errors import NBDTError
from nbdt.model.model import NBDT
from nbdt.network.given import GivenNetwork
from nbdt.network.positions import Size, pools_by_average, positions
from nbdt.network.running import hooked
from nbdt.runtime.backbone import NO_GRADIENTS, OnnxBackbone

QUERIES_AT_ONCE = 32  # gradients of that many nodes are in memory together
PLAIN_SIDE = 8  # cells along a side where no layer gives a grid
PLAIN_GRID = "fitted to hidden regions of a plain grid: this network has no layer with positions"


class NoPositionsError(NBDTError):
    """No layer of a network has positions that reach the head."""


@dataclass(frozen=True, eq=False)
class Layer:
    """A batch's last feature map, and the weight of each of its channels for any score."""

    name: str  # module path inside the backbone, or "forward_features" for its output
    method: str  # how the gradient was computed, for a person to read
    features: Tensor  # (batch, features), what the head takes
    activations: Tensor  # (batch, channels, height, width)
    # (batch, queries, features) gradients of scores with respect to `features`, to (batch, queries,
    # channels): their gradients with respect to `activations`, averaged over positions.
    channel_weights: Callable[[Tensor], Tensor]

    def maps(self, vectors: Tensor) -> Tensor:
        """Return Grad-CAM of scores with gradients `vectors`: (batch, queries, height, width)."""
        weights = self.channel_weights(vectors).float()
        return torch.einsum("bqd,bdhw->bqhw", weights, self.activations.float())

    @property
    def is_plain(self) -> bool:
        """Whether it is from `plain_layer`."""
        return self.method == PLAIN_GRID


def map_layer(model: NBDT, images: Tensor) -> Layer:
    """Run `images` (batch, 3, height, width) up to the head and return the layer for maps.

    Weights, their gradients, the mode and hooks are not changed; frozen weights and
    ``torch.inference_mode()`` are supported.

    Raises NBDTError: the network refuses the size, or none of its layers has positions that matter.
    """
    with torch.inference_mode(False), torch.no_grad():
        images = images.clone() if images.is_inference() else images
        with size_errors(model, images):
            has_tokens = bool(getattr(model.backbone, "num_prefix_tokens", False))
            if isinstance(model.backbone, GivenNetwork) or has_tokens:
                return _through_gradients(model, images)
            feature_map = model.feature_map(images)
            pooled = _average_pool(model, feature_map, _size(images))
            if pooled is not None:
                return pooled
            if positions(model.backbone, feature_map, _size(images)) is None:
                return _through_gradients(model, images)  # an earlier layer may have positions
            return _through_gradients(model, images, feature_map)


def plain_layer(model: NBDT, images: Tensor) -> Layer:
    """Run `images` up to the head of a network without positions; maps of the result are zeros.

    Raises NBDTError: the network refuses the size.
    """
    with torch.no_grad(), size_errors(model, images):
        features = model.features(images)
    cells = features.new_zeros(len(features), 1, PLAIN_SIDE, PLAIN_SIDE)
    return Layer("input", PLAIN_GRID, features, cells, lambda vectors: vectors[..., :1])


def any_layer(model: NBDT, images: Tensor) -> Layer:
    """Return `map_layer`, or `plain_layer` for a network without positions."""
    try:
        return map_layer(model, images)
    except NoPositionsError:
        return plain_layer(model, images)


def _average_pool(model: NBDT, feature_map: Tensor, picture: Size) -> Layer | None:
    """The closed form, if pooling is an average."""
    activations = positions(model.backbone, feature_map, picture)
    if activations is None or not pools_by_average(
        model.backbone, model.head.in_features, feature_map, picture
    ):
        return None
    count = activations.shape[-2] * activations.shape[-1]
    return Layer(
        "forward_features",
        "closed form (average pool, linear head)",
        model.pool(feature_map),
        activations,
        lambda vectors: vectors / count,
    )


def _through_gradients(model: NBDT, images: Tensor, feature_map: Tensor | None = None) -> Layer:
    """The last layer whose positions reach the head, and the gradient through what follows it."""
    if feature_map is None and isinstance(model.backbone, OnnxBackbone):
        raise NoPositionsError(f"Its maps need gradients of layers. {NO_GRADIENTS}")
    candidates: list[tuple[str, Tensor]] = []
    with torch.enable_grad():
        if feature_map is None:
            with _recorded(model.backbone, candidates), torch.no_grad():
                feature_map = model.feature_map(images)
        leaf = feature_map if feature_map.requires_grad else feature_map.detach().requires_grad_()
        candidates.append(("forward_features", leaf))
        features = model.pool(leaf.clone())
        draw = torch.Generator().manual_seed(0)
        probe = torch.randn(features.shape, generator=draw).to(features)
        for name, tensor in reversed(candidates):
            (slope,) = torch.autograd.grad(
                features, tensor, probe, retain_graph=True, allow_unused=True
            )
            seen = None if slope is None else positions(model.backbone, slope, _size(images))
            if seen is not None and seen.any():
                return _gradient_layer(model, name, tensor, features, _size(images))
    raise NoPositionsError(
        f"{model.architecture!r} has no layer with positions, which level 'fast' and Grad-CAM need. Use "
        "level='default', whose maps come from hiding cells of a plain grid, or method='occlusion'."
    )


def _gradient_layer(
    model: NBDT, name: str, tensor: Tensor, features: Tensor, picture: Size
) -> Layer:
    def grid(values: Tensor) -> Tensor:
        return cast(Tensor, positions(model.backbone, values, picture))  # chosen for having them

    def channel_weights(vectors: Tensor) -> Tensor:
        found = []
        for part in vectors.transpose(0, 1).to(features.dtype).split(QUERIES_AT_ONCE):
            (slopes,) = torch.autograd.grad(
                features, tensor, part, retain_graph=True, is_grads_batched=True
            )
            found.append(grid(slopes.flatten(0, 1)).mean(dim=(2, 3)).unflatten(0, (len(part), -1)))
        return torch.cat(found).transpose(0, 1)

    method = "gradient through what follows the layer"
    return Layer(name, method, features.detach(), grid(tensor.detach()), channel_weights)


def _recorded(backbone: nn.Module, found: list[tuple[str, Tensor]]) -> AbstractContextManager[None]:
    """Append (name, output) of the last two blocks while the backbone runs without gradients.

    From the first of them on, gradients are recorded: what comes before costs no memory.
    """

    def record(name: str, output: Any) -> Any:
        parts = output if isinstance(output, tuple) else (output,)
        last = parts[-1]  # of several streams (TNT), the one that goes on to the head
        if not isinstance(last, Tensor):
            return output
        torch.set_grad_enabled(True)
        kept = last if last.requires_grad else last.detach().requires_grad_()
        found.append((name, kept))
        again = kept.clone()  # what follows may write in place
        return (*parts[:-1], again) if isinstance(output, tuple) else again

    names = [entry["module"] for entry in list(getattr(backbone, "feature_info", []))[-2:]]
    return hooked(backbone, names, record)


def _size(images: Tensor) -> Size:
    return images.shape[-2], images.shape[-1]


@contextmanager
def size_errors(model: NBDT, images: Tensor) -> Iterator[None]:
    """Explain a network's error about images of a size that it cannot take."""
    channels, height, width = images.shape[1:]
    size = model.preprocess.size
    # The channels of a timm network were checked by its name.
    known = (height, width) == (size, size) and not isinstance(model.backbone, GivenNetwork)
    try:
        yield
    except (AssertionError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError) or known:
            raise
        raise NBDTError(
            f"{model.architecture!r} cannot take images of {height} × {width} pixels and {channels} "
            f"channels ({str(error).splitlines()[0]}); it was made for {size} × {size}: use "
            "model.preprocess."
        ) from error
