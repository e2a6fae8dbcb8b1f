"""The one reader of data sets, for every command.

`iter_inputs` takes everything that can name images: files, folders, patterns, lists, tables and
archives, here or remote. `DataSet` takes the same with labels. Which entries of a folder or archive
count as images is decided in `nbdt.images.folders` alone, and `Report` counts the others.
"""

import glob
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from ..errors import NBDTError, listed
from ..storage import is_folder, is_uri
from .archives import SUFFIXES, is_archive, iter_tar, survey_tar
from .folders import (
    OUTPUT,
    Folders,
    is_image_name,
    is_output_folder,
    is_own_picture,
    iter_folder,
    read_head,
    skipped,
)
from .image import ImageError, StrPath, open_image, refusal
from .layout import SPELLINGS, Layout, layout_of, split_named
from .report import Report
from .sources import ImageSource, file_source, refused_source
from .tables import TABLES, is_list, is_table, iter_list, iter_table

Key: TypeAlias = tuple[str | None, str | None, tuple[str, ...], str | None]
NO_CLASS, OTHER_SPLIT, NO_SPLIT = "in no class folder", "of other splits", "without a split"


class DataSet:
    """Labelled images that can be iterated any number of times, in the same order.

    The data is a folder or tar archive of class folders, with splits above them or without; a table
    of paths and labels (`nbdt.images.tables`); a list of paths in class folders; or a pattern of
    class folders, such as ``photos/*/*`` or ``photos.tar!*/*``. See `nbdt.images.layout` for how
    the folders are read. Without a folder, the WordNet id that a file's name starts with is its label.

    Raises NBDTError: the data cannot be read, or has no images with labels.
    """

    def __init__(self, data: StrPath, **limits: Any) -> None:
        self.name, self.limits = os.fsdecode(data), limits
        self._place, self._pattern = _pattern_in(self.name)
        self._folders = Folders()
        self._report = Report(self.name)
        if is_archive(self._place):
            self._folders = survey_tar(self._place)
        keys = Counter(map(_key, self._read(self._report, self._folders)))
        # folders whose files name several classes, which are as good as folders of these classes
        ids = {(folders, wnid) for _, _, folders, wnid in keys if wnid}
        self._mixed = {one for one, count in Counter(f for f, _ in ids).items() if count > 1}
        self.layout = self._read_layout(keys)
        # the number of images of each split and class
        self.counts: Counter[tuple[str | None, str | None]] = Counter()
        for key, count in keys.items():
            self.counts[self._class_of(*key)] += count
        if is_table(self._place) and not keys:
            raise NBDTError(f"{self.name!r} has no rows.")
        if not any(label for _, label in self.counts):
            expected = "class folders (<class>/<image>)"
            remedy = "name the folder that holds one folder per class"
            raise refusal(self.name, expected, "none", remedy)

    def _read_layout(self, keys: Iterable[Key]) -> Layout:
        """Return the reading of folders, or of a table's column of splits."""
        values = {split for split, *_ in keys if split is not None}
        strange = sorted(value for value in values if value.lower() not in SPELLINGS)
        if values and len(strange) < len(values):
            if strange:
                raise NBDTError(
                    f"{self.name!r}: unknown split {strange[0]!r}; expected {', '.join(SPELLINGS)}."
                )
            return Layout(splits={value: SPELLINGS[value.lower()] for value in values})
        if values:
            note = f"{self.name}: the column with {listed(strange)} names no splits; all rows are used."
            return Layout(notes=[note])
        if self._pattern:
            return Layout(pattern=self._pattern)
        images = Counter[tuple[str, ...]]()
        for _, label, folders, wnid in keys:
            images[self._folders_of(folders, wnid)] += label is None
        return layout_of(+images, self.name)

    @property
    def splits(self) -> dict[str, str]:
        """The splits in the data that have images: names as the data writes them, and kinds."""
        used = {split for split, label in self.counts if label is not None}
        return {split: kind for split, kind in self.layout.splits.items() if split in used}

    def labels(self, split: str | None = None) -> Counter[str]:
        """Return the labels of a split or of all images, with counts."""
        split = self._split(split)
        found = Counter[str]()
        for (of, label), count in self.counts.items():
            if label is not None and split in {None, of}:
                found[label] += count
        return found

    def classes(self, split: str | None = None) -> set[str]:
        """Return the labels of folders, also of those without an image."""
        ours, found = self._folders.outputs, set(self.labels(split))
        for folders in self._folders.seen:
            of, label = self.layout.place(folders)
            inside = [f for f in self._folders.others if f[: len(folders)] == folders]
            only_ours = not inside and any(f[: len(folders)] == folders for f in ours)
            if label is not None and split in {None, of} and not only_ours:
                found.add(_nfc(label))
        return found

    def other_files(self, label: str) -> Counter[str]:
        """Return the endings of the files in a class's folders that are no images."""
        found = Counter[str]()
        for folders, endings in self._folders.others.items():
            if _nfc(self.layout.place(folders)[1] or "") == label:
                found.update(endings)
        return found

    def images(self, split: str | None = None) -> Iterator[ImageSource]:
        """Yield the labelled images of a split, by default all. Raises NBDTError: no such split."""
        return self._images(self._split(split))

    def report(self, *splits: str) -> Report:
        """Return what is used and left out with these splits, by default all."""
        counts = Counter[str]()
        for (split, label), count in self.counts.items():
            other = bool(splits) and split not in splits
            reason = (OTHER_SPLIT if split else NO_SPLIT) if other else ""
            counts[NO_CLASS if label is None else reason] += count
        used, kinds = counts.pop("", 0), [*self.layout.notes]
        if not splits and self.splits:
            kinds.append(f"{self.name}: images of all splits ({listed(sorted(self.splits))}).")
        return replace(self._report, used=used, images=self._report.images + counts, notes=kinds)

    def say(self, *splits: str | None) -> None:
        """Log how the data is read, and the line of `report`."""
        chosen = (self._split(split) for split in splits)
        self.report(*(split for split in chosen if split)).say()

    def _split(self, split: str | None) -> str | None:
        if split is None or split in self.layout.above:
            return None
        return split_named(self.name, sorted({of for of, _ in self.counts if of}), split)

    def _images(self, split: str | None) -> Iterator[ImageSource]:
        known = Folders(outputs=[*self._folders.outputs])
        for source in self._read(Report(self.name), known):
            of, label = self._class_of(*_key(source))
            if label is not None and split in {None, of}:
                yield replace(source, label=label)

    def _class_of(
        self, split: str | None, label: str | None, folders: tuple[str, ...], wnid: str | None
    ) -> tuple[str | None, str | None]:
        of, folder = self.layout.place(self._folders_of(folders, wnid))
        label = label or folder or wnid
        return split or of, None if label is None else _nfc(label)

    def _folders_of(self, folders: tuple[str, ...], wnid: str | None) -> tuple[str, ...]:
        return (*folders, wnid) if wnid and folders in self._mixed else folders

    def _read(self, report: Report, folders: Folders) -> Iterator[ImageSource]:
        place, limits = self._place, self.limits
        reader = partial(open_image, **limits)
        if is_table(place):
            return iter_table(place, reader=reader, labelled=True)
        if is_list(place):
            return (
                replace(s, folders=Path(s.reference).parts[:-1]) for s in iter_list(place, reader)
            )
        if is_archive(place):
            return iter_tar(place, report=report, folders=folders, **limits)
        if os.path.isdir(place) or (is_uri(place) and is_folder(place)):
            return iter_folder(place, reader, report, folders, strict=True)
        if os.path.exists(place):
            raise NBDTError(
                f"{place!r} is neither a folder of class folders nor a file that can be read: "
                f"{', '.join((*TABLES, *SUFFIXES))}."
            )
        raise NBDTError(f"There is no data folder or file {self.name!r}; pass it with --data.")


def _key(source: ImageSource) -> Key:
    """Return all that decides an image's split and class."""
    return source.split, source.label, source.folders, source.wnid


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _pattern_in(name: str) -> tuple[str, Sequence[str]]:
    """Return the place of the data, and the pattern of the class folders in it, if there is one."""
    archive, mark, inside = name.partition("!")
    if mark and is_archive(archive) and not os.path.lexists(name):
        return archive, inside.strip("/").split("/")
    if not _is_pattern(name):
        return name, ()
    parts = Path(name).parts
    first = next(place for place, part in enumerate(parts) if glob.has_magic(part))
    return os.path.join("", *parts[:first]) or os.curdir, parts[first:]


def iter_images(data: StrPath, split: str | None = None, **limits: Any) -> Iterator[ImageSource]:
    """Yield the labelled images of a `DataSet`, and log what was used and left out.

    `limits` are those of `open_image`.

    Raises NBDTError: at once or while iterating: the data cannot be read, or has no such images.
    """
    found = DataSet(data, **limits)
    images = found.images(split)
    found.say(split)
    return images


def iter_inputs(
    arguments: Iterable[StrPath], column: str | None = None, *, report: Report | None = None,
    **limits: Any,
) -> Iterator[ImageSource]:  # fmt: skip
    """Yield every image, in an order that is always the same; in the end, log what was left out.

    Memory stays flat: the names in one folder, or the matches of a pattern, are the most that is
    held.

    Args:
        arguments: image files, whatever their names; folders, as `iter_folder` reads them; glob
            patterns (``**`` too, which follows no links to folders); lists (.txt: a path a line);
            tar archives; tables (.parquet, .csv, .tsv) with a column of paths or images. Each may be
            a URI (s3://…), and so may the paths in lists and tables; patterns may not.
        column: the tables' column; by default one named path, file, filename or image.
        report: counts what is used and left out, instead of the log.
        limits: those of `open_image`.

    Raises NBDTError: while iterating: a pattern without match, a list or table that cannot be read. An
    unreadable image, folder or archive is a source that raises `ImageError`.
    """
    texts = [os.fsdecode(argument) for argument in arguments]
    counts = report or Report(texts[0] if len(texts) == 1 else f"{len(texts)} arguments")
    for source in _each(texts, column, limits, counts):
        counts.used += 1
        yield source
    if report is None and any(map(is_collection, texts)):
        counts.say()


def _each(
    texts: Iterable[str], column: str | None, limits: dict[str, Any], report: Report
) -> Iterator[ImageSource]:
    for name in texts:
        for text in _matches(name, report) if _is_pattern(name) else [name]:
            yield from _read_named(text, column, limits, report)


def _read_named(
    text: str, column: str | None, limits: dict[str, Any], report: Report
) -> Iterator[ImageSource]:
    reader = partial(open_image, **limits)
    if os.path.isdir(text) or (is_uri(text) and is_folder(text)):
        return iter_folder(text, reader, report)
    if is_archive(text):
        return _from_archive(text, limits, report)
    if is_list(text):
        return iter_list(text, reader)
    if is_table(text):
        return iter_table(text, column, reader)
    if text.lower().endswith(".zip"):
        error = refusal(
            text, "an image, folder, table or tar archive", "a zip archive", "unpack it"
        )
        return iter([refused_source(text, error)])
    return iter([file_source(text, reader)])


def _from_archive(path: str, limits: dict[str, Any], report: Report) -> Iterator[ImageSource]:
    known = Folders()
    with suppress(ImageError):  # it comes up again below
        known = survey_tar(path, twice=False)
    try:
        yield from iter_tar(path, report=report, folders=known, **limits)
    except ImageError as error:  # the members before the damage are good
        yield refused_source(path, error)


def count_inputs(arguments: Sequence[str], column: str | None = None) -> int | None:
    """Return how many images there are; None with an archive, which takes long to count."""
    if any(is_archive(text) and not os.path.isdir(text) for text in arguments):
        return None
    return sum(1 for _ in _each(arguments, column, {}, Report("")))


def is_collection(text: str) -> bool:
    """Return whether an argument names any number of images and not one file."""
    is_file_of_many = is_archive(text) or is_table(text) or is_list(text)
    return is_uri(text) or os.path.isdir(text) or is_file_of_many or _is_pattern(text)


def _is_pattern(text: str) -> bool:
    return glob.has_magic(text) and not is_uri(text) and not os.path.lexists(text)


def _matches(pattern: str, report: Report) -> list[str]:
    """Return the sorted matches, without what is in a matched folder or in a folder of outputs."""
    path, names = Path(pattern), set[str]()
    fixed = next(place for place, part in enumerate(path.parts) if glob.has_magic(part))
    found = glob.glob(pattern)
    if "**" in path.parts:  # glob's own would follow links to folders, in circles too
        found = [*map(str, Path(path.anchor).glob(str(path.relative_to(path.anchor))))]
    for name in found:
        reason = next(filter(None, map(skipped, Path(name).parts[fixed:])), "")
        if is_own_picture(name, partial(read_head, *os.path.split(name))):
            reason = OUTPUT
        if not reason:
            names.add(name)
        elif is_image_name(name):
            report.leave_out(reason, name)
    folders = {name.rstrip(os.sep) for name in names if os.path.isdir(name)}
    above = {folder for name in names for folder in _folders_above(name)}
    below = {folder for folder in above if len(Path(folder).parts) > fixed}
    ours = {folder for folder in below if is_output_folder(folder)}
    for folder in sorted(ours):
        report.leave_out(OUTPUT, folder, is_folder=True)
    matches = sorted(n for n in names if (folders | ours).isdisjoint(_folders_above(n)))
    if not matches:
        raise NBDTError(f"No file matches {pattern!r}; check the pattern and the current folder.")
    return matches


def _folders_above(name: str) -> Iterator[str]:
    while (name := os.path.dirname(name.rstrip(os.sep))) not in ("", os.sep):
        yield name
