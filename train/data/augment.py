"""Random views of images, drawn from the seed, the epoch and the index of image or batch."""

import random
from collections.abc import Callable, Iterator
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

View: TypeAlias = Callable[[Image.Image], Tensor]


@contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Seed Python's, NumPy's and torch's generators from `key`; restore them afterwards."""
    from lightning.pytorch.utilities.seed import isolate_rng

    with isolate_rng(include_cuda=False):
        seed_all(*key)
        yield


def seed_all(*key: int) -> None:
    """Seed Python's, NumPy's and torch's generators from some numbers ≥ 0."""
    number = int(np.random.SeedSequence(key).generate_state(1)[0])
    random.seed(number)
    np.random.seed(number)  # noqa: NPY002 - timm draws from NumPy's global generator
    torch.default_generator.manual_seed(number)


def plain_view(preprocessing: Preprocessing) -> View:
    """Return what turns an image into the uint8 tensor (3, size, size) that a network sees of it."""
    import_torchvision()
    from torchvision.transforms import v2

    return cast(View, v2.Compose([preprocessing.frame, v2.PILToTensor()]))


def random_view(recipe: Recipe, preprocessing: Preprocessing) -> View:
    """Return what turns an image into a random view of it, as `plain_view`; seed it with `seeded`.

    Raises NBDTError: timm cannot read `auto_augment`.
    """
    import_torchvision()
    from timm.data.transforms_factory import transforms_imagenet_train
    from torchvision.transforms import v2

    if recipe.augment == "shift":
        shift = v2.RandomCrop(
            preprocessing.size, recipe.crop_padding_pixels, padding_mode="reflect"
        )
        steps: list[Any] = [preprocessing.frame, shift, v2.PILToTensor()]
        if recipe.flip and not flips_alternate(recipe):
            steps.append(v2.RandomHorizontalFlip())
    else:
        try:
            crop = cast(Any, transforms_imagenet_train)(
                preprocessing.size, scale=(recipe.crop_share_min, 1.0), hflip=recipe.flip / 2,
                color_jitter=None, auto_augment=recipe.auto_augment or None, mean=preprocessing.mean,
                interpolation=preprocessing.interpolation, normalize=False,
            )  # fmt: skip
        except (AssertionError, KeyError, ValueError, IndexError) as error:
            raise NBDTError(
                f"auto_augment = {recipe.auto_augment!r} cannot be read by timm ({error}); expected "
                "for example 'rand-m9-mstd0.5', 'augmix-m5-w4' or 'original'."
            ) from None
        steps = [crop]
    if recipe.erase_probability:
        mean = [round(255 * value) for value in preprocessing.mean]
        steps.append(v2.RandomErasing(recipe.erase_probability, value=mean))
    return cast(View, v2.Compose(steps))


def flips_alternate(recipe: Recipe) -> bool:
    """Return whether an image is flipped in every other epoch, not at random: if it is only shifted."""
    return recipe.flip and recipe.augment == "shift" and not recipe.erase_probability


def shrink(images: Tensor, side: int) -> Tensor:
    """Return images resized to `side` pixels; 0 leaves them as they are."""
    if not side:
        return images
    return F.interpolate(images.float(), (side, side), mode="bilinear", antialias=True)


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
