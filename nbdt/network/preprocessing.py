"""How a photograph becomes a network's input."""

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

STRIP = 16  # times its width that an image is long, from which its ends are cut off first


@dataclass(frozen=True)
class Preprocessing:
    """How a photograph becomes the network's input: timm's evaluation transform.

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
        """The inverse of `dataclasses.asdict`, from a file that may be damaged.

        Raises:
            ValueError: a value that is missing or not of its kind, or out of range.
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
        """The square part of the image that the network sees, at its size or another, in pixels."""
        side = size or self.size
        image = _within(image)
        scale = int(side / self.crop_pct) / min(image.size)
        width, height = (max(side, int(length * scale)) for length in image.size)
        method = Image.Resampling[self.interpolation.upper()]
        resized = image.convert("RGB").resize((width, height), method)
        left, top = round((width - side) / 2), round((height - side) / 2)
        return resized.crop((left, top, left + side, top + side))

    def __call__(self, image: Image.Image) -> Tensor:
        """(3, size, size), float32."""
        return self.normalise(torch.from_numpy(np.array(self.frame(image))))

    def normalise(self, pixels: Tensor) -> Tensor:
        """Of `frame`'s pixels (…, height, width, 3), uint8, on any device: (…, 3, height, width)."""
        values = pixels.movedim(-1, -3).float().div_(255)
        mean, std = (values.new_tensor(of)[:, None, None] for of in (self.mean, self.std))
        return values.sub_(mean).div_(std)


def _within(image: Image.Image) -> Image.Image:
    """The middle of a strip: all of it, enlarged before the crop, would fill the memory."""
    length, most = max(image.size), STRIP * min(image.size)
    if length <= most:
        return image
    left, top = ((side - min(side, most)) // 2 for side in image.size)
    return image.crop((left, top, image.width - left, image.height - top))


def timm_preprocessing(network: nn.Module) -> Preprocessing:
    """What timm's configuration of this network says its input should be."""
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
    """One value for each of red, green and blue. Raises ValueError for another number."""
    red, green, blue = map(float, values)
    return red, green, blue
