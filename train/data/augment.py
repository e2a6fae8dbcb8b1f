"""Random views of images, drawn from the seed, the epoch and the index of image or batch."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias, cast

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from nbdt.errors import NBDTError
from nbdt.network.preprocessing import Preprocessing
from nbdt.torchvision_cpu import import_torchvision

from ..recipe import Recipe

Key: TypeAlias = tuple[int, int]  # epoch, index
PLAIN = -1  # an epoch without augmentation


@contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Seed Python's, NumPy's and torch's generators from `key`; restore them afterwards."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    seed_all(*key)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002 - timm draws from NumPy's global generator
        torch.set_rng_state(states[2])


def seed_all(*key: int) -> None:
    """Seed Python's, NumPy's and torch's generators from some numbers ≥ 0."""
    number = int(np.random.SeedSequence(key).generate_state(1)[0])
    random.seed(number)
    np.random.seed(number)  # noqa: NPY002
    torch.default_generator.manual_seed(number)


class Augmentation:
    """Turns an image into a uint8 tensor (3, size, size): a random view, or `plain`.

    Args:
        recipe: which random changes; None for `plain` only.
        preprocessing: size, interpolation and mean colour of the network's input.

    Raises:
        NBDTError: timm cannot read `auto_augment`.
    """

    def __init__(self, recipe: Recipe | None, preprocessing: Preprocessing) -> None:
        self.preprocessing = preprocessing
        self.steps = [] if recipe is None else _steps(recipe, preprocessing)

    def __call__(self, image: Image.Image) -> Tensor:
        """Return a random view; seed it with `seeded`."""
        value: Any = image
        for step in self.steps:
            value = step(value)
        return cast(Tensor, value)

    def plain(self, image: Image.Image) -> Tensor:
        """Return the part of the image that the network sees when it is used."""
        return _tensor(self.preprocessing.frame(image))


def _tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def _steps(recipe: Recipe, preprocessing: Preprocessing) -> list[Any]:
    import_torchvision()
    from torchvision.transforms import v2

    mean = [round(255 * value) for value in preprocessing.mean]
    steps: list[Any] = _crop(recipe, preprocessing)
    if recipe.flip:
        steps.append(v2.RandomHorizontalFlip())
    if recipe.auto_augment:
        steps.append(_auto_augment(recipe, mean))
    steps.append(_tensor)
    if recipe.erase_probability:
        steps.append(v2.RandomErasing(recipe.erase_probability, value=mean))
    return steps


def _crop(recipe: Recipe, preprocessing: Preprocessing) -> list[Any]:
    from timm.data.transforms import RandomResizedCropAndInterpolation
    from torchvision.transforms import v2

    size = preprocessing.size
    if recipe.augment == "crop":
        scale = (recipe.crop_share_min, 1.0)
        kind = preprocessing.interpolation
        return [RandomResizedCropAndInterpolation(size, scale=scale, interpolation=kind)]
    shift = v2.RandomCrop(size, recipe.crop_padding_pixels, padding_mode="reflect")
    return [preprocessing.frame, shift]


def _auto_augment(recipe: Recipe, mean: list[int]) -> Any:
    from timm.data.auto_augment import (
        augment_and_mix_transform,
        auto_augment_transform,
        rand_augment_transform,
    )

    kinds = {"rand": rand_augment_transform, "augmix": augment_and_mix_transform}
    make = kinds.get(recipe.auto_augment.split("-")[0], auto_augment_transform)
    options = {"translate_const": int(recipe.image_size * 0.45), "img_mean": tuple(mean)}
    try:
        return make(recipe.auto_augment, options)
    except (AssertionError, KeyError, ValueError, IndexError) as error:
        raise NBDTError(
            f"auto_augment = {recipe.auto_augment!r} cannot be read by timm ({error}); expected "
            "for example 'rand-m9-mstd0.5', 'augmix-m5-w4' or 'original'."
        ) from None


# ---- whole batches -------------------------------------------------------------------------------


def shrink(images: Tensor, side: int) -> Tensor:
    """Return images resized to `side` pixels; 0 leaves them as they are."""
    if not side:
        return images
    return F.interpolate(images.float(), (side, side), mode="bilinear", antialias=True)


def add_noise(images: Tensor, most: float) -> Tensor:
    """Return images with Gaussian noise, its standard deviation drawn from 0 to `most` for each."""
    if not most:
        return images
    values = images.float()
    strength = most * torch.rand(len(values), 1, 1, 1, device=values.device)
    return values + strength * torch.randn_like(values)


def mix_pairs(
    inputs: Tensor, target: Tensor, recipe: Recipe, classes: int
) -> tuple[Tensor, Tensor]:
    """Mix pairs of images and their targets with timm's mixup or cutmix, if the recipe asks for it."""
    if not (recipe.mixup_alpha or recipe.cutmix_alpha):
        return inputs, target
    from timm.data import Mixup

    even = len(inputs) - len(inputs) % 2
    mix = Mixup(recipe.mixup_alpha, recipe.cutmix_alpha, label_smoothing=0, num_classes=classes)
    return cast("tuple[Tensor, Tensor]", mix(inputs[:even], target[:even]))
