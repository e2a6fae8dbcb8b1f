"""CIFAR as torchvision's downloads leave it: ``cifar-10-batches-py`` and ``cifar-100-python``.

These files are pickles. torchvision checks their MD5 sums first and opens only the published ones;
anything else is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import NBDTError
from ..torchvision_cpu import import_torchvision
from .sources import ImageSource

FOLDERS = {"cifar-10-batches-py": "CIFAR10", "cifar-100-python": "CIFAR100"}


def cifar_splits(root: Path) -> dict[str, Callable[[], Iterator[ImageSource]]]:
    """Return both splits if torchvision keeps CIFAR in `root` or its parent, else nothing.

    Raises:
        NBDTError: the files are incomplete or not the published ones.
    """
    for folder, name in FOLDERS.items():
        for parent in (root, root.parent):
            if (parent / folder).is_dir() and (parent == root or root.name == folder):
                return {
                    split: partial(_sources, parent, name, train=split == "train")
                    for split in ("train", "test")
                }
    return {}


def _sources(root: Path, name: str, *, train: bool) -> Iterator[ImageSource]:
    import_torchvision()
    from torchvision import datasets

    try:
        data: Any = getattr(datasets, name)(root, train=train, download=False)
    except RuntimeError as error:
        raise NBDTError(
            f"{str(root)!r} holds {name} files that are incomplete, or not the published ones by "
            f"their MD5 sums ({error}); they are pickles, so they are not opened. Fetch them again."
        ) from None
    split = "train" if train else "test"
    for index, (pixels, target) in enumerate(zip(data.data, data.targets, strict=True)):
        reference = f"{root}!{name}/{split}/{index}"
        yield ImageSource(reference, str(data.classes[target]), partial(_image, pixels))


def _image(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> Image.Image:
    return Image.fromarray(pixels)
