"""The images of a tar archive, plain or compressed, here or remote."""

import os
import tarfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import Any, BinaryIO, cast

from ..storage import is_uri
from .folders import (
    HEAD,
    NAMED,
    OUTPUT,
    Folders,
    ending,
    is_image_name,
    is_output,
    is_own_picture,
    skipped,
)
from .image import ImageError, StrPath, check_size, open_image, refusal, regular_file
from .report import Report
from .sources import ImageSource, bytes_source, open_stream, refused_source
from .spool import Spool

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst")
MAX_MEMBER_BYTES = 256 << 20
LABEL = ".cls"  # WebDataset: the class of the image with the same name
MAX_LABEL = 1 << 10  # bytes

_MAX_TAR_HEADER = 1 << 20
_ZSTANDARD = b"\x28\xb5\x2f\xfd"
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x5d\0\0\x80", _ZSTANDARD)


def is_archive(name: str) -> bool:
    """Return whether a file is named like a tar archive."""
    return name.lower().endswith(SUFFIXES)


def iter_tar(
    path: StrPath, *, report: Report | None = None, folders: Folders | None = None,
    max_member_bytes: int = MAX_MEMBER_BYTES, **limits: Any,
) -> Iterator[ImageSource]:  # fmt: skip
    """Yield the images of a tar archive (plain, gz, bz2, xz, zst), in its order.

    What counts as an image is decided as in folders (`nbdt.images.folders`). The label is the text
    of a WebDataset's ``.cls`` file beside an image. A link named like an image is a source that
    raises. The reference is `archive.tar!member`; a member's name is used for nothing else, even if
    it points outside the archive.

    A source from a plain archive reads its member from the archive when asked. One from a
    compressed or remote archive holds the member's bytes in a temporary file.

    Args:
        report: counts what is left out.
        folders: of an earlier reading (`survey_tar`), which found the outputs of this package.
        max_member_bytes: refuse a larger member.
        limits: `max_pixels`, `max_side` and `bands` of `open_image`.

    Raises ImageError: while iterating, when the archive is missing, unreadable, damaged or truncated,
    or at its end if there was no image. A too large member's `open` raises instead.
    """
    name, empty = os.fsdecode(path), True
    reader = partial(open_image, max_bytes=max_member_bytes, **limits)
    with _opened(name, max_member_bytes) as members:
        for source in _labelled(
            members.images(folders or Folders(), report or Report(name), reader)
        ):
            empty = False
            yield source
    if empty:
        raise refusal(name, "images", "an archive without any", NAMED)


def survey_tar(path: StrPath, *, twice: bool = True) -> Folders:
    """Return the folders that are outputs of this package; raises as `iter_tar` does.

    Without `twice`, an archive that must be read from its start each time is not looked at.
    """
    found, markers = Folders(), defaultdict[tuple[str, ...], dict[str, bytes]](dict)
    with _opened(os.fsdecode(path), MAX_MEMBER_BYTES) as members:
        for member, (*above, file) in members if twice or members.stays else ():
            if file.endswith(".json") and member.isreg():
                markers[*above][file] = members.start(member)
    found.outputs = [
        parts for parts, files in markers.items() if parts and is_output(files, files.__getitem__)
    ]
    return found


@contextmanager
def _opened(name: str, limit: int) -> "Iterator[_Members]":
    try:
        with open_stream(name) as file:
            members = _Members(name, limit, file)
            with members.archive:
                yield members
    except ImageError:
        raise
    except Exception as error:  # decompressors and header parsers of hostile bytes
        got = f"one that cannot be read ({type(error).__name__}: {error})"
        expected = "a whole tar archive, plain or compressed with gzip, bzip2, xz or Zstandard"
        raise refusal(name, expected, got, "fetch or pack it again") from error


def _labelled(found: Iterator[tuple[Any, ImageSource | str]]) -> Iterator[ImageSource]:
    """Yield the images, labelled by the texts with the same key, before or after."""
    for _, group in groupby(found, itemgetter(0)):
        images, label, damage = list[ImageSource](), None, None
        try:
            for _, one in group:
                if isinstance(one, str):
                    label = one
                else:
                    images.append(one)
        except Exception as error:  # noqa: BLE001 - what came before a damage is good
            damage = error
        yield from (replace(image, label=label) for image in images)
        if damage:
            raise damage


class _Header(tarfile.TarInfo):
    """Headers that `tarfile` would take as a quiet end of the archive, or read without a limit."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Header":
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


class _Members:
    """The files of one archive, and how they are read while it is open and later."""

    def __init__(self, path: str, limit: int, file: BinaryIO) -> None:
        self.path, self.limit, self.spool = path, limit, Spool()
        start = file.read(6)
        file.seek(0)
        if start.startswith(_ZSTANDARD):
            import pyarrow as pa

            file = cast(BinaryIO, pa.CompressedInputStream(file, "zstd"))
        # whether members can be read from the file later
        self.stays = not start.startswith(_COMPRESSED) and not is_uri(path)
        mode: Any = "r:" if self.stays else "r|*"
        self.archive = tarfile.open(fileobj=file, mode=mode, tarinfo=_Header)  # noqa: SIM115

    def __iter__(self) -> Iterator[tuple[tarfile.TarInfo, list[str]]]:
        """Yield each file and link with the parts of its name."""
        while (member := self.archive.next()) is not None:
            # tarfile keeps every header it has read: a million would fill the memory.
            self.archive.members.clear()  # type: ignore[attr-defined]  # typeshed leaves it out
            parts = [part for part in member.name.split("/") if part not in ("", ".", "..")]
            if parts and (member.isreg() or member.islnk() or member.issym()):
                yield member, parts

    def images(
        self, known: Folders, report: Report, reader: Callable[..., Any]
    ) -> Iterator[tuple[Any, ImageSource | str]]:
        """Yield images and labels, with a key that an image and its label share."""
        outputs = {*known.outputs}
        for member, (*above, file) in self:
            reference, folders = f"{self.path}!{member.name}", tuple(above)
            key = (folders, file.partition(".")[0])
            reason = next(filter(None, map(skipped, (*above, file))), "")
            if any(folders[:depth] in outputs for depth in range(1, len(folders) + 1)):
                reason = OUTPUT
            if file.endswith(LABEL) and not reason and member.isreg():
                label = self.start(member)[:MAX_LABEL]
                yield key, label.decode(errors="backslashreplace").strip()
            elif not is_image_name(file):
                report.others[ending(file)] += 1
            elif reason:
                report.leave_out(reason, reference)
            else:
                try:
                    read = self.reader(member, reference)
                except ImageError as error:
                    yield key, refused_source(reference, error, self.path, folders=folders)
                    continue
                if is_own_picture(reference, read):
                    report.leave_out(OUTPUT, reference)
                else:
                    yield key, bytes_source(reference, read, self.path, reader, folders=folders)

    def start(self, member: tarfile.TarInfo) -> bytes:
        """Return the first kilobytes of a member."""
        stream = self.archive.extractfile(member)
        return b"" if stream is None else stream.read(HEAD)

    def reader(self, member: tarfile.TarInfo, reference: str) -> Callable[[], bytes]:
        """Return what reads the member. Raises ImageError for a link, and for a size refused."""
        if not member.isreg():
            raise refusal(reference, "an image", "a link", "pack what it leads to")
        if self.stays and not member.issparse():
            place = (member.offset_data, member.size)
            return partial(_read_at, self.path, *place, reference, self.limit)
        stream = self.archive.extractfile(member)
        # One byte more than allowed shows that it is too large.
        data = b"" if stream is None else stream.read(min(self.limit + 1, member.size))
        check_size(len(data), reference, self.limit)
        return self.spool.keep(data)


def _read_at(path: str, offset: int, size: int, name: str, limit: int) -> bytes:
    with regular_file(path, path) as file:
        file.seek(offset)
        data = file.read(min(size, limit + 1))
    check_size(len(data), name, limit)
    return data
