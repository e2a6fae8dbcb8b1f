"""The one reader of data sets, for every command.

`iter_inputs` takes everything that can name images: files, folders, patterns, lists, tables and
archives, here or remote. `iter_images` takes a labelled data set. Which entries of a folder or
archive count as images is decided in `nbdt.images.sources.left_out` alone.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from ..errors import NBDTError
from ..storage import is_folder, is_uri
from .archives import is_archive, iter_tar
from .image import ImageError, StrPath, open_image
from .sources import (
    BATCH_FILE,
    ImageSource,
    file_source,
    iter_class_folders,
    iter_folder,
    refused_source,
)
from .tables import LISTS, is_table, iter_labelled_table, iter_list, iter_table

Item = TypeVar("Item")


def iter_images(data: StrPath, split: str | None = None, **limits: Any) -> Iterator[ImageSource]:
    """Yield the labelled images of a data set, in an order that is always the same.

    The data is a folder of class folders, a table with paths and labels (see
    `nbdt.images.tables.iter_labelled_table`), or a tar archive of class folders. A split is a folder
    above these, or named in a table's rows; `limits` are `max_pixels` and `max_side` of `open_image`.

    Raises:
        NBDTError: at once or while iterating: the data cannot be read, or has no images.
    """
    name = os.fsdecode(data)
    if os.path.isdir(name):
        return iter_class_folders(name, split, **limits)
    return (iter_labelled_table if is_table(name) else iter_tar)(name, split, **limits)


def iter_inputs(
    arguments: Iterable[StrPath], column: str | None = None, **limits: Any
) -> Iterator[ImageSource]:
    """Yield every image, in an order that is always the same.

    Memory stays flat: the names in one folder, or the matches of a pattern, are the most that is
    held.

    Args:
        arguments: image files, whatever their names; folders, as `iter_folder` reads them; glob
            patterns (``**`` too, which follows no links to folders); lists (.txt: a path a line,
            from the current folder); tar archives; tables (.parquet, .csv, .tsv) with a column of
            paths. Each may be a URI (s3://…), and so may the paths in lists and tables; patterns
            may not.
        column: the tables' column; by default one named path, file, filename or image.
        limits: `max_pixels` and `max_side` of `open_image`.

    Raises:
        NBDTError: while iterating: a pattern without match, a list or table that cannot be read.
            An unreadable image, folder or archive is a source that raises `ImageError`.
    """
    for argument in arguments:
        name = os.fsdecode(argument)
        for text in _matches(name) if _is_pattern(name) else [name]:
            yield from _read_named(text, column, limits)


def _read_named(text: str, column: str | None, limits: dict[str, Any]) -> Iterator[ImageSource]:
    reader = partial(open_image, **limits)
    if os.path.isdir(text) or (is_uri(text) and is_folder(text)):
        return iter_folder(text, reader)
    if is_archive(text):
        return _from_archive(text, limits)
    if text.lower().endswith(LISTS):
        return iter_list(text, reader)
    if is_table(text):
        return iter_table(text, column, reader)
    return iter([file_source(text, reader=reader)])


def _from_archive(path: str, limits: dict[str, Any]) -> Iterator[ImageSource]:
    try:
        yield from iter_tar(path, **limits)
    except ImageError as error:  # the members before the damage are good
        yield refused_source(path, error)


def count_inputs(arguments: Sequence[str], column: str | None = None) -> int | None:
    """Return how many images there are; None with an archive, which takes long to count."""
    texts = [m for text in arguments for m in (_matches(text) if _is_pattern(text) else [text])]
    if any(is_archive(text) and not os.path.isdir(text) for text in texts):
        return None
    return sum(1 for text in texts for _ in _read_named(text, column, {}))


def is_collection(text: str) -> bool:
    """Return whether an argument names any number of images and not one file."""
    is_file_of_many = is_archive(text) or is_table(text) or text.lower().endswith(LISTS)
    return is_uri(text) or os.path.isdir(text) or is_file_of_many or _is_pattern(text)


def parts_of(inputs: Iterator[Item], size: int) -> Iterator[list[Item]]:
    """Yield lists of `size` inputs, the last one shorter."""
    while part := list(islice(inputs, size)):
        yield part


def _is_pattern(text: str) -> bool:
    return glob.has_magic(text) and not is_uri(text) and not os.path.lexists(text)


def _matches(pattern: str) -> list[str]:
    """Return the sorted matches, without what is in a matched folder or in a batch's folder."""
    path = Path(pattern)
    if "**" in path.parts:  # glob's own would follow links to folders, in circles too
        fixed = next(i for i, part in enumerate(path.parts) if glob.has_magic(part))
        paths = Path(path.anchor).glob(str(path.relative_to(path.anchor)))
        names = {str(p) for p in paths if not any(q.startswith(".") for q in p.parts[fixed:])}
    else:
        names = set(glob.glob(pattern))
    folders = {name.rstrip(os.sep) for name in names if os.path.isdir(name)}
    batches = {
        folder
        for folder in {folder for name in names for folder in _folders_above(name)}
        if os.path.exists(os.path.join(folder, BATCH_FILE))
    }
    matches = sorted(n for n in names if (folders | batches).isdisjoint(_folders_above(n)))
    if not matches:
        raise NBDTError(f"No file matches {pattern!r}; check the pattern and the current folder.")
    return matches


def _folders_above(name: str) -> Iterator[str]:
    while (name := os.path.dirname(name.rstrip(os.sep))) not in ("", os.sep):
        yield name
