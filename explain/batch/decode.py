"""Decode files to the network's pixels in threads, some images ahead of the model.

Pillow releases Python's lock while it decodes and resizes, so threads are enough;
``benchmarks/batch.py`` compares them with processes.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nbdt.images.image import AMPLE_SIDE, ImageError, open_image
from nbdt.images.sources import ImageSource
from nbdt.network.preprocessing import Preprocessing

from ..attribution import PHOTO_SIDE

AHEAD = 64  # images decoded before the model asks for them
MOST_WORKERS = 16


@dataclass(frozen=True, eq=False, repr=False)
class Decoded:
    """One image ready for the model, or the reason why it is not."""

    reference: str  # as given
    sha256: str | None = None  # of the file's bytes; None if they could not be read
    bytes: int | None = None  # their number
    modified_ns: int | None = None  # from `ImageSource.state`, before the bytes were read
    pixels: NDArray[np.uint8] | None = None  # (height, width, 3), what the network sees
    photo: Image.Image | None = None  # the same square, larger, for people; only if asked for
    error: str | None = None  # one line; pixels and photo are then None


Decoder: TypeAlias = Callable[[Iterable[ImageSource]], Iterator[Decoded]]


def decode(source: ImageSource, preprocess: Preprocessing, *, photo: bool = False) -> Decoded:
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
        image = open_image(data, name=source.reference, max_side=AMPLE_SIDE)
    except ImageError as error:
        return result(error=str(error))
    pixels = np.array(preprocess.frame(image))
    return result(pixels=pixels, photo=preprocess.frame(image, PHOTO_SIDE) if photo else None)


def default_workers() -> int:
    """Return the number of decoding threads: one for each core that this process may use."""
    own = hasattr(os, "sched_getaffinity")
    return min(MOST_WORKERS, len(os.sched_getaffinity(0)) if own else os.cpu_count() or 1)


@contextmanager
def decoding(preprocess: Preprocessing, workers: int, *, photo: bool = False) -> Iterator[Decoder]:
    """Give a function that decodes images in order, at most `AHEAD` early, in its own threads.

    Args:
        preprocess: the model's.
        workers: number of threads; 0 decodes in the caller's thread.
        photo: whether to keep a photograph to draw on.
    """
    one = partial(decode, preprocess=preprocess, photo=photo)
    if not workers:
        yield partial(map, one)
        return
    pool = ThreadPoolExecutor(workers, "nbdt-decode")

    def ahead(sources: Iterable[ImageSource]) -> Iterator[Decoded]:
        waiting: deque[Future[Decoded]] = deque()
        for source in sources:
            waiting.append(pool.submit(one, source))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    try:
        yield ahead
    finally:
        pool.shutdown(cancel_futures=True)
