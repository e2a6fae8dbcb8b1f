"""The images of a tar archive, plain or compressed, here or remote."""

from __future__ import annotations

import os
import tarfile
import tempfile
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Any, BinaryIO, cast

from ..storage import is_uri
from .image import ImageError, StrPath, check_size, open_image, refusal, regular_file
from .sources import NAMED, ImageSource, bytes_source, left_out, open_stream, refused_source

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst")
MAX_MEMBER_BYTES = 256 << 20
IN_MEMORY = 64 << 10  # bytes of a compressed archive's member that stay in memory
SPOOL = 256 << 20  # bytes of members in one temporary file

_MAX_TAR_HEADER = 1 << 20
_ZSTANDARD = b"\x28\xb5\x2f\xfd"
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x5d\0\0\x80", _ZSTANDARD)


def is_archive(name: str) -> bool:
    """Return whether a file is named like a tar archive."""
    return name.lower().endswith(SUFFIXES)


def is_compressed(path: StrPath) -> bool:
    """Return whether single images of an archive cannot be read without the ones before them."""
    with regular_file(path, os.fsdecode(path)) as file:
        return file.read(6).startswith(_COMPRESSED)


def iter_tar(
    path: StrPath,
    split: str | None = None,
    *,
    max_member_bytes: int = MAX_MEMBER_BYTES,
    **limits: Any,
) -> Iterator[ImageSource]:
    """Yield the images of a tar archive (plain, gz, bz2, xz, zst), in its order.

    Members are `<split>/<class>/<file>`, `<class>/<file>` or `<file>`; the label is the folder of
    a file. With `split`, only files whose class folder is in a folder of that name, or that are
    directly in such a folder at the top (label None). Devices, hidden files and files not named
    like images are skipped; a link named like an image is a source that raises. The reference is
    `archive.tar!member`; a member's name is used for nothing else, even if it points outside the archive.

    A source from a plain archive reads its member from the archive when asked. One from a
    compressed or remote archive holds the member's bytes, in a temporary file if they are many.

    Args:
        path: the archive's path or URI.
        max_member_bytes: refuse a larger member.
        limits: `max_pixels` and `max_side` of `open_image`.

    Raises:
        ImageError: while iterating, when the archive is missing, unreadable, damaged or truncated,
            or at its end if there was no image. A too large member's `open` raises instead.
    """
    name, empty = os.fsdecode(path), True
    reader = partial(open_image, max_bytes=max_member_bytes, **limits)
    members = _Members(name, max_member_bytes)
    try:
        with open_stream(name) as file, members.open(file) as archive:
            for member, label in _selected(archive, split):
                empty = False
                reference = f"{name}!{member.name}"
                try:
                    read = members.reader(archive, member, reference)
                except ImageError as error:
                    yield refused_source(reference, error, name, label)
                else:
                    yield bytes_source(reference, label, read, name, reader)
    except ImageError:
        raise
    except Exception as error:  # decompressors and header parsers of hostile bytes
        got = f"one that cannot be read ({type(error).__name__}: {error})"
        expected = "a whole tar archive, plain or compressed with gzip, bzip2, xz or Zstandard"
        raise refusal(name, expected, got, "fetch or pack it again") from error
    if empty:
        where = "images" if split is None else f"images in {split!r} (<split>/<class>/<image>)"
        raise refusal(name, where, "an archive without any", NAMED)


def split_folders(path: StrPath) -> set[str]:
    """Return the folders two levels above the images: "train" of ``train/cat/1.png``."""
    members = (source.reference.rpartition("!")[2].split("/") for source in iter_tar(path))
    return {parts[-3] for parts in members if len(parts) > 2}


class _Header(tarfile.TarInfo):
    """Headers that `tarfile` would take as a quiet end of the archive, or read without a limit."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        is_end_marker = len(buf) == tarfile.BLOCKSIZE and not any(buf)
        try:
            member = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if is_end_marker:
                raise
            raise tarfile.ReadError(f"truncated or damaged: {error}") from error
        if not member.isreg() and not 0 <= member.size <= _MAX_TAR_HEADER:
            raise tarfile.ReadError(f"a header of {member.size:,} bytes")
        return member


def _selected(
    archive: tarfile.TarFile, split: str | None
) -> Iterator[tuple[tarfile.TarInfo, str | None]]:
    while (member := archive.next()) is not None:
        # tarfile keeps every header it has read: a million would fill the memory.
        archive.members.clear()  # type: ignore[attr-defined]  # typeshed leaves it out
        parts = [part for part in member.name.split("/") if part not in ("", ".", "..")]
        is_file = member.isreg() or member.islnk() or member.issym()
        *folders, file = parts or [""]
        skipped = left_out(file) or any(left_out(name, is_folder=True) for name in folders)
        if skipped or not is_file:
            continue
        if split is None or folders[-2:-1] == [split]:
            yield member, folders[-1] if folders else None
        elif folders == [split]:
            yield member, None


class _Members:
    """How the members of one archive are read, while it is open and later."""

    def __init__(self, path: str, limit: int) -> None:
        self.path, self.limit = path, limit
        self.stays = False  # whether members can be read from the file later
        self.spool: _Spool | None = None

    def open(self, file: BinaryIO) -> tarfile.TarFile:
        start = file.read(6)
        file.seek(0)
        if start.startswith(_ZSTANDARD):
            import pyarrow as pa

            file = cast(BinaryIO, pa.CompressedInputStream(file, "zstd"))
        self.stays = not start.startswith(_COMPRESSED) and not is_uri(self.path)
        mode: Any = "r:" if self.stays else "r|*"
        return tarfile.open(fileobj=file, mode=mode, tarinfo=_Header)

    def reader(
        self, archive: tarfile.TarFile, member: tarfile.TarInfo, reference: str
    ) -> Callable[[], bytes]:
        """Return what reads the member. Raises ImageError for a link, and for a size refused."""
        if not member.isreg():
            raise refusal(reference, "an image", "a link", "pack what it leads to")
        if self.stays and not member.issparse():
            place = (member.offset_data, member.size)
            return partial(_read_at, self.path, *place, reference, self.limit)
        stream = archive.extractfile(member)
        # One byte more than allowed shows that it is too large.
        data = b"" if stream is None else stream.read(min(self.limit + 1, member.size))
        check_size(len(data), reference, self.limit)
        if len(data) <= IN_MEMORY:
            return partial(bytes, data)
        if self.spool is None or self.spool.size >= SPOOL:
            self.spool = _Spool()
        return self.spool.keep(data)


def _read_at(path: str, offset: int, size: int, name: str, limit: int) -> bytes:
    with regular_file(path, path) as file:
        file.seek(offset)
        data = file.read(min(size, limit + 1))
    check_size(len(data), name, limit)
    return data


class _Spool:
    """Bytes in a temporary file, which closes with the last member in it."""

    def __init__(self) -> None:
        self.file = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115
        weakref.finalize(self, self.file.close)
        self.lock, self.size = Lock(), 0

    def keep(self, data: bytes) -> Callable[[], bytes]:
        with self.lock:
            offset = self.file.seek(self.size)
            self.size += self.file.write(data)
        return _Spooled(self, offset, len(data))

    def read(self, offset: int, size: int) -> bytes:
        with self.lock:
            self.file.seek(offset)
            return self.file.read(size)


@dataclass(frozen=True, eq=False)
class _Spooled:
    """Reads a member in any thread; another process receives its bytes."""

    spool: _Spool
    offset: int
    size: int

    def __call__(self) -> bytes:
        return self.spool.read(self.offset, self.size)

    def __reduce__(self) -> tuple[Any, ...]:
        return partial, (bytes, self())
