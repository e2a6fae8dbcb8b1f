"""Images in a tar archive, one at a time or, if it is not compressed, in any order."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from PIL import Image

from .image import open_image, refusal, regular_file
from .sources import MAX_MEMBER_BYTES, ImageSource, _Member, _selected, iter_tar

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".txz")


def is_plain(path: Path) -> bool:
    """Whether single images can be read without the rest: a tar that is not compressed."""
    return path.name.lower().endswith(".tar")


def split_folders(path: Path) -> set[str]:
    """The folders two levels above the images: "train" of ``train/cat/1.png``."""
    return {
        parts[-3]
        for source in iter_archive(path, None)
        if len(parts := source.reference.rpartition("!")[2].split("/")) > 2
    }


def iter_archive(path: Path, split: str | None) -> Iterator[ImageSource]:
    """As `iter_tar`, but the sources of a plain tar hold a place in the file, not its bytes."""
    if not is_plain(path):
        yield from iter_tar(path, split)
        return
    name, empty = str(path), True
    try:
        with (
            regular_file(path, name) as file,
            tarfile.open(fileobj=file, mode="r:", tarinfo=_Member) as archive,
        ):
            for member, label in _selected(archive, split):
                empty = False
                reference = f"{name}!{member.name}"
                place = (member.offset_data, member.size)
                yield ImageSource(reference, label, partial(_open_at, name, place, reference))
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        got = f"one that cannot be read ({type(error).__name__}: {error})"
        raise refusal(name, "a whole tar archive", got, "fetch or pack it again") from error
    if empty:
        got = "an archive without any"
        raise refusal(name, "images (<class>/<image>)", got, "name another archive")


def _open_at(path: str, place: tuple[int, int], reference: str) -> Image.Image:
    offset, size = place
    with regular_file(path, path) as file:
        file.seek(offset)
        data = file.read(min(size, MAX_MEMBER_BYTES + 1))
    return open_image(data, name=reference, max_bytes=MAX_MEMBER_BYTES)


def is_compressed(place: str) -> bool:
    """Whether a split's place is an archive whose images can only be read one after another."""
    path = place.partition("!")[0].lower()
    return path.endswith(SUFFIXES[1:])
