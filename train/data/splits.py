"""Which images of a data set are for training, for choices and for the final test.

`find_splits` recognises, in this order:

- a CSV or Parquet file of paths and labels (`nbdt.images.tables`);
- a tar archive of class folders, or of split folders that hold them;
- a folder with what the recipe's patterns name, two archives for example;
- CIFAR as torchvision lays it out (`nbdt.images.cifar`);
- a folder with split folders (ImageNet as torchvision lays it out among them);
- a folder of class folders.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from nbdt.errors import NBDTError, listed
from nbdt.images.archives import SUFFIXES, is_archive, is_compressed, iter_tar, split_folders
from nbdt.images.dataset import iter_images
from nbdt.images.image import AMPLE_SIDE
from nbdt.images.sources import ImageSource
from nbdt.images.tables import TABLES, Row, is_table, iter_rows, row_source

from ..recipe import Recipe

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SPELLINGS = {
    "train": TRAIN, "training": TRAIN, "val": VALIDATION, "valid": VALIDATION,
    "validation": VALIDATION, "dev": VALIDATION, "test": TEST, "testing": TEST,
}  # fmt: skip


@dataclass(frozen=True)
class Split:
    """Labelled images that can be iterated any number of times."""

    name: str  # "train", "validation" or "test"
    origin: str  # what to call it in messages
    # iterates its images; `ImageSource.class_label` is their label
    sources: Callable[[], Iterator[ImageSource]]
    # the labels that the data has, with or without images, where folders show them
    classes: tuple[str, ...] = ()
    compressed: bool = False  # whether single images cannot be read without the ones before them


def find_splits(data: str | os.PathLike[str], recipe: Recipe) -> dict[str, Split]:
    """Return the splits that `data` has, by name; "train" always.

    Raises NBDTError: `data` does not exist, or contains nothing readable.
    """
    path = Path(data)
    if not path.exists():
        raise NBDTError(
            f"There is no data folder or file {os.fspath(data)!r}; pass it with --data."
        )
    if recipe.train and path.is_dir() and _matches(path, recipe.train):
        patterns = {TRAIN: recipe.train, TEST: recipe.test}
        return {name: _at(name, _match(path, text)) for name, text in patterns.items() if text}
    if path.is_file():
        return _of_file(path)
    named = _named_folders(path)
    if TRAIN in named:
        return _completed({name: _folder(name, item) for name, item in named.items()})
    if recipe.train and not any(item.is_dir() for item in path.iterdir()):
        _match(path, recipe.train)  # says what was looked for
    return {TRAIN: _folder(TRAIN, path)}


def _named_folders(root: Path) -> dict[str, Path]:
    """Return the folders of splits. Raises NBDTError if two are of the same split."""
    folders: dict[str, Path] = {}
    for item in sorted(root.iterdir()):
        name = SPELLINGS.get(item.name.lower())
        if name in folders:
            raise NBDTError(
                f"{str(root)!r} has two folders of {name} images, {folders[name].name!r} and "
                f"{item.name!r}; merge or rename one of them."
            )
        if name:
            folders[name] = item
    return folders


def _completed(splits: dict[str, Split]) -> dict[str, Split]:
    """Use a lone validation split as the test set, as for ImageNet; it is evaluated once."""
    if VALIDATION in splits and TEST not in splits:
        splits[TEST] = replace(splits.pop(VALIDATION), name=TEST)
    return splits


def _folder(name: str, path: Path) -> Split:
    folders = sorted(item.name for item in path.iterdir() if item.is_dir()) if path.is_dir() else []
    classes = tuple(folder for folder in folders if not folder.startswith("."))
    return Split(name, str(path), partial(iter_images, path, max_side=AMPLE_SIDE), classes)


def _of_file(path: Path) -> dict[str, Split]:
    if is_table(path.name):
        return _completed(_of_table(str(path)))
    if is_archive(path.name):
        folders = {SPELLINGS[f.lower()]: f for f in split_folders(path) if f.lower() in SPELLINGS}
        if TRAIN in folders:
            return _completed({name: _archive(name, path, f) for name, f in folders.items()})
        return {TRAIN: _archive(TRAIN, path, None)}
    raise NBDTError(
        f"{str(path)!r} is neither a folder of class folders nor a file that can be read: "
        f"{', '.join((*TABLES, *SUFFIXES))}."
    )


def _of_table(path: str) -> dict[str, Split]:
    rows: dict[str, list[Row]] = {}
    for row in iter_rows(path, labelled=True):
        name = TRAIN if row.split is None else SPELLINGS.get(row.split)
        if name is None:
            raise NBDTError(
                f"{path!r}, row {row.number}: unknown split {row.split!r}; expected "
                f"{', '.join(SPELLINGS)}."
            )
        row_source(path, row)  # raises for a row without path or label
        rows.setdefault(name, []).append(row)
    if not rows:
        raise NBDTError(f"{path!r} has no rows.")
    if TRAIN not in rows:
        raise NBDTError(f"{path!r} has no row of the split 'train', only {listed(rows)}.")
    return {
        name: Split(name, f"{path} ({name})", partial(map, partial(row_source, path), members))
        for name, members in rows.items()
    }


def _archive(name: str, path: Path, folder: str | None) -> Split:
    origin = str(path) if folder is None else f"{path}!{folder}"
    return Split(name, origin, partial(iter_tar, path, folder), compressed=is_compressed(path))


def _at(name: str, path: Path) -> Split:
    if path.is_dir():
        return _folder(name, path)
    if is_table(path.name):
        return replace(_of_file(path)[TRAIN], name=name)
    return _archive(name, path, None)


def _matches(root: Path, pattern: str) -> list[Path]:
    return [path for part in pattern.split("|") for path in sorted(root.glob(part))]


def _match(root: Path, pattern: str) -> Path:
    matches = _matches(root, pattern)
    if not matches:
        there = listed(sorted(item.name for item in root.iterdir()))
        raise NBDTError(
            f"{str(root)!r} holds nothing that matches {pattern!r}: expected a folder with one "
            f"sub-folder a class, or a tar archive of one. It holds {there or 'nothing'}."
        )
    return matches[0]
