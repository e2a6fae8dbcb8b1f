"""One image that can be opened, now or later, in any thread."""

import hashlib
import os
import re
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, BinaryIO, TypeAlias, TypeVar

from PIL import Image

from ..errors import NBDTError
from ..storage import UNREADABLE, file_state, is_uri, open_remote
from .image import (
    AMPLE_SIDE,
    MAX_BYTES,
    ImageError,
    check_size,
    open_image,
    read_file,
    refusal,
    refuse,
    regular_file,
)

AHEAD = 64  # images read before they are asked for
MOST_THREADS = 16

Reader: TypeAlias = Callable[..., Image.Image]  # `open_image`, with limits of its own
Item = TypeVar("Item")
Result = TypeVar("Result")

_WNID_FILE = re.compile(r"n[0-9]{8}(?![0-9])")


def _no_bytes() -> bytes:
    raise ImageError("This image has no file to read.")


@dataclass(frozen=True)
class ImageSource:
    """One image that can be opened, now or later, any number of times, in any thread or process."""

    reference: str  # where the image is, for people: a path, a URI or ``archive.tar!member``
    label: str | None  # the name of its class, if known
    # returns the image; raises `ImageError`
    open: Callable[[], Image.Image] = field(repr=False, compare=False)
    # returns the bytes that `open` decodes, under the same checks; raises `ImageError`, also where
    # a source was made by hand without it
    read: Callable[[], bytes] = field(default=_no_bytes, repr=False, compare=False)
    # the path or URI of the file that holds the image, if there is one
    file: str = field(default="", repr=False, compare=False)
    # the folders of the data set that it is in, from the outermost
    folders: tuple[str, ...] = field(default=(), repr=False, compare=False)
    split: str | None = field(default=None, repr=False, compare=False)  # as a table writes it

    @property
    def wnid(self) -> str | None:
        """The WordNet id that the file's name starts with."""
        found = _WNID_FILE.match(self._name)
        return found[0] if found else None

    @property
    def class_label(self) -> str:
        """The label or, without one, the WordNet id of the file's name."""
        return self.label or self.wnid or f"(no folder: {self._name})"

    @property
    def _name(self) -> str:
        return re.split(r"[/\\!]", self.reference)[-1]

    def state(self) -> tuple[int | None, int | None]:
        """Return the size in bytes and the time of the last change, in nanoseconds since 1970.

        Both are None without a file; the size is None for a member of an archive.
        """
        try:
            size, modified_ns = file_state(self.file)
        except (*UNREADABLE, NBDTError):
            return None, None
        return size if self.file == self.reference else None, modified_ns

    def sha256(self) -> str:
        """Return the hexadecimal digest of the bytes; raises as `read` does."""
        return hashlib.sha256(self.read()).hexdigest()

    def content(self) -> tuple[bytes, Callable[[], Image.Image]]:
        """Return the SHA-256 of the bytes, and what decodes them to at most `AMPLE_SIDE` pixels.

        A source that was made by hand without `read` is opened instead. Raises ImageError.
        """
        if self.read is _no_bytes:
            image = self.open()
            return hashlib.sha256(image.tobytes()).digest(), lambda: image
        data = self.read()
        decode = partial(open_image, data, name=self.reference, max_side=AMPLE_SIDE)
        return hashlib.sha256(data).digest(), decode


def file_source(path: str, reader: Reader = open_image, **facts: Any) -> ImageSource:
    """Return the source of an image file at a path or URI, whatever its name.

    `facts` are more fields of `ImageSource`, here and below.
    """
    if is_uri(path):
        return bytes_source(path, partial(_read_remote, path), path, reader, **facts)
    return _source(path, partial(reader, path), partial(read_file, path), path, facts)


def bytes_source(
    reference: str, read: Callable[[], bytes], file: str, reader: Reader = open_image, **facts: Any
) -> ImageSource:
    """Return the source of an image whose bytes `read` returns."""
    return _source(reference, partial(_decode, reader, read, reference), read, file, facts)


def refused_source(reference: str, error: ImageError, file: str = "", **facts: Any) -> ImageSource:
    """Return a source that raises `error`, so that the others can still be read."""
    raising = partial(refuse, error)
    return _source(reference, raising, raising, file or reference, facts)


def _source(
    reference: str, opener: Any, read: Callable[[], bytes], file: str, facts: dict[str, Any]
) -> ImageSource:
    return ImageSource(reference, facts.pop("label", None), opener, read, file, **facts)


def _decode(reader: Reader, read: Callable[[], bytes], name: str) -> Image.Image:
    return reader(read(), name=name)


def in_threads(
    work: Callable[[Item], Result], items: Iterable[Item], threads: int
) -> Generator[Result]:
    """Yield ``work(item)`` in order, from threads that are at most `AHEAD` items early.

    Pillow releases Python's lock while it decodes and resizes, so threads are enough.
    """
    if threads < 1:
        yield from map(work, items)
        return
    pool = ThreadPoolExecutor(threads, "nbdt-read")
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def read_each(
    work: Callable[[ImageSource], Result], sources: Iterable[ImageSource], threads: int
) -> Generator[tuple[ImageSource, Result | ImageError]]:
    """Yield each source, in order, with the result of `work` or the `ImageError` that it raised."""

    def tried(source: ImageSource) -> tuple[ImageSource, Result | ImageError]:
        try:
            return source, work(source)
        except ImageError as error:
            return source, error

    return in_threads(tried, sources, threads)


def cores() -> int:
    """Return the number of reading threads: one for each core that this process may use."""
    own = hasattr(os, "sched_getaffinity")
    return min(MOST_THREADS, len(os.sched_getaffinity(0)) if own else os.cpu_count() or 1)


# --- files, here or remote ---


def open_stream(path: str) -> BinaryIO:
    """Open a file at a path or URI. Raises ImageError."""
    if not is_uri(path):
        return regular_file(path, path)
    try:
        return open_remote(path)
    except (NBDTError, *UNREADABLE) as error:
        raise _unreadable(path, error) from error


def _read_remote(uri: str) -> bytes:
    """Return the bytes of a file at a URI, with the checks of `read_file`."""
    try:
        with open_stream(uri) as file:
            check_size(file.seek(0, os.SEEK_END), uri, MAX_BYTES)
            file.seek(0)
            return file.read()
    except ImageError:  # it is a ValueError too
        raise
    except UNREADABLE as error:
        raise _unreadable(uri, error) from error


def _unreadable(uri: str, error: Exception) -> ImageError:
    missing = isinstance(error, FileNotFoundError)
    got = "nothing there" if missing else str(error).removeprefix(f"{uri!r}: ")
    return refusal(uri, "a readable file", got, "check the path and the permissions")
