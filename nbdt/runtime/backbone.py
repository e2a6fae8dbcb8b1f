"""`OnnxBackbone`: a backbone that a saved model keeps as ONNX; torch pools its feature map."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..errors import NBDTError
from .session import Session

NO_GRADIENTS = (
    "This model's backbone runs in ONNX Runtime, which gives no gradients: take the model that it was "
    "made from, or for an explanation grad-cam, occlusion or lime."
)


class OnnxBackbone(nn.Module):
    """Images to a feature map in ONNX Runtime, and that to pooled features in torch.

    It has timm's names for the parts of a backbone.

    Args:
        network: of timm; it keeps only what comes after its feature map.
        session: what gives the feature map.
        keep: the names in the network's state dict of what comes after the feature map.
    """

    sha256: Tensor  # of the file, (32,) uint8: part of the state, so that weights have its hash

    def __init__(self, network: nn.Module, session: Session, keep: Collection[str]) -> None:
        super().__init__()
        patch = getattr(getattr(network, "patch_embed", None), "patch_size", None)
        self.patch_embed = SimpleNamespace(patch_size=patch)
        self.num_prefix_tokens = getattr(network, "num_prefix_tokens", 0)
        self.output_fmt = getattr(network, "output_fmt", "")
        self.network = only_head(network, keep)
        self.session = session
        digest = bytearray(hashlib.sha256(session.data).digest())
        self.register_buffer("sha256", torch.frombuffer(digest, dtype=torch.uint8))

    def forward_features(self, images: Tensor) -> Tensor:
        """Return the feature map of (batch, channels, height, width).

        Raises NBDTError: images of another shape, or gradients are asked for.
        """
        if torch.is_grad_enabled() and images.requires_grad:
            raise NBDTError(NO_GRADIENTS)
        return self.session.run(images)[0]

    def forward_head(self, feature_map: Tensor, *, pre_logits: bool = True) -> Tensor:
        """Return pooled features, (batch, features)."""
        return cast(
            Tensor, cast(Any, self.network).forward_head(feature_map, pre_logits=pre_logits)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return pooled features, (batch, features)."""
        return self.forward_head(self.forward_features(images))

    def check_hash(self, file: Path) -> None:
        """Raise NBDTError if the weights were saved with another file of the backbone."""
        if bytes(self.sha256.tolist()) != hashlib.sha256(self.session.data).digest():
            raise NBDTError(
                f"{str(file)!r} is not the backbone that these weights were saved with."
            )

    def train(self, mode: bool = True) -> OnnxBackbone:
        """Switch to evaluation. Raises NBDTError for training."""
        if mode:
            raise NBDTError(NO_GRADIENTS)
        return super().train(mode)


def only_head(network: nn.Module, keep: Collection[str]) -> nn.Module:
    """Remove from a network all parts with parameters or buffers but those named, in place."""

    def kept(name: str) -> bool:
        return any(wanted == name or wanted.startswith(f"{name}.") for wanted in keep)

    for name, part in list(network.named_children()):
        if not kept(name) and (any(True for _ in part.parameters()) or [*part.buffers()]):
            setattr(network, name, nn.Identity())
    own = [*network.named_parameters(recurse=False), *network.named_buffers(recurse=False)]
    for name, _ in own:
        if not kept(name):
            setattr(network, name, None)
    return network


def head_names(network: nn.Module, feature_map: Tensor) -> list[str]:
    """Return the names in a network's state dict of what comes after its feature map."""
    used: list[str] = []
    handles = [
        part.register_forward_hook(lambda *_, name=name: used.append(name))
        for name, part in network.named_children()
    ]
    try:
        with torch.no_grad():
            cast(Any, network).forward_head(feature_map, pre_logits=True)
    finally:
        for handle in handles:
            handle.remove()
    return [name for name in network.state_dict() if name.partition(".")[0] in used]
