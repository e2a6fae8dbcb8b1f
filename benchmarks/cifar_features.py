"""Frozen features of CIFAR-10, computed once and kept: what experiments on a last layer start from.

Two networks that were trained elsewhere: a MobileNetV2 of ImageNet, which never saw a CIFAR label, on
images enlarged to 64 pixels; and a ResNet-56 of CIFAR-10, which did see the training labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cifar_resnet  # noqa: F401  it registers its network on import
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nbdt.images.dataset import iter_images
from nbdt.network.load import create_timm
from nbdt.network.weights import read_weights


@dataclass(frozen=True)
class Network:
    architecture: str
    classes: int
    weights: str
    side: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


MOBILENET = Network(
    "mobilenetv2_100,pad_type=same", 1000, "imagenet_mobilenetv2_100_tf2ptq_fp16.pth", 64,
    (0.5, 0.5, 0.5), (0.5, 0.5, 0.5),
)  # fmt: skip
RESNET56 = Network(
    "resnet56_cifar", 10, "cifar10_resnet56-4bfd9763.th", 32,
    (0.485, 0.456, 0.406), (0.229, 0.224, 0.225),
)  # fmt: skip


@dataclass(frozen=True)
class Split:
    features: Tensor
    labels: Tensor

    def __getitem__(self, rows: Tensor) -> Split:
        return Split(self.features[rows], self.labels[rows])


def load_network(network: Network, data: Path) -> Any:
    built: Any = create_timm(network.architecture, network.classes)
    built.load_state_dict(read_weights(data / "weights" / network.weights))
    return built.eval().to(memory_format=torch.channels_last)


def features(network: Network, data: Path, cache: Path, split: str) -> tuple[Split, list[str]]:
    """Pooled features of one archive, (count, features) half precision, and the class names."""
    file = cache / network.architecture.partition(",")[0] / f"{split}.pt"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(_features(network, data, split), file)
    kept = torch.load(file, weights_only=True)
    return Split(kept["f"].float(), kept["l"]), kept["names"]


def _features(network: Network, data: Path, split: str) -> dict[str, Any]:
    built = load_network(network, data)
    mean, std = (torch.tensor(of).view(3, 1, 1) for of in (network.mean, network.std))
    labels: list[str] = []
    found, batch = [], []

    def flush() -> None:
        pixels = (torch.stack(batch).float() / 255 - mean) / std
        if network.side != pixels.shape[-1]:
            pixels = F.interpolate(pixels, (network.side,) * 2, mode="bilinear")
        with torch.inference_mode():
            maps = built.forward_features(pixels.contiguous(memory_format=torch.channels_last))
            found.append(built.forward_head(maps, pre_logits=True).half())
        batch.clear()

    for source in iter_images(data / f"cifar10_{split}_lossless.tar.xz"):
        batch.append(torch.from_numpy(np.array(source.open())).permute(2, 0, 1))
        labels.append(str(source.label))
        if len(batch) == 100:
            flush()
    if batch:
        flush()
    names = sorted(set(labels))
    index = torch.tensor([names.index(label) for label in labels])
    return {"f": torch.cat(found), "l": index, "names": names}
