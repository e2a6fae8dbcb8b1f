"""From a file's bytes to a network's pixels, in threads, some images ahead of the model.

Pillow lets go of Python's lock while it decodes and resizes, so that threads are enough; the table
in ``benchmarks/batch.py`` compares them with processes.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nbdt.images.image import AMPLE_SIDE, ImageError, open_image
from nbdt.images.inputs import Input
from nbdt.network.preprocessing import Preprocessing

from ..attribution import PHOTO_SIDE

AHEAD = 64  # images decoded before the model asks for them
MOST_WORKERS = 16


@dataclass(frozen=True, eq=False)
class Loaded:
    """One image, ready for the model, or why it is not.

    Attributes:
        reference: as given.
        sha256: of the file's bytes; None if they could not be had.
        bytes: how many.
        modified_ns: of the file, as `Input.state` says, taken before the bytes were read.
        pixels: (height, width, 3) uint8, what the network sees.
        photo: the same for people, larger, if wanted.
        error: one line; pixels and photo are then None.
    """

    reference: str
    sha256: str | None = None
    bytes: int | None = None
    modified_ns: int | None = None
    pixels: NDArray[np.uint8] | None = field(default=None, repr=False)
    photo: Image.Image | None = field(default=None, repr=False)
    error: str | None = None


def load(source: Input, preprocess: Preprocessing, *, photo: bool = False) -> Loaded:
    """Read, hash, decode, resize and crop; never raises for what a file holds."""
    _, modified = source.state()
    try:
        data = source.read()
    except ImageError as error:
        return Loaded(source.reference, modified_ns=modified, error=str(error))
    known = partial(Loaded, source.reference, hashlib.sha256(data).hexdigest(), len(data), modified)
    try:
        image = open_image(data, name=source.reference, max_side=AMPLE_SIDE)
    except ImageError as error:
        return known(error=str(error))
    pixels = np.array(preprocess.frame(image))
    return known(pixels=pixels, photo=preprocess.frame(image, PHOTO_SIDE) if photo else None)


def default_workers() -> int:
    """Threads that decode: one a core that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return min(MOST_WORKERS, len(os.sched_getaffinity(0)))
    return min(MOST_WORKERS, os.cpu_count() or 1)


class Loader:
    """Loads ahead, in order. A context: leaving it ends the threads.

    Args:
        preprocess: the model's.
        workers: threads; 0 loads in the caller's own.
        photo: keep a photograph to draw on.
    """

    def __init__(self, preprocess: Preprocessing, workers: int, *, photo: bool = False) -> None:
        self._load = partial(load, preprocess=preprocess, photo=photo)
        self._pool = ThreadPoolExecutor(workers, "nbdt-decode") if workers else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def __call__(self, sources: Iterable[Input]) -> Iterator[Loaded]:
        """`Loaded` in the order of `sources`, of which at most `AHEAD` are taken early."""
        if self._pool is None:
            yield from map(self._load, sources)
            return
        waiting: deque[Future[Loaded]] = deque()
        for source in sources:
            waiting.append(self._pool.submit(self._load, source))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
