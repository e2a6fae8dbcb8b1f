"""Turn a photograph into a network's input."""

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ..errors import NBDTError

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
    def from_dict(cls, values: Mapping[str, Any]) -> "Preprocessing":
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

    def facts(self) -> dict[str, Any]:
        """Return what `from_dict` reads."""
        return asdict(self)

    def example(self, like: Tensor) -> Tensor:
        """Return two pictures of noise, (2, 3, height, width), of a tensor's type and device."""
        shape = 2, self.size, self.size, 3
        noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        return torch.stack([self(Image.fromarray(one)) for one in noise]).to(like)

    def frame(self, image: Image.Image, size: int | None = None) -> Image.Image:
        """Return the square that the network sees of an image, with sides of `size` pixels."""
        side = size or self.size
        image = _within(image)
        shorter, least = int(side / self.crop_pct), min(image.size)
        width, height = (int(shorter * length / least) for length in image.size)
        method = Image.Resampling[self.interpolation.upper()]
        left, top = round((width - side) / 2), round((height - side) / 2)
        # Pillow resizes along rows, then along columns; columns outside the square need no second pass.
        wide = image.convert("RGB").resize((width, image.height), method)
        wide = wide.crop((left, 0, left + side, image.height))
        return wide.resize((side, height), method).crop((0, top, side, top + side))

    def __call__(self, image: Image.Image) -> Tensor:
        """Return the input (3, size, size), float32."""
        return self.normalise(torch.from_numpy(np.array(self.frame(image))))

    def normalise(self, pixels: Tensor) -> Tensor:
        """Turn pixels of `frame`, (…, height, width, 3), uint8, into inputs (…, 3, height, width)."""
        values = pixels.movedim(-1, -3).contiguous().float().div_(255)
        mean, std = (values.new_tensor(of)[:, None, None] for of in (self.mean, self.std))
        return values.sub_(mean).div_(std)

    def colours(self, values: Tensor) -> Image.Image:
        """Return the picture of an input (3, height, width)."""
        mean, std = (values.new_tensor(of)[:, None, None] for of in (self.mean, self.std))
        pixels = (values * std + mean).mul(255).round().clamp(0, 255).byte().movedim(0, -1)
        return Image.fromarray(pixels.contiguous().numpy())


@dataclass(frozen=True)
class GivenPreprocessing(Preprocessing):
    """What a function of a PIL image does, such as torchvision's transforms or Hugging Face's processors.

    Its mean and standard deviation are found by trying it; `interpolation` tells functions apart.
    """

    function: Callable[[Image.Image], Any] = field(compare=False)

    @classmethod
    def of(cls, function: Callable[[Image.Image], Any]) -> "GivenPreprocessing":
        """Try a function on a black, a white and a colourful picture.

        Raises NBDTError: it does not give (3, height, width), or the same for black and white.
        """
        noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
        colourful = Image.fromarray(noise).resize((320, 240), Image.Resampling.BICUBIC)
        black, white = (Image.new("RGB", (320, 240), colour) for colour in ("black", "white"))
        low, high = (_apply(function, one).flatten(1).median(1).values for one in (black, white))
        if not bool((high > low).all()):
            raise NBDTError("The preprocessing gives the same for a black and a white picture.")
        found, std = _apply(function, colourful), 1 / (high - low)
        digest = hashlib.sha256(found.numpy().tobytes()).hexdigest()[:16]
        moments = three((-low * std).tolist()), three(std.tolist())
        return cls(found.shape[-1], *moments, 1.0, f"function {digest}", function)

    @classmethod
    def missing(cls, size: int) -> "GivenPreprocessing":
        """Stand for a preprocessing that was not named; only tensors can then be given."""
        return cls(size, (0.0,) * 3, (1.0,) * 3, 1.0, "missing", _refuse)

    def facts(self) -> dict[str, Any]:
        """Return all but the function."""
        return {name: value for name, value in vars(self).items() if name != "function"}

    def __call__(self, image: Image.Image) -> Tensor:
        """Return what the function gives, (3, height, width), float32."""
        return _apply(self.function, image)

    def frame(self, image: Image.Image, size: int | None = None) -> Image.Image:
        """Return what the function leaves of an image, its shorter side of `size` pixels."""
        picture = self.colours(self(image))
        scale = 1 if size is None else size / min(picture.size)
        width, height = (round(side * scale) for side in picture.size)
        return picture.resize((width, height), Image.Resampling.BICUBIC)


def preprocessing_of(given: Callable[[Image.Image], Any]) -> Preprocessing:
    """Return a preprocessing itself, or what a function of a PIL image does as one."""
    return given if isinstance(given, Preprocessing) else GivenPreprocessing.of(given)


def _apply(function: Callable[[Image.Image], Any], image: Image.Image) -> Tensor:
    found = function(image.convert("RGB"))
    found = found["pixel_values"] if isinstance(found, Mapping) else found
    found = found[0] if isinstance(found, list | tuple) else found
    values = found if isinstance(found, Tensor) else torch.as_tensor(np.asarray(found))
    values = values[0] if values.ndim == 4 else values
    if values.ndim != 3 or values.shape[0] != 3:
        raise NBDTError(
            "Expected the preprocessing to make a tensor (3, height, width) of a PIL image, got "
            f"{tuple(values.shape)}."
        )
    return values.detach().cpu().float()


def _refuse(_image: Image.Image) -> Any:
    raise NBDTError(
        "Say how a photograph becomes the network's input: preprocessing=…, such as torchvision's "
        "weights.transforms(), a Hugging Face image processor, or a function of a PIL image."
    )


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
