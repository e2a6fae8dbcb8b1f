"""Turn a photograph into a network's input."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

MAX_SIDE = 4096  # pixels

STRIP = 16  # ratio of length to width above which an image's ends are cut off first


@dataclass(frozen=True)
class Preprocessing:
    """What turns a photograph into the network's input: timm's evaluation transform.

    The shorter side is resized to ``size / crop_pct``, the centre cropped, and each channel, in
    [0, 1], normalised with `mean` and `std`.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    crop_pct: float
    interpolation: str

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """Read what `dataclasses.asdict` gave, from a file that may be damaged.

        Raises ValueError: a value that is missing or not of its kind, or out of range.
        """
        try:
            found = cls(
                size=int(values["size"]),
                mean=three(values["mean"]),
                std=three(values["std"]),
                crop_pct=float(values["crop_pct"]),
                interpolation=Image.Resampling[values["interpolation"].upper()].name.lower(),
            )
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(str(error)) from None
        found._check_ranges()
        return found

    def _check_ranges(self) -> None:
        if not 1 <= self.size <= MAX_SIDE:
            raise ValueError(f"size {self.size:.6g} is not from 1 to {MAX_SIDE} pixels")
        if not 0.01 <= self.crop_pct <= 1:  # below, a photograph would be enlarged a hundredfold
            raise ValueError(f"crop_pct {self.crop_pct} is not from 0.01 to 1")
        if not all(math.isfinite(value) for value in (*self.mean, *self.std)):
            raise ValueError("mean or std is not finite")
        if min(self.std) <= 0:
            raise ValueError(f"std {self.std} is not above 0")

    def frame(self, image: Image.Image, size: int | None = None) -> Image.Image:
        """Return the square that the network sees of an image, with sides of `size` pixels."""
        side = size or self.size
        image = _within(image)
        scale = int(side / self.crop_pct) / min(image.size)
        width, height = (max(side, int(length * scale)) for length in image.size)
        method = Image.Resampling[self.interpolation.upper()]
        resized = image.convert("RGB").resize((width, height), method)
        left, top = round((width - side) / 2), round((height - side) / 2)
        return resized.crop((left, top, left + side, top + side))

    def __call__(self, image: Image.Image) -> Tensor:
        """Return the input (3, size, size), float32."""
        return self.normalise(torch.from_numpy(np.array(self.frame(image))))

    def normalise(self, pixels: Tensor) -> Tensor:
        """Turn pixels of `frame`, (…, height, width, 3), uint8, into inputs (…, 3, height, width)."""
        values = pixels.movedim(-1, -3).float().div_(255)
        mean, std = (values.new_tensor(of)[:, None, None] for of in (self.mean, self.std))
        return values.sub_(mean).div_(std)


def _within(image: Image.Image) -> Image.Image:
    """Cut the middle out of a long strip, which would fill the memory once enlarged."""
    length, most = max(image.size), STRIP * min(image.size)
    if length <= most:
        return image
    left, top = ((side - min(side, most)) // 2 for side in image.size)
    return image.crop((left, top, image.width - left, image.height - top))


def timm_preprocessing(network: nn.Module) -> Preprocessing:
    """Return the preprocessing in timm's configuration of a network."""
    from timm.data import resolve_model_data_config

    config = resolve_model_data_config(network)
    return Preprocessing(
        size=config["input_size"][-1],
        mean=three(config["mean"]),
        std=three(config["std"]),
        crop_pct=config["crop_pct"],
        interpolation=config["interpolation"],
    )


def three(values: Iterable[float]) -> tuple[float, float, float]:
    """Return a value each for red, green and blue. Raises ValueError for another number of them."""
    red, green, blue = map(float, values)
    return red, green, blue
