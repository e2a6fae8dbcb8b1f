"""All that can be wrong with some data, in one report before the first step."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor

from nbdt.errors import NBDTError, listed, nearest
from nbdt.images.image import ImageError
from nbdt.images.sources import ImageSource
from nbdt.progress import Progress, no_progress

from ..recipe import Recipe
from .class_order import ClassOrder, class_indices, class_order
from .dataset import Images, Labelled, Streamed, square, worker_count
from .splits import TRAIN, Split

Pixels: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]
AHEAD = 64  # images decoded ahead of the one that is looked at


@dataclass
class Scan:
    """What a split holds, its labels still as the data writes them.

    Attributes:
        split: where it came from.
        sources: the readable images, if they are not kept in memory.
        pixels: the readable images, (size, size, 3) each, if they are.
        labels: of each readable image.
        failed: a message for each image that could not be read.
        classes: every label that the split has, of unreadable images and empty folders too.
    """

    split: Split
    sources: list[ImageSource] = field(default_factory=list)
    pixels: list[Pixels] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    classes: set[str] = field(default_factory=set)
    in_memory: bool = False

    @property
    def found(self) -> int:
        """Images looked at, unreadable ones among them."""
        return len(self.labels) + len(self.failed)


def scan(split: Split, recipe: Recipe, progress: Progress = no_progress) -> Scan:
    """Read a split: into memory for "shift" while it fits, else only to see whether it can be read.

    Raises:
        NBDTError: there are no images, or an archive that has to be unpacked first.
    """
    found = Scan(split, classes=set(split.classes), in_memory=recipe.augment == "shift")
    limit = int(recipe.memory_gigabytes * 1e9) // (3 * recipe.image_size**2)
    try:
        sources = progress(split.sources(), None, f"reading {split.name} images")
        if found.in_memory:
            _read(found, sources, recipe, limit)
        else:
            _check(found, sources, recipe)
    except ImageError as error:
        raise NBDTError(f"The {split.name} images cannot be read: {error}") from None
    return found


def _read(found: Scan, sources: Iterable[ImageSource], recipe: Recipe, limit: int) -> None:
    def opened(source: ImageSource) -> Pixels:
        return square(source.open(), recipe.image_size)

    for source, pixels in _parallel(sources, opened, recipe):
        found.classes.add(source.class_label)
        if isinstance(pixels, ImageError):
            found.failed.append(str(pixels))
            continue
        found.labels.append(source.class_label)
        found.pixels.append(cast(Pixels, pixels))
        if len(found.pixels) > limit:
            found.in_memory = False
            found.pixels.clear()
            break
    if not found.in_memory:
        found.labels.clear()
        found.failed.clear()
        _check(found, found.split.sources(), recipe)


def _check(found: Scan, sources: Iterable[ImageSource], recipe: Recipe) -> None:
    if found.split.compressed:
        raise NBDTError(
            f"{found.split.origin!r} is compressed, so single images cannot be read from it, and "
            "these do not stay in memory. Unpack it (tar -xf) and name the folder with --data, or "
            "for small images raise memory_gigabytes."
        )

    def opened(source: ImageSource) -> None:
        if recipe.check_images or recipe.skip_corrupt:
            source.open().close()

    for source, result in _parallel(sources, opened, recipe):
        found.classes.add(source.class_label)
        if isinstance(result, ImageError):
            found.failed.append(str(result))
            continue
        found.labels.append(source.class_label)
        found.sources.append(source)


def _parallel(
    sources: Iterable[ImageSource], work: Callable[[ImageSource], object], recipe: Recipe
) -> Iterator[tuple[ImageSource, object]]:
    """Each source, in order, with what `work` makes of it or the `ImageError` it raised."""

    def tried(source: ImageSource) -> tuple[ImageSource, object]:
        try:
            return source, work(source)
        except ImageError as error:
            return source, error

    threads = worker_count(recipe)
    if threads < 2:
        yield from map(tried, sources)
        return
    with ThreadPoolExecutor(threads) as pool:  # Pillow decodes without the interpreter's lock
        waiting = []
        for source in sources:
            waiting.append(pool.submit(tried, source))
            if len(waiting) >= AHEAD:
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()


# ---- labels, counts, report -------------------------------------------------------------------


def inspect(
    scans: Mapping[str, Scan], recipe: Recipe, given: ClassOrder | None
) -> tuple[ClassOrder, dict[str, Images]]:
    """The classes in order, and the images of each split with their class indices.

    Args:
        scans: by split, "train" among them.
        recipe: how much is held out, and whether unreadable images are left out.
        given: the hierarchy's or the recipe's order; None takes the training labels, sorted.

    Raises:
        NBDTError: one report of everything that is wrong, with counts and remedies.
    """
    order = given or class_order(scans[TRAIN].classes)
    indices = {name: class_indices(found.labels, order) for name, found in scans.items()}
    problems = [_unreadable(found, recipe) for found in scans.values()]
    problems += [_unknown(found, indices[name], order) for name, found in scans.items()]
    problems += [_empty(found) for found in scans.values()]
    problems.append(_missing(scans[TRAIN], indices[TRAIN], order))
    problems.append(_too_few(scans, indices[TRAIN], order, recipe))
    if any(problems):
        lines = "\n".join(f"- {problem}" for problem in problems if problem)
        counts = ", ".join(f"{found.found:,} {name}" for name, found in scans.items())
        raise NBDTError(
            f"The data cannot be trained on as it is ({counts} images; "
            f"{len(order.names)} classes, from {order.origin}):\n{lines}"
        )
    return order, {name: _images(found, indices[name]) for name, found in scans.items()}


def _unreadable(found: Scan, recipe: Recipe) -> str:
    if not found.failed or recipe.skip_corrupt:
        return ""
    shown = "; ".join(found.failed[:3])
    rest = f"; and {len(found.failed) - 3:,} more" if len(found.failed) > 3 else ""
    return (
        f"{len(found.failed):,} of {found.found:,} {found.split.name} images cannot be read: "
        f"{shown}{rest}. Mend or remove them, or leave them out: --set skip_corrupt=true."
    )


def _unknown(found: Scan, indices: list[int | None], order: ClassOrder) -> str:
    pairs = zip(found.labels, indices, strict=True)
    unknown = Counter(label for label, index in pairs if index is None)
    if not unknown:
        return ""
    labels = sorted(unknown)
    hint = nearest(labels[0], order.names)
    return (
        f"{found.split.origin}: {unknown.total():,} images of {len(labels)} unknown "
        f"class{'' if len(labels) == 1 else 'es'} {listed(labels)}.{hint} Rename or remove the "
        f"folders; the classes are {listed(order.names)}."
    )


def _empty(found: Scan) -> str:
    return "" if found.labels else f"{found.split.origin}: no {found.split.name} image can be read."


def _missing(found: Scan, indices: list[int | None], order: ClassOrder) -> str:
    there = set(indices)
    missing = [name for place, name in enumerate(order.names) if place not in there]
    if not missing:
        return ""
    return (
        f"{found.split.origin}: no image of {len(missing)} class"
        f"{'' if len(missing) == 1 else 'es'} {listed(missing)}.{_lying_there(found, missing)} Add "
        f"images of them, or take the classes out of {order.origin}."
    )


def _lying_there(found: Scan, missing: list[str]) -> str:
    """What the folders of classes without images hold instead."""
    kinds: Counter[str] = Counter()
    for folder in (os.path.join(found.split.origin, name) for name in missing):
        for entry in os.scandir(folder) if os.path.isdir(folder) else ():
            kind = os.path.splitext(entry.name)[1].lower() or "other"
            kinds["folder" if entry.is_dir() else f"{kind} file"] += 1
    shown = ", ".join(f"{n} {kind}{'s' if n > 1 else ''}" for kind, n in kinds.most_common(3))
    return f" Their folders hold {shown}." if shown else ""


def _too_few(
    scans: Mapping[str, Scan], indices: list[int | None], order: ClassOrder, recipe: Recipe
) -> str:
    counts = Counter(index for index in indices if index is not None)
    short = []
    for index, count in sorted(counts.items()):
        needed = sum(_taken(count, amount) for amount in _amounts(scans, recipe))
        if count <= needed:
            short.append(f"{order.names[index]!r} ({count}, at least {needed + 1} needed)")
    if not short:
        return ""
    rest = f" and {len(short) - 5} more" if len(short) > 5 else ""
    return (
        f"Too few images to hold some out of {len(short)} class{'' if len(short) == 1 else 'es'}: "
        f"{', '.join(short[:5])}{rest}. Add images, or hold out fewer: --set held_out=1 "
        "--set held_out_test=1."
    )


def _amounts(scans: Mapping[str, Scan], recipe: Recipe) -> list[float]:
    """How much is held out of the training images: for choices, for the test, where missing."""
    found = [] if "validation" in scans else [recipe.held_out]
    return found if "test" in scans else [*found, recipe.held_out_test]


def _taken(count: int, amount: float) -> int:
    return math.ceil(amount * count) if amount < 1 else int(amount)


def _images(found: Scan, indices: list[int | None]) -> Images:
    labels: Tensor = torch.tensor(indices)
    if not found.in_memory:
        return Streamed(found.sources, labels)
    stacked = torch.from_numpy(np.stack(found.pixels)).permute(0, 3, 1, 2).contiguous()
    found.pixels.clear()
    return Labelled(stacked, labels)
