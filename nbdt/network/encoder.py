"""The part of a model that makes embeddings, and the device that it computes on."""

from typing import NamedTuple, TypeVar

import torch
from torch import nn

from .preprocessing import Preprocessing

Module = TypeVar("Module", bound=nn.Module)


class Encoder(NamedTuple):
    """A network without a head; a model has the same attributes."""

    backbone: nn.Module  # of timm, without classifier: images to pooled features
    architecture: str  # its name and options, as `nbdt.network.load` parses them
    preprocess: Preprocessing  # what turns a photograph into its input


def best_device() -> torch.device:
    """Return a GPU if there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def to_device(network: Module) -> Module:
    """Move a network itself to the best device, its weights channels-last."""
    return network.to(device=best_device(), memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
