"""Models for ``torch.hub.load("nbdt-vision/nbdt-vision", "cifar10")``; nothing is executed but this
package's own code: weights are safetensors, the rest is JSON.
"""

from __future__ import annotations

from typing import Any

dependencies = ["torch", "timm", "safetensors", "networkx", "PIL", "numpy", "huggingface_hub"]


def cifar10() -> Any:
    """The bundled model of ten classes at 32 × 32 pixels, in evaluation mode."""
    from nbdt import NBDT

    return NBDT.load("cifar10")


def cifar100() -> Any:
    """The bundled model of a hundred classes at 32 × 32 pixels, in evaluation mode."""
    from nbdt import NBDT

    return NBDT.load("cifar100")


def pretrained(name: str, **options: Any) -> Any:
    """A published model: a repository of the Hugging Face hub or a folder; see
    ``NBDT.from_pretrained`` for the options.
    """
    from nbdt import NBDT

    return NBDT.from_pretrained(name, **options)
