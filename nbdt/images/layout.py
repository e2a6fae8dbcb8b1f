"""Which folders of a data set are its classes, and which its splits: the structure decides."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TypeAlias

from ..errors import NBDTError, listed

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SPELLINGS = {
    "train": TRAIN, "training": TRAIN, "val": VALIDATION, "valid": VALIDATION,
    "validation": VALIDATION, "dev": VALIDATION, "test": TEST, "testing": TEST,
}  # fmt: skip

Folders: TypeAlias = tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """How the folders of an image give its split and its class."""

    above: Folders = ()  # what all images are in, above splits and classes
    splits: Mapping[str, str] = field(default_factory=dict)  # the split of each folder below that
    pattern: Sequence[str] = ()  # of the folders that are classes; replaces the two above
    notes: Sequence[str] = ()  # the readings that were chosen, and how to choose others

    def place(self, folders: Folders) -> tuple[str | None, str | None]:
        """Return the folder of the split and that of the class, None for what there is not."""
        if self.pattern:
            depth = len(self.pattern)
            fits = len(folders) >= depth and all(map(fnmatchcase, folders, self.pattern))
            return None, folders[depth - 1] if fits else None
        if folders[: len(self.above)] != self.above:
            return None, None
        below: list[str | None] = [*folders[len(self.above) :], None, None]
        return (below[0], below[1]) if self.splits else (None, below[0])


def layout_of(images: Mapping[Folders, int], name: str) -> Layout:
    """Return how to read data whose folders hold so many images each, directly.

    Folders that hold all images and nothing else are passed through. The next folders are splits if
    one is named "train" and holds folders of images that another split holds too, or no images of
    its own and nothing beside it but splits. Otherwise they are the classes, and images in folders
    below belong to the class.
    """
    above = _above(images)
    below = _tops(images, above)
    named = {top: SPELLINGS[top.lower()] for top in below if top.lower() in SPELLINGS}
    shown = "/".join((name.rstrip("/"), *above))
    mark = f"{shown}/*" if "!" in shown or not name.lower().endswith(".tar") else f"{name}!*"
    notes = [f"{name}: the class folders are those in {'/'.join(above)!r}."] if above else []
    if named and _are_splits(images, above, below, named):
        notes.append(
            f"{name}: {listed(sorted(named))} are read as splits; to read them as classes: "
            f"--data '{mark}'."
        )
        return Layout(above, named, notes=notes)
    if named and TRAIN in named.values():
        one = min(top for top, split in named.items() if split == TRAIN)
        remedy = f"to read it as a split, name it: --data '{shown}/{one}'"
        if (*above, one) in images:
            remedy = "it holds images itself"
        notes.append(f"{name}: {one!r} is read as a class like the folders beside it; {remedy}.")
    if below and not any((*above, top) in images for top in below):
        notes.append(
            f"{name}: the classes are {listed(sorted(below))}, and each holds folders of images; to "
            f"read those as classes: --data '{mark}/*'."
        )
    return Layout(above, notes=notes)


def split_named(name: str, splits: Sequence[str], wanted: str) -> str:
    """Return which of the splits is wanted, by its name or another spelling of it.

    Raises NBDTError: none is.
    """
    known = {SPELLINGS.get(split.lower(), split.lower()): split for split in splits}
    found = wanted if wanted in splits else known.get(SPELLINGS.get(wanted.lower(), wanted.lower()))
    if found is None:
        raise NBDTError(f"{name!r} has no split {wanted!r}; it has {listed(splits) or 'none'}.")
    return found


def _above(images: Mapping[Folders, int]) -> Folders:
    """Return the chain of folders that hold everything, above the first choice between folders."""
    above: Folders = ()
    while above not in images and len(below := _tops(images, above)) == 1:
        above = (*above, *below)
    return above[:-1] if above in images else above


def _tops(images: Mapping[Folders, int], above: Folders) -> dict[str, None]:
    depth = len(above)
    return {f[depth]: None for f in images if len(f) > depth and f[:depth] == above}


def _are_splits(
    images: Mapping[Folders, int], above: Folders, below: Mapping[str, None],
    named: Mapping[str, str],
) -> bool:  # fmt: skip
    train = {top for top, split in named.items() if split == TRAIN}
    inside = {top: {*_tops(images, (*above, top))} for top in named}
    classes = set().union(*(inside[top] for top in train))
    if any(classes & inside[top] for top in named.keys() - train):
        return True
    has_images = any((*above, top) in images for top in train)
    return bool(classes) and not has_images and named.keys() == below.keys()
