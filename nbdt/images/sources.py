"""Iterates the images of files, class folders and tar archives as `ImageSource`."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import BinaryIO

from PIL import Image

from .image import (
    MAX_PIXELS,
    ImageError,
    StrPath,
    check_bytes,
    open_image,
    read_file,
    refusal,
    refuse,
    regular_file,
)

MAX_MEMBER_BYTES = 256 << 20  # a member of an archive is held in memory, a file is not
EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
_MAX_TAR_HEADER = 1 << 20


@dataclass(frozen=True)
class ImageSource:
    """One image that can be opened: where it came from, its class name if known, its opener.

    `open` may be called any number of times, at once or later, in this process or another, and
    raises `ImageError`. A source from a tar archive holds the file's bytes, so drop it when done:
    a list of all sources of an archive keeps the whole archive in memory.

    `read` gives the bytes that `open` decodes, under the same checks; None where a source was made
    by hand without it.
    """

    reference: str
    label: str | None
    open: Callable[[], Image.Image] = field(repr=False, compare=False)
    read: Callable[[], bytes] | None = field(default=None, repr=False, compare=False)


def iter_files(
    paths: Iterable[StrPath],
    *,
    max_pixels: int = MAX_PIXELS,
    max_side: int | None = None,
    without: str | None = None,
) -> Iterator[ImageSource]:
    """Every file named, whatever its name, and the image files below every folder named.

    Folders are walked in sorted order, one directory's names in memory at a time; hidden entries
    are skipped, and so are folders below that hold a file called `without`; links to folders are
    not followed. What cannot be read (a missing path, an
    unreadable or imageless folder) is a source whose `open` raises `ImageError`: iterating goes on.
    """
    reader = partial(open_image, max_pixels=max_pixels, max_side=max_side)
    for path in paths:
        name = os.fsdecode(path)
        if os.path.isdir(name):
            yield from _walk(name, reader, without)
        else:
            yield ImageSource(name, None, partial(reader, name), partial(read_file, name))


def _walk(
    root: str, reader: Callable[[str], Image.Image], without: str | None
) -> Iterator[ImageSource]:
    empty = True
    pending = [(root, True)]
    while pending:
        path, is_folder = pending.pop()
        opener: Callable[[], Image.Image] = partial(reader, path)
        content: Callable[[], bytes] = partial(read_file, path)
        if is_folder:
            if without and path != root and os.path.lexists(os.path.join(path, without)):
                continue
            try:
                pending.extend(reversed(_entries(path)))
                continue
            except ImageError as error:
                opener = content = partial(refuse, error)
        empty = False
        yield ImageSource(path, None, opener, content)
    if empty:
        refused = refusal(root, "image files", "a folder without any", _named())
        yield ImageSource(root, None, partial(refuse, refused), partial(refuse, refused))


def _entries(folder: str, *, follow: bool = False) -> list[tuple[str, bool]]:
    """The visible folders and image files of one folder: (path, is a folder), sorted."""
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                is_folder = entry.is_dir(follow_symlinks=follow)
                if not entry.name.startswith(".") and (is_folder or _is_image(entry.name)):
                    found.append((entry.path, is_folder))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        remedy = "check path and permissions"
        raise refusal(folder, "a readable folder", reason, remedy) from error
    return sorted(found)


def _is_image(name: str) -> bool:
    return name.lower().endswith(EXTENSIONS)


def _named() -> str:
    return f"image files are those named {', '.join(EXTENSIONS)}"


def iter_class_folders(
    root: StrPath,
    split: str | None = None,
    *,
    max_pixels: int = MAX_PIXELS,
    max_side: int | None = None,
) -> Iterator[ImageSource]:
    """The images `root[/split]/<class>/<file>`, sorted, each labelled with its class folder's name.

    Raises:
        ImageError: at once if the folder cannot be read or has no class folders; while iterating
            if a class folder cannot be read, or at the end if there was no image at all.
    """
    folder = os.path.join(os.fsdecode(root), split or "")
    classes = [path for path, is_folder in _entries(folder, follow=True) if is_folder]
    if not classes:
        remedy = "name the folder that holds one folder per class"
        raise refusal(folder, "class folders (<class>/<image>)", "none", remedy)
    reader = partial(open_image, max_pixels=max_pixels, max_side=max_side)
    return _labelled(folder, classes, reader)


def _labelled(
    root: str, classes: list[str], reader: Callable[[str], Image.Image]
) -> Iterator[ImageSource]:
    empty = True
    for folder in classes:
        for path, is_folder in _entries(folder):
            if not is_folder:
                empty = False
                label, content = os.path.basename(folder), partial(read_file, path)
                yield ImageSource(path, label, partial(reader, path), content)
    if empty:
        got = f"{len(classes)} folders ({os.path.basename(classes[0])!r}, ...) without any"
        remedy = f"name the split if there are splits; {_named()}"
        raise refusal(root, "images directly inside the class folders", got, remedy)


class _Member(tarfile.TarInfo):
    """Headers that `tarfile` would take as a quiet end of the archive, or read without a limit."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Member:
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


def iter_tar(
    path: StrPath,
    split: str | None = None,
    *,
    max_member_bytes: int = MAX_MEMBER_BYTES,
    max_pixels: int = MAX_PIXELS,
    max_side: int | None = None,
    open_archive: Callable[[str], BinaryIO] | None = None,
) -> Iterator[ImageSource]:
    """The images of a tar archive (plain, gz, bz2, xz), in its order; nothing reaches the disk.

    Members are `<split>/<class>/<file>`, `<class>/<file>` or `<file>`; the label is the folder a
    file lies in. With `split`, only files whose class folder lies in a folder of that name, or
    that lie directly in such a folder at the top (label None). Devices, hidden files and files not
    named like images are skipped; a link named like an image is a source that raises. The reference is `archive.tar!member`; a member's
    name is used for nothing else, wherever it may point. `open_archive` opens what is
    no file of this machine.

    Raises:
        ImageError: while iterating, when the archive is missing, unreadable, damaged or truncated,
            or at its end if there was no image. A too large member's `open` raises instead.
    """
    name, empty = os.fsdecode(path), True
    reader = partial(
        open_image, max_pixels=max_pixels, max_bytes=max_member_bytes, max_side=max_side
    )
    try:
        with (
            open_archive(name) if open_archive else regular_file(path, name) as file,
            tarfile.open(fileobj=file, mode="r|*", tarinfo=_Member) as archive,
        ):
            for member, label in _selected(archive, split):
                empty = False
                reference = f"{name}!{member.name}"
                if not member.isreg():
                    refused = refusal(reference, "an image", "a link", "pack what it leads to")
                    never = partial(refuse, refused)
                    yield ImageSource(reference, label, never, never)
                    continue
                # One byte more than allowed tells the reader that it is too large.
                data = _content(archive, member, max_member_bytes + 1)
                opener = partial(reader, data, name=reference)
                content = partial(check_bytes, data, reference, max_member_bytes)
                yield ImageSource(reference, label, opener, content)
    except ImageError:
        raise
    except Exception as error:  # decompressors and header parsers of hostile bytes
        got = f"one that cannot be read ({type(error).__name__}: {error})"
        expected = "a whole tar archive, plain or compressed with gzip, bzip2 or xz"
        raise refusal(name, expected, got, "fetch or pack it again") from error
    if empty:
        where = "images" if split is None else f"images in {split!r} (<split>/<class>/<image>)"
        raise refusal(name, where, "an archive without any", _named())


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo, limit: int) -> bytes:
    stream = archive.extractfile(member)
    return b"" if stream is None else stream.read(min(limit, member.size))


def _selected(
    archive: tarfile.TarFile, split: str | None
) -> Iterator[tuple[tarfile.TarInfo, str | None]]:
    while (member := archive.next()) is not None:
        # tarfile keeps every header it has read: a million would fill the memory.
        archive.members.clear()  # type: ignore[attr-defined]  # typeshed leaves it out
        parts = [part for part in member.name.split("/") if part not in ("", ".", "..")]
        hidden = any(part.startswith(".") for part in parts)
        kept = member.isreg() or member.islnk() or member.issym()
        if hidden or not kept or not _is_image(member.name):
            continue
        folders = parts[:-1]
        if split is None or folders[-2:-1] == [split]:
            yield member, folders[-1] if folders else None
        elif folders == [split]:
            yield member, None


def iter_images(
    root_or_tar: StrPath,
    split: str | None = None,
    *,
    max_pixels: int = MAX_PIXELS,
    max_side: int | None = None,
) -> Iterator[ImageSource]:
    """A folder's images as by `iter_class_folders`, anything else's as by `iter_tar`."""
    read = iter_class_folders if os.path.isdir(root_or_tar) else iter_tar
    return read(root_or_tar, split, max_pixels=max_pixels, max_side=max_side)
