"""Which part of some data is for training, for choices and for the one look at the end.

What `find_splits` understands, in this order:

- a CSV or Parquet file of paths and labels (`nbdt.images.tables`);
- a tar archive of class folders, or of split folders that hold them;
- a folder with what the recipe's patterns name, two archives for instance;
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
from nbdt.images.archives import SUFFIXES, iter_archive, split_folders
from nbdt.images.cifar import cifar_splits
from nbdt.images.sources import ImageSource, iter_images
from nbdt.images.tables import TABLES, iter_table, table_splits
from nbdt.tree.class_names import label_of

from ..recipe import Recipe

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SPELLINGS = {
    "train": TRAIN, "training": TRAIN, "val": VALIDATION, "valid": VALIDATION,
    "validation": VALIDATION, "dev": VALIDATION, "test": TEST, "testing": TEST,
}  # fmt: skip


@dataclass(frozen=True)
class Split:
    """Labelled images that can be iterated any number of times.

    Attributes:
        name: "train", "validation" or "test".
        place: what to call it in messages.
        sources: iterates its images, labelled as the data says.
        classes: the labels that the data has, with or without images, where folders tell.
    """

    name: str
    place: str
    sources: Callable[[], Iterator[ImageSource]]
    classes: tuple[str, ...] = ()


def find_splits(data: str | os.PathLike[str], recipe: Recipe) -> dict[str, Split]:
    """The splits that `data` has, by name; "train" always.

    Raises:
        NBDTError: there is nothing there, or nothing that can be understood.
    """
    path = Path(data)
    if not path.exists():
        raise NBDTError(
            f"There is no data folder or file {os.fspath(data)!r}; pass it with --data."
        )
    if recipe.train and path.is_dir() and _matches(path, recipe.train):
        return _by_patterns(path, recipe)
    if path.is_file():
        return _of_file(path)
    cifar = cifar_splits(path)
    if cifar:
        return {name: Split(name, f"{path} ({name})", sources) for name, sources in cifar.items()}
    named = _named_folders(path)
    if TRAIN in named:
        return _completed({name: _folder(name, item) for name, item in named.items()})
    if recipe.train and not any(item.is_dir() for item in path.iterdir()):
        _match(path, recipe.train)  # says what was looked for
    return {TRAIN: _folder(TRAIN, path)}


def _named_folders(root: Path) -> dict[str, Path]:
    """The folders of splits. Raises NBDTError if two mean the same."""
    found: dict[str, Path] = {}
    for item in sorted(root.iterdir()):
        name = SPELLINGS.get(item.name.lower())
        if name in found:
            raise NBDTError(
                f"{str(root)!r} has two folders of {name} images, {found[name].name!r} and "
                f"{item.name!r}; merge or rename one of them."
            )
        if name:
            found[name] = item
    return found


def _completed(splits: dict[str, Split]) -> dict[str, Split]:
    """The last of validation and test is the one that is looked at once, as for ImageNet."""
    if VALIDATION in splits and TEST not in splits:
        splits[TEST] = _renamed(splits.pop(VALIDATION), TEST)
    return splits


def _renamed(split: Split, name: str) -> Split:
    return replace(split, name=name)


def _folder(name: str, path: Path) -> Split:
    sources = partial(_labelled, partial(iter_images, path))
    folders = sorted(item.name for item in path.iterdir() if item.is_dir()) if path.is_dir() else []
    classes = tuple(folder for folder in folders if not folder.startswith("."))
    return Split(name, str(path), sources, classes)


def _labelled(sources: Callable[[], Iterator[ImageSource]]) -> Iterator[ImageSource]:
    for source in sources():
        yield ImageSource(source.reference, label_of(source), source.open)


def _of_file(path: Path) -> dict[str, Split]:
    if path.suffix.lower() in TABLES:
        found = table_splits(path, SPELLINGS)
        return _completed(
            {name: Split(name, f"{path} ({name})", partial(iter_table, path, rows))
             for name, rows in found.items()}
        )  # fmt: skip
    if path.name.lower().endswith(SUFFIXES):
        folders = {SPELLINGS[f.lower()]: f for f in split_folders(path) if f.lower() in SPELLINGS}
        if TRAIN in folders:
            return _completed({name: _archive(name, path, f) for name, f in folders.items()})
        return {TRAIN: _archive(TRAIN, path, None)}
    raise NBDTError(
        f"{str(path)!r} is neither a folder of class folders nor a file that is understood: "
        f"{', '.join((*TABLES, *SUFFIXES))}."
    )


def _archive(name: str, path: Path, folder: str | None) -> Split:
    place = str(path) if folder is None else f"{path}!{folder}"
    return Split(name, place, partial(_labelled, partial(iter_archive, path, folder)))


def _by_patterns(root: Path, recipe: Recipe) -> dict[str, Split]:
    patterns = {TRAIN: recipe.train, TEST: recipe.test}
    return {name: _at(name, _match(root, pattern)) for name, pattern in patterns.items() if pattern}


def _at(name: str, path: Path) -> Split:
    if path.is_dir():
        return _folder(name, path)
    if path.suffix.lower() in TABLES:
        return _renamed(_of_file(path)[TRAIN], name)
    return _archive(name, path, None)


def _matches(root: Path, pattern: str) -> list[Path]:
    return [path for part in pattern.split("|") for path in sorted(root.glob(part))]


def _match(root: Path, pattern: str) -> Path:
    found = _matches(root, pattern)
    if not found:
        there = listed(sorted(item.name for item in root.iterdir()))
        raise NBDTError(
            f"{str(root)!r} holds nothing that matches {pattern!r}: expected a folder with one "
            f"sub-folder a class, or a tar archive of one. It holds {there or 'nothing'}."
        )
    return found[0]
