"""Decode files to the network's pixels in threads, some images ahead of the model.

``benchmarks/batch.py`` compares threads with processes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nbdt.images.deep import REMARK
from nbdt.images.image import AMPLE_SIDE, ImageError, open_image
from nbdt.images.sources import ImageSource, in_threads
from nbdt.network.preprocessing import Preprocessing

from ..inputs import PHOTO_SIDE


@dataclass(frozen=True, eq=False, repr=False)
class Decoded:
    """One image ready for the model, or the reason why it is not."""

    reference: str  # as given
    sha256: str | None = None  # of the file's bytes; None if they could not be read
    bytes: int | None = None  # their number
    modified_ns: int | None = None  # from `ImageSource.state`, before the bytes were read
    pixels: NDArray[np.uint8] | None = None  # (height, width, 3), what the network sees
    photo: Image.Image | None = None  # the same square, larger, for people; only if asked for
    remark: str | None = None  # what to know about the pixels
    error: str | None = None  # one line; pixels and photo are then None


Decoder: TypeAlias = Callable[[Iterable[ImageSource]], Generator[Decoded]]


def decode(
    source: ImageSource,
    preprocess: Preprocessing,
    *,
    photo: bool = False,
    bands: Sequence[int] = (),
) -> Decoded:
    """Read, hash, decode, resize and crop an image; a bad file gives an error, it does not raise."""
    _, modified = source.state()
    try:
        data = source.read()
    except ImageError as error:
        return Decoded(source.reference, modified_ns=modified, error=str(error))
    result = partial(
        Decoded, source.reference, hashlib.sha256(data).hexdigest(), len(data), modified
    )
    try:
        image = open_image(data, name=source.reference, max_side=AMPLE_SIDE, bands=bands)
    except ImageError as error:
        return result(error=str(error))
    pixels = np.array(preprocess.frame(image))
    square = preprocess.frame(image, PHOTO_SIDE) if photo else None
    return result(pixels=pixels, photo=square, remark=image.info.get(REMARK))


def decoder(
    preprocess: Preprocessing, threads: int, *, photo: bool = False, bands: Sequence[int] = ()
) -> Decoder:
    """Return a function that decodes images in order, some ahead, in threads; 0 threads: the caller's.

    With `photo` each keeps a photograph to draw on. `bands` are as in `open_image`.
    """
    one = partial(decode, preprocess=preprocess, photo=photo, bands=bands)
    return lambda sources: in_threads(one, sources, threads)
