"""Reading data before the first step, and one report of everything that is wrong with it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from PIL import ImageOps
from torch import Tensor

from nbdt.errors import NBDTError, listed, nearest
from nbdt.images.image import ImageError
from nbdt.images.sources import ImageSource, read_each
from nbdt.progress import Progress, Say, counted, no_progress

from ..recipe import Recipe
from .class_order import ClassOrder, class_indices, class_order
from .dataset import KEPT, Images, held_out_count, worker_count
from .splits import TEST, TRAIN, VALIDATION, Split

Pixels: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]
NAMED = 3  # unreadable images in a report


@dataclass
class Scan:
    """The images of a split, their labels as the data writes them."""

    split: Split  # the split
    # the readable images, unless they are kept in memory
    sources: list[ImageSource] = field(default_factory=list)
    # the readable images, (size, size, 3) each, if they are
    pixels: list[Pixels] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)  # one for each readable image
    # one message for each image that cannot be read
    failed: list[str] = field(default_factory=list)
    # every label of the split, those of unreadable images and empty folders included
    classes: set[str] = field(default_factory=set)
    in_memory: bool = False  # whether the images are kept in memory

    @property
    def found(self) -> int:
        """Number of images, the unreadable ones included."""
        return len(self.labels) + len(self.failed)


def scan(split: Split, recipe: Recipe, progress: Progress = no_progress) -> Scan:
    """Read a split: into memory for "shift" if it fits, else only to check that it can be read.

    Raises NBDTError: there are no images, or an archive must be unpacked first.
    """
    try:
        sources = progress(split.sources(), None, f"reading {split.name} images")
        if recipe.augment == "shift" and not recipe.freeze_backbone:
            return _read(split, sources, recipe) or _check(split, split.sources(), recipe)
        return _check(split, sources, recipe)
    except ImageError as error:
        raise NBDTError(f"The {split.name} images cannot be read: {error}") from None


def _read(split: Split, sources: Iterable[ImageSource], recipe: Recipe) -> Scan | None:
    """Return a split in memory; None if it does not fit."""
    limit = int(recipe.memory_gigabytes * 1e9) // (3 * recipe.image_size**2)
    scanned = Scan(split, in_memory=True)

    def opened(source: ImageSource) -> Pixels:
        return np.array(ImageOps.fit(source.open(), (recipe.image_size, recipe.image_size)))

    for _, pixels in _readable(scanned, sources, opened, recipe):
        scanned.pixels.append(cast(Pixels, pixels))
        if len(scanned.pixels) > limit:
            return None
    return scanned


def _check(split: Split, sources: Iterable[ImageSource], recipe: Recipe) -> Scan:
    if split.compressed:
        raise NBDTError(
            f"{split.origin!r} is compressed, so single images cannot be read from it, and "
            "these do not fit into memory. Unpack it (tar -xf) and name the folder with --data, or "
            "for small images raise memory_gigabytes."
        )
    scanned = Scan(split)

    def opened(source: ImageSource) -> None:
        # Features are kept, so whoever computes them reports unreadable images then.
        if (recipe.check_images or recipe.skip_corrupt) and not recipe.freeze_backbone:
            source.open().close()

    scanned.sources += [source for source, _ in _readable(scanned, sources, opened, recipe)]
    return scanned


def _readable(
    scanned: Scan,
    sources: Iterable[ImageSource],
    work: Callable[[ImageSource], object],
    recipe: Recipe,
) -> Iterator[tuple[ImageSource, object]]:
    """Yield each readable source with the result of `work`; record labels and unreadable images."""
    scanned.classes.update(scanned.split.classes)
    for source, result in read_each(work, sources, worker_count(recipe)):
        scanned.classes.add(source.class_label)
        if isinstance(result, ImageError):
            scanned.failed.append(str(result))
        else:
            scanned.labels.append(source.class_label)
            yield source, result


def inspect(
    scans: Mapping[str, Scan], recipe: Recipe, given: ClassOrder | None
) -> tuple[ClassOrder, dict[str, Images]]:
    """Return the classes in order, and the images of each split with their labels.

    Images that have a group as their label can only be trained on: other splits leave them out. Without
    a `given` order the training labels, sorted, are the classes.

    Raises NBDTError: one report of everything that is wrong, with counts and remedies.
    """
    order = given or class_order(scans[TRAIN].classes)
    indices = {name: class_indices(scanned.labels, order) for name, scanned in scans.items()}
    problems = []
    for name, scanned in scans.items():
        if not recipe.skip_corrupt:
            problems.append(unreadable(name, scanned.failed, scanned.found))
        problems.append(_unknown(scanned, indices[name], order))
        if not scanned.labels:
            problems.append(f"{scanned.split.origin}: no {name} image can be read.")
    problems.append(_missing(scans[TRAIN], indices[TRAIN], order))
    problems.append(_too_few(scans, indices[TRAIN], order, recipe))
    if any(problems):
        lines = "\n".join(f"- {problem}" for problem in problems if problem)
        counts = ", ".join(f"{scanned.found:,} {name}" for name, scanned in scans.items())
        raise NBDTError(
            f"The data cannot be trained on as it is ({counts} images; "
            f"{len(order.names)} classes, from {order.origin}):\n{lines}"
        )
    images = {name: _images(scanned, indices[name]) for name, scanned in scans.items()}
    for name in images.keys() - {TRAIN}:
        images[name] = images[name].pick(images[name].labels >= 0)
    return order, images


def _count(names: Sequence[str], what: str = "") -> str:
    return f"{len(names)} {what}class{'' if len(names) == 1 else 'es'}"


def say_left_out(say: Say, name: str, failed: Sequence[str]) -> None:
    """Name the unreadable images of a split that are left out."""
    if failed:
        shown = "; ".join(failed[:NAMED]) + ("; …" if len(failed) > NAMED else "")
        say(f"Left out, unreadable ({name}, {len(failed):,}): {shown}")


def unreadable(name: str, failed: Sequence[str], found: int) -> str:
    """Return what is wrong with a split of `found` images, of which some cannot be read."""
    if not failed:
        return ""
    rest = f"; and {len(failed) - NAMED:,} more" if len(failed) > NAMED else ""
    return (
        f"{len(failed):,} of {found:,} {name} images cannot be read: "
        f"{'; '.join(failed[:NAMED])}{rest}. Repair or remove them, or leave them out: "
        "--set skip_corrupt=true."
    )


def _unknown(scanned: Scan, indices: list[int | None], order: ClassOrder) -> str:
    pairs = zip(scanned.labels, indices, strict=True)
    unknown = Counter(label for label, index in pairs if index is None)
    if not unknown:
        return ""
    labels = sorted(unknown)
    return (
        f"{scanned.split.origin}: {unknown.total():,} images of {_count(labels, 'unknown ')} "
        f"{listed(labels)}.{nearest(labels[0], order.names)} Rename or remove the folders; the classes "
        f"{'(or groups of the hierarchy) ' if order.hierarchy else ''}are "
        f"{listed(order.names)}."
    )


def _missing(scanned: Scan, indices: list[int | None], order: ClassOrder) -> str:
    present = set(indices)
    missing = [name for index, name in enumerate(order.names) if index not in present]
    if not missing:
        return ""
    return (
        f"{scanned.split.origin}: no image of {_count(missing)} {listed(missing)}."
        f"{_other_files(scanned, missing)} Add images of them, or take the classes out of {order.origin}."
    )


def _other_files(scanned: Scan, missing: list[str]) -> str:
    """Return what the folders of classes without images hold instead."""
    kinds: Counter[str] = Counter()
    for folder in (os.path.join(scanned.split.origin, name) for name in missing):
        for entry in os.scandir(folder) if os.path.isdir(folder) else ():
            kind = os.path.splitext(entry.name)[1].lower() or "other"
            kinds["folder" if entry.is_dir() else f"{kind} file"] += 1
    shown = ", ".join(counted(count, kind) for kind, count in kinds.most_common(3))
    return f" Their folders hold {shown}." if shown else ""


def _too_few(
    scans: Mapping[str, Scan], indices: list[int | None], order: ClassOrder, recipe: Recipe
) -> str:
    amounts = [
        amount
        for name, amount in ((VALIDATION, recipe.held_out), (TEST, recipe.held_out_test))
        if name not in scans
    ]
    short = []
    for index, count in sorted(Counter(i for i in indices if i is not None and i >= 0).items()):
        needed = sum(held_out_count(count, amount) for amount in amounts)
        needed = KEPT - 1 if recipe.freeze_backbone else needed
        if count <= needed:
            short.append(f"{order.names[index]!r} ({count}, at least {needed + 1} needed)")
    if not short:
        return ""
    rest = f" and {len(short) - 5} more" if len(short) > 5 else ""
    remedy = ", or hold out fewer: --set held_out=1 --set held_out_test=1"
    return (
        f"Too few images of {_count(short)}, some of which are held out: "
        f"{', '.join(short[:5])}{rest}. Add images{'' if recipe.freeze_backbone else remedy}."
    )


def _images(scanned: Scan, indices: list[int | None]) -> Images:
    labels: Tensor = torch.tensor(indices)
    if not scanned.in_memory:
        return Images(labels, scanned.sources)
    stacked = torch.from_numpy(np.stack(scanned.pixels)).permute(0, 3, 1, 2).contiguous()
    scanned.pixels.clear()
    return Images(labels, pixels=stacked)
