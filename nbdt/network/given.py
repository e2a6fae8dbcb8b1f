"""Any classifier as a backbone: without its last layer, which a head takes over."""

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..errors import NBDTError
from .last_layer import OUTPUT, layer_of_logits, replace
from .positions import ODD, Size, oddness, positions
from .running import hooked, logits_in, try_inputs, unchanged

# Their outputs are another layer's, or of attention: between positions, not at them.
_NO_LAYERS = (nn.Linear, nn.Identity, nn.Dropout, nn.Softmax)
MOST_PREFIX_TOKENS = 8  # class tokens and registers before the patches


class GivenNetwork(nn.Module):
    """Images to the features that a classifier's last layer takes, or to its logits.

    It has timm's names for the parts of a backbone. `feature_info` names the last layer with
    positions that the features depend on, if there is one.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.feature_info: list[dict[str, str]] = []
        self.num_prefix_tokens = 0

    def forward_features(self, images: Tensor) -> Tensor:
        """Return the features, (batch, features)."""
        return logits_in(self.network(images), None)

    def forward_head(self, features: Tensor, *, pre_logits: bool = True) -> Tensor:
        """Return the features, which are pooled."""
        return features

    def forward(self, images: Tensor) -> Tensor:
        """Return the features, (batch, features)."""
        return self.forward_features(images)


def shared_copy(network: nn.Module) -> nn.Module:
    """Return modules of their own around the very same parameters and buffers.

    Raises NBDTError: a module that Python cannot copy.
    """
    tensors = (*network.parameters(), *network.buffers())
    try:
        return copy.deepcopy(network, {id(tensor): tensor for tensor in tensors})
    except Exception as error:
        raise NBDTError(
            f"{type(network).__name__} cannot be copied ({error}), which keeps the module itself as it "
            "is. Leave such parts out, or use attach(), which changes the module."
        ) from error


def divided(
    network: nn.Module, num_classes: int, example: Tensor | None = None
) -> tuple[GivenNetwork, nn.Linear, Tensor]:
    """Return a classifier as a backbone and a last layer, and the input that it was tried on.

    The network itself is not changed; its weights are shared. A network that no single layer
    divides gives its logits as features, and the last layer is the identity.

    Args:
        num_classes: the number of its logits.
        example: a batch of images (2, channels, height, width); None: what its first layer takes.

    Raises NBDTError: it takes no such images, or does not give logits.
    """
    whole = GivenNetwork(shared_copy(getattr(network, "_orig_mod", network)))
    if example is None:
        try:
            example = cast(Tensor, try_inputs(whole.network, num_classes).example)
        except NBDTError as error:
            raise NBDTError(
                f"{error} Say how photographs become its input: preprocessing=…, a function of a PIL "
                "image such as torchvision's transforms."
            ) from error
    name = layer_of_logits(whole, num_classes, example=example)
    with unchanged(whole):
        logits = whole(example)
        layer, gone = whole.get_submodule(name), nn.Identity()
        linear = _linear(layer, num_classes) if name != OUTPUT else None
        if linear is not None:
            replace(whole, layer, gone)
            if not _gives(whole, linear, example, logits):  # the network needs its layer elsewhere
                replace(whole, gone, layer)
                linear = None
    return _with_positions(whole, example), linear or _identity(logits), example


def classifier_of(network: nn.Module) -> nn.Linear:
    """Return a classifier's last layer, to read its weights.

    Raises NBDTError: it takes none of the usual images, or no single layer gives its logits.
    """
    timms = getattr(network, "get_classifier", None)
    layer = timms() if timms else None
    if isinstance(layer, nn.Linear):
        return layer
    whole, reason = GivenNetwork(network), ""
    try:
        ran = try_inputs(network, None)
        count = ran.logits.shape[1]
        name = layer_of_logits(whole, count, example=ran.example)
        layer = _linear(whole.get_submodule(name), count) if name != OUTPUT else None
    except NBDTError as error:
        reason = f" {error}"
    if isinstance(layer, nn.Linear):
        return layer
    raise NBDTError(
        f"No linear layer of {type(network).__name__} gives its logits, so no hierarchy can be induced "
        f"from its weights; make one from class names, and use NBDT.from_network.{reason}"
    )


def _gives(backbone: nn.Module, linear: nn.Linear, example: Tensor, logits: Tensor) -> bool:
    try:
        found = linear(backbone(example))
    except Exception:  # noqa: BLE001  whatever a model raises without its layer
        return False
    return found.shape == logits.shape and torch.allclose(found, logits, 1e-3, 1e-4)


def _linear(layer: nn.Module, num_classes: int) -> nn.Linear | None:
    """Return a linear layer, or a 1 × 1 convolution as one; None for a layer of another kind."""
    if type(layer) is nn.Linear:
        return layer
    if not isinstance(layer, nn.Conv2d):
        return None
    linear = nn.Linear(layer.in_channels, num_classes, bias=layer.bias is not None, device="meta")
    linear.weight = nn.Parameter(layer.weight.detach().flatten(1))
    if layer.bias is not None:
        linear.bias = cast(nn.Parameter, layer.bias)
    return linear


def _identity(logits: Tensor) -> nn.Linear:
    linear = nn.Linear(logits.shape[1], logits.shape[1], bias=False).to(logits)
    nn.init.eye_(linear.weight)
    return linear.requires_grad_(False)


def _with_positions(backbone: GivenNetwork, example: Tensor) -> GivenNetwork:
    """Find the last layer with positions whose gradient is not 0, by running one image."""
    picture = (example.shape[-2], example.shape[-1])
    found: dict[str, list[Tensor]] = {}

    def record(name: str, output: Any) -> None:
        last = output[-1] if isinstance(output, tuple) else output
        if isinstance(last, Tensor) and last.requires_grad and last.ndim in (3, 4):
            found.setdefault(name, []).append(last)

    names = [
        name
        for name, part in backbone.named_modules()
        if name not in ("", "network") and not isinstance(part, _NO_LAYERS)
    ]
    with hooked(backbone, names, record), unchanged(backbone), torch.enable_grad():
        features = backbone(example.detach().requires_grad_())
    for name, values in reversed(found.items()):
        if len(values) == 1 and _counts(backbone, features, values[0], picture):
            backbone.feature_info = [{"module": name}]
            return backbone
    backbone.num_prefix_tokens = 0
    return backbone


def _counts(backbone: GivenNetwork, features: Tensor, values: Tensor, picture: Size) -> bool:
    """Return whether the features depend on a layer's positions; set the tokens before them."""
    for skipped in range(MOST_PREFIX_TOKENS + 1 if values.ndim == 3 else 1):
        backbone.num_prefix_tokens = skipped
        grid = positions(backbone, values, picture)
        if grid is None or grid.shape[1] == 1 or grid.shape[-2] * grid.shape[-1] == 1:
            continue
        if oddness(grid.shape[-2:], picture) > ODD:  # queries or keys of attention
            continue
        draw = torch.Generator().manual_seed(0)
        probe = torch.randn(features.shape, generator=draw).to(features)  # a norm's sum is constant
        (slope,) = torch.autograd.grad(
            features, values, probe, retain_graph=True, allow_unused=True
        )
        return slope is not None and bool(cast(Tensor, positions(backbone, slope, picture)).any())
    return False
