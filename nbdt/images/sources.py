"""One image that can be opened, and the images in files, folders and class folders."""

from __future__ import annotations

import hashlib
import os
import re
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, BinaryIO, TypeAlias, TypeVar

from PIL import Image

from ..errors import NBDTError
from ..storage import UNREADABLE, file_state, is_uri, list_folder, open_remote
from .image import (
    AMPLE_SIDE,
    MAX_BYTES,
    ImageError,
    StrPath,
    check_size,
    open_image,
    read_file,
    refusal,
    refuse,
    regular_file,
)

EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
NAMED = f"image files are those named {', '.join(EXTENSIONS)}"
BATCH_FILE = "batch.json"  # identifies a folder that a batch wrote
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

    @property
    def class_label(self) -> str:
        """The label or, without one, the WordNet id that the file's name starts with."""
        if self.label is not None:
            return self.label
        name = re.split(r"[/\\!]", self.reference)[-1]
        wnid = _WNID_FILE.match(name)
        return wnid[0] if wnid else f"(no folder: {name})"

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


def file_source(path: str, label: str | None = None, reader: Reader = open_image) -> ImageSource:
    """Return the source of an image file at a path or URI, whatever its name."""
    if is_uri(path):
        return bytes_source(path, label, partial(_read_remote, path), path, reader)
    return ImageSource(path, label, partial(reader, path), partial(read_file, path), path)


def bytes_source(
    reference: str,
    label: str | None,
    read: Callable[[], bytes],
    file: str,
    reader: Reader = open_image,
) -> ImageSource:
    """Return the source of an image whose bytes `read` returns."""
    return ImageSource(reference, label, partial(_decode, reader, read, reference), read, file)


def refused_source(
    reference: str, error: ImageError, file: str = "", label: str | None = None
) -> ImageSource:
    """Return a source that raises `error`, so that the others can still be read."""
    raising = partial(refuse, error)
    return ImageSource(reference, label, raising, raising, file or reference)


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


def left_out(name: str, *, is_folder: bool = False) -> bool:
    """Return whether an entry of a folder or archive is hidden, or a file not named like an image."""
    return name.startswith(".") or not (is_folder or name.lower().endswith(EXTENSIONS))


# --- files and folders, here or remote ---


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


def iter_folder(root: str, reader: Reader = open_image) -> Iterator[ImageSource]:
    """Yield the images below a folder at a path or URI, in sorted order.

    One folder's names are in memory at a time. Hidden entries, links to folders, and folders that
    a batch wrote are skipped. A folder that cannot be read is a source that raises `ImageError`,
    and so is `root` if it has no image.
    """
    empty, pending = True, [(root, True)]
    while pending:
        path, is_folder = pending.pop()
        source = file_source(path, reader=reader)
        if is_folder:
            try:
                entries = _entries(path)
                if path == root or (BATCH_FILE, False) not in entries:
                    pending += [(_join(path, name), kind) for name, kind in reversed(entries)
                                if not left_out(name, is_folder=kind)]  # fmt: skip
                continue
            except ImageError as error:
                source = refused_source(path, error)
        empty = False
        yield source
    if empty:
        yield refused_source(root, refusal(root, "image files", "a folder without any", NAMED))


def _entries(folder: str, *, follow: bool = False) -> list[tuple[str, bool]]:
    """Return the sorted (name, whether it is a folder) of what is in a folder."""
    try:
        if is_uri(folder):
            return sorted(list_folder(folder))
        with os.scandir(folder) as entries:
            return sorted((entry.name, entry.is_dir(follow_symlinks=follow)) for entry in entries)
    except (NBDTError, *UNREADABLE) as error:
        reason = getattr(error, "strerror", None) or str(error)
        remedy = "check path and permissions"
        raise refusal(folder, "a readable folder", reason, remedy) from error


def _join(folder: str, name: str) -> str:
    if not is_uri(folder):
        return os.path.join(folder, name)
    base, mark, options = folder.partition("?")
    return f"{base.rstrip('/')}/{name}{mark}{options}"


def iter_class_folders(
    root: StrPath, split: str | None = None, **limits: Any
) -> Iterator[ImageSource]:
    """Yield the images `root[/split]/<class>/<file>`, sorted, labelled with the class folder.

    `limits` are `max_pixels` and `max_side` of `open_image`.

    Raises ImageError: at once if the folder cannot be read or has no class folders; while iterating
    if a class folder cannot be read, or at the end if there was no image at all.
    """
    folder = os.path.join(os.fsdecode(root), split or "")
    entries = _entries(folder, follow=True)
    classes = [name for name, kind in entries if kind and not left_out(name, is_folder=True)]
    if not classes:
        remedy = "name the folder that holds one folder per class"
        raise refusal(folder, "class folders (<class>/<image>)", "none", remedy)
    return _labelled(folder, classes, partial(open_image, **limits))


def _labelled(root: str, classes: list[str], reader: Reader) -> Iterator[ImageSource]:
    empty = True
    for label in classes:
        folder = os.path.join(root, label)
        for name, is_folder in _entries(folder):
            if not is_folder and not left_out(name):
                empty = False
                yield file_source(os.path.join(folder, name), label, reader)
    if empty:
        got = f"{len(classes)} folders ({classes[0]!r}, ...) without any"
        remedy = f"name the split if there are splits; {NAMED}"
        raise refusal(root, "images directly inside the class folders", got, remedy)
