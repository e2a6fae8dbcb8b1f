"""What `explain` is given, checked: a model or a network with a head, and images."""

import os
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from PIL import Image
from torch import Tensor, nn

from nbdt.errors import NBDTError
from nbdt.images.image import AMPLE_SIDE, open_image
from nbdt.model.making import parts_of_attached
from nbdt.model.model import NBDT
from nbdt.network.given import GivenNetwork
from nbdt.network.load import input_channels

PHOTO_SIDE = 320  # pixels of the stored photograph: enough to look at, small enough to keep

Photo: TypeAlias = "Image.Image | str | os.PathLike[str]"
Images: TypeAlias = "Tensor | Photo | Sequence[Photo]"
PHOTOS = (Image.Image, str, os.PathLike)


def model_inside(
    network: nn.Module, images: Images, preprocessing: Callable[[Image.Image], Any] | None
) -> NBDT:
    """Return a network with a head as a model; the network stays as it is.

    A tensor is what the network is tried on, since its layers may take any number of channels.

    Raises NBDTError: it has no head inside, or does not take the tensor.
    """
    example, shape = None, tuple[int, ...]()
    if isinstance(images, Tensor):
        shape = tuple(images.shape)
        first = _checked(images, None)[:1].repeat(2, 1, 1, 1)
        example = first.to(next(network.parameters(), first))
    try:
        parts = parts_of_attached(network, preprocessing, example)
    except Exception as error:
        if example is None or isinstance(error, NBDTError | torch.OutOfMemoryError):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise NBDTError(
            f"{type(network).__name__} does not take images of shape {shape} "
            f"({reason}); give (batch, channels, height, width) as in its training."
        ) from error
    return NBDT(*parts).train(network.training)


def prepared(model: NBDT, images: Images) -> tuple[Tensor, Sequence[Image.Image | None]]:
    """Return the batch on the model's device, and the photographs if there are any.

    Raises NBDTError: no images, or such that the model does not take.
    """
    weight = model.head.linear.weight  # its device and type are the model's
    if isinstance(images, Tensor):
        return checked(model, images).to(weight), [None] * len(images)
    if (channels := input_channels(model.architecture)) != 3:
        raise NBDTError(
            f"{model.architecture!r} takes {channels} channels, and a photograph has 3: give a tensor."
        )
    given = [images] if isinstance(images, PHOTOS) else list(images)
    if not given:
        raise NBDTError("There are no images to explain.")
    for item in given:
        if not isinstance(item, PHOTOS):
            raise NBDTError(
                f"Expected photographs (PIL images or paths) or one tensor, got {type(item).__name__} "
                "in a sequence; torch.stack what model.preprocess returns."
            )
    pictures = [
        item if isinstance(item, Image.Image) else open_image(item, max_side=AMPLE_SIDE)
        for item in given
    ]
    batch = torch.stack([model.preprocess(picture) for picture in pictures])
    return batch.to(weight), [model.preprocess.frame(picture, PHOTO_SIDE) for picture in pictures]


def checked(model: NBDT, images: Tensor) -> Tensor:
    """Return a batch if it is what the model takes: (batch, channels, height, width), finite.

    Raises NBDTError: anything else.
    """
    any_number = isinstance(model.backbone, GivenNetwork)
    return _checked(images, None if any_number else input_channels(model.architecture))


def _checked(images: Tensor, channels: int | None) -> Tensor:
    """Return images that have this number of channels, or any."""
    if images.ndim != 4 or channels not in {None, images.shape[1]} or not len(images):
        raise NBDTError(
            f"Expected images of shape (batch, {channels or 'channels'}, height, width) with at least "
            f"one image, got {tuple(images.shape)}; torch.stack what model.preprocess returns."
        )
    if not images.is_floating_point():
        raise NBDTError(
            f"Expected images as model.preprocess returns them, of floating point, got {images.dtype}."
        )
    if not bool(torch.isfinite(images).all()):
        raise NBDTError("The images hold values that are not finite; check how they were prepared.")
    return images
