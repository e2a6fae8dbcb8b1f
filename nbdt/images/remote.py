"""Images and lists that lie where only pyarrow's filesystems reach: s3://… and its like."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from typing import BinaryIO

from ..errors import NBDTError
from ..storage import UNREADABLE, is_uri, reach
from .image import MAX_BYTES, ImageError, check_bytes, refusal
from .sources import EXTENSIONS


def file_state(path: str) -> tuple[int, int]:
    """(bytes, nanoseconds since 1970 of the last change) of a file at a path or URI.

    Raises:
        OSError: there is none.
        NBDTError: a URI that cannot be reached.
    """
    if not is_uri(path):
        found = os.stat(path)
        return found.st_size, found.st_mtime_ns
    filesystem, inner = reach(path)
    info = filesystem.get_file_info(inner)
    if not info.is_file:
        raise FileNotFoundError(path)
    return info.size, info.mtime_ns


def read_remote(uri: str) -> bytes:
    """A file's bytes, as `nbdt.images.image.read_file` reads those of a path.

    Raises:
        ImageError: missing, unreadable, empty or too large.
    """
    try:
        filesystem, inner = reach(uri)
        with filesystem.open_input_file(inner) as file:
            if file.size() > MAX_BYTES:
                too_large = f"{file.size():,}"
                raise refusal(uri, f"at most {MAX_BYTES:,} bytes", too_large, "make it smaller")
            return check_bytes(file.read(), uri, MAX_BYTES)
    except ImageError:
        raise
    except (NBDTError, *UNREADABLE) as error:
        raise _unreadable(uri, error) from error


def open_remote(uri: str) -> BinaryIO:
    """A file to read from its beginning, buffered.

    Raises:
        ImageError: it cannot be opened.
    """
    try:
        filesystem, inner = reach(uri)
        return io.BufferedReader(filesystem.open_input_file(inner), 1 << 20)
    except (NBDTError, *UNREADABLE) as error:
        raise _unreadable(uri, error) from error


def is_folder(uri: str) -> bool:
    """Whether files lie below it. Raises NBDTError if it cannot be reached."""
    from pyarrow.fs import FileType

    filesystem, inner = reach(uri)
    try:
        return bool(filesystem.get_file_info(inner).type == FileType.Directory)
    except UNREADABLE as error:
        raise NBDTError(f"{uri!r} cannot be listed: {error}") from None


def walk(uri: str) -> Iterator[str]:
    """The image files below a folder, sorted, one folder's names in memory at a time.

    Hidden ones are left out, as on a disk.
    """
    from pyarrow.fs import FileSelector

    base, mark, options = uri.partition("?")
    pending = [(base.rstrip("/"), True)]
    while pending:
        path, is_open = pending.pop()
        if not is_open:
            yield path + mark + options
            continue
        filesystem, inner = reach(path + mark + options)
        found = sorted(
            (f"{path}/{info.base_name}", not info.is_file)
            for info in filesystem.get_file_info(FileSelector(inner))
            if _wanted(info.base_name, is_file=info.is_file)
        )
        pending.extend(reversed(found))


def _wanted(name: str, *, is_file: bool) -> bool:
    return not name.startswith(".") and (not is_file or name.lower().endswith(EXTENSIONS))


def _unreadable(uri: str, error: Exception) -> ImageError:
    if isinstance(error, FileNotFoundError):
        got = "nothing there"
    else:
        got = str(error).removeprefix(f"{uri!r}: ")
    return refusal(uri, "a readable file", got, "check the path and the permissions")
