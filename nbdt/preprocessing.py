"""How a photograph becomes a network's input."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn


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

    def frame(self, image: Image.Image, size: int | None = None) -> Image.Image:
        """The square part of the image that the network sees, at its size or another, in pixels."""
        side = size or self.size
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
