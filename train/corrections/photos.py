"""The photographs of corrections: found by their reference, checked by their hash."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from PIL import Image

from nbdt.correction import Correction, picture_hash
from nbdt.images.archives import is_archive, iter_tar
from nbdt.images.image import ImageError, open_image

from .targets import LeftOut, Target

Opened = list[tuple[Target, Image.Image]]


def open_photographs(
    targets: Sequence[Target], root: str | os.PathLike[str] = "."
) -> tuple[Opened, list[LeftOut]]:
    """Return the photograph of each target, and the targets without their photograph.

    Args:
        targets: with references to files, or to members of archives as ``archive.tar!member``.
        root: where relative references start.
    """
    opened: Opened = []
    left_out: list[LeftOut] = []
    wanted: dict[str, list[Target]] = defaultdict(list)
    for target in targets:
        if target.correction.reference:
            wanted[target.correction.reference].append(target)
        else:
            left_out.append(LeftOut(target.correction, "the record names no photograph"))
    for reference, image in _images(list(wanted), Path(root)):
        for target in wanted.pop(reference):
            reason = _problem(target.correction, image)
            if reason or isinstance(image, str):
                left_out.append(LeftOut(target.correction, reason))
            else:
                opened.append((target, image))
    for reference, rest in wanted.items():
        reason = f"the archive has no photograph {reference!r}"
        left_out += [LeftOut(target.correction, reason) for target in rest]
    place = {id(target): index for index, target in enumerate(targets)}
    return sorted(opened, key=lambda pair: place[id(pair[0])]), left_out


def _problem(record: Correction, image: Image.Image | str) -> str:
    if isinstance(image, str):
        return image
    if picture_hash(image) != record.image:
        return f"{record.reference!r} is another picture than the one that was corrected"
    return ""


def _images(references: Iterable[str], root: Path) -> Iterator[tuple[str, Image.Image | str]]:
    """Yield each reference with its image, or with why there is none."""
    in_archives: dict[Path, dict[str, str]] = defaultdict(dict)
    for reference in references:
        archive, sign, member = reference.partition("!")
        if sign and is_archive(archive):
            place = _place(root, archive)
            in_archives[place][f"{place}!{member}"] = reference
            continue
        try:
            yield reference, open_image(_place(root, reference), name=reference)
        except ImageError as error:
            yield reference, str(error)
    for path, members in in_archives.items():
        yield from _members(path, members)


def _place(root: Path, file: str) -> Path:
    """Return the path seen from `root` or, if only that exists, from the current folder."""
    here, there = Path(file), root / file
    return here if here.exists() and not there.exists() else there


def _members(path: Path, wanted: dict[str, str]) -> Iterator[tuple[str, Image.Image | str]]:
    try:
        for source in iter_tar(path):
            if source.reference in wanted:
                reference = wanted.pop(source.reference)
                try:
                    yield reference, source.open()
                except ImageError as error:
                    yield reference, str(error)
            if not wanted:
                return
    except ImageError as error:
        for reference in wanted.values():
            yield reference, str(error)
