"""Bytes of many images in a few temporary files: of compressed archives, and of Parquet cells."""

import os
import tempfile
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Any, BinaryIO, cast

SPOOL = 256 << 20  # bytes of images in one temporary file


class Spool:
    """Temporary files that grow; each is removed with the last image in it."""

    def __init__(self) -> None:
        self._file: _File | None = None

    def keep(self, data: bytes) -> Callable[[], bytes]:
        """Write bytes, and return what reads them in any thread or forked process."""
        if self._file is None or self._file.size >= SPOOL:
            self._file = _File()
        return self._file.keep(data)


class _File:
    def __init__(self) -> None:
        self.file = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115
        weakref.finalize(self, self.file.close)
        self.lock, self.size = Lock(), 0

    def keep(self, data: bytes) -> Callable[[], bytes]:
        with self.lock:
            offset = self.file.seek(self.size)
            self.size += self.file.write(data)
            self.file.flush()
        return _Kept(self, offset, len(data))

    def read(self, offset: int, size: int) -> bytes:
        if hasattr(os, "pread"):  # a forked process shares the position, so none is used
            return os.pread(self.file.fileno(), size, offset)
        with self.lock:
            self.file.seek(offset)
            return self.file.read(size)


@dataclass(frozen=True, eq=False)
class _Kept:
    """Reads bytes; a process that was not forked receives the bytes themselves."""

    file: _File
    offset: int
    size: int

    def __call__(self) -> bytes:
        return self.file.read(self.offset, self.size)

    def __reduce__(self) -> tuple[Any, ...]:
        return partial, (bytes, self())
