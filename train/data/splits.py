"""Which images of a data set are for training, for choices and for the final test.

What the recipe's patterns name in the data's folder comes first, two archives for example. Otherwise
the splits are those that `nbdt.images.dataset.DataSet` finds, in any layout.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from nbdt.errors import NBDTError, listed
from nbdt.images.dataset import DataSet
from nbdt.images.image import AMPLE_SIDE
from nbdt.images.layout import TEST, TRAIN, VALIDATION

from ..recipe import Recipe


@dataclass(frozen=True)
class Split:
    """Labelled images that can be iterated any number of times."""

    name: str  # "train", "validation" or "test"
    data: DataSet
    part: str | None = None  # what the data calls the split; None for all of the data

    @property
    def origin(self) -> str:
        """What messages call it."""
        return self.data.name if self.part is None else f"{self.data.name} ({self.part})"


def find_splits(data: str | os.PathLike[str], recipe: Recipe) -> dict[str, Split]:
    """Return the splits that `data` has, by name; "train" always.

    A lone validation split is the test set, as for ImageNet; it is evaluated once.

    Raises NBDTError: `data` does not exist, or contains nothing readable.
    """
    path = Path(data)
    if recipe.train and path.is_dir() and _matches(path, recipe.train):
        patterns = {TRAIN: recipe.train, TEST: recipe.test}
        return {name: _at(name, _match(path, text)) for name, text in patterns.items() if text}
    if recipe.train and path.is_dir() and not any(item.is_dir() for item in path.iterdir()):
        _match(path, recipe.train)  # says what was looked for
    found = DataSet(data, max_side=AMPLE_SIDE)
    if not found.splits:
        return {TRAIN: Split(TRAIN, found)}
    splits: dict[str, Split] = {}
    for part, name in sorted(found.splits.items()):
        if name in splits:
            raise NBDTError(
                f"{found.name!r} has two folders of {name} images, {splits[name].part!r} and "
                f"{part!r}; merge or rename one of them."
            )
        splits[name] = Split(name, found, part)
    if TRAIN not in splits:
        raise NBDTError(
            f"{found.name!r} has no images of the split 'train', only of {listed(splits)}."
        )
    if VALIDATION in splits and TEST not in splits:
        splits[TEST] = Split(TEST, found, splits.pop(VALIDATION).part)
    return splits


def _at(name: str, path: Path) -> Split:
    """Return all images of a place, or its own split of that name."""
    found = DataSet(path, max_side=AMPLE_SIDE)
    return Split(name, found, next((p for p, kind in found.splits.items() if kind == name), None))


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
