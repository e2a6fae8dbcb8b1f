"""Reading data before the first step, and one report of everything that is wrong with it."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from PIL import ImageOps
from torch import Tensor

from nbdt.errors import NBDTError, listed, nearest
from nbdt.images.image import ImageError
from nbdt.images.layout import TEST, TRAIN, VALIDATION
from nbdt.images.sources import ImageSource, read_each
from nbdt.progress import Progress, Say, counted, no_progress

from ..recipe import Recipe
from .class_order import ClassOrder, class_indices, class_order
from .dataset import KEPT, Images, held_out_count, worker_count
from .splits import Split

Pixels: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]
NAMED = 3  # unreadable images in a report


@dataclass
class Scan:
    """The images of a split, their labels as the data writes them."""

    split: Split
    sources: list[ImageSource] = field(default_factory=list)  # readable ones not kept in memory
    pixels: list[Pixels] = field(default_factory=list)  # readable ones that are, (size, size, 3)
    labels: list[str] = field(default_factory=list)  # one for each readable image
    failed: list[str] = field(default_factory=list)  # a message for each that cannot be read
    # of the readable images: contents and labels, in order; not where they are
    digest: Any = field(default_factory=hashlib.sha256)

    @property
    def classes(self) -> set[str]:
        """Every label, those of unreadable images and empty folders included."""
        return self.split.data.classes(self.split.part)

    @property
    def found(self) -> int:
        """Number of images, the unreadable ones included."""
        return len(self.labels) + len(self.failed)


def scan(split: Split, recipe: Recipe, progress: Progress = no_progress) -> Scan:
    """Read a split: into memory for "shift" if it fits, else only to check that it can be read.

    Raises NBDTError: the images cannot be listed.
    """
    keep = recipe.augment == "shift" and not recipe.freeze_backbone
    try:
        sources = progress(split.data.images(split.part), None, f"reading {split.name} images")
        found = _read(split, sources, recipe, keep=keep)
        again = split.data.images(split.part)
        return found or cast(Scan, _read(split, again, recipe, keep=False))
    except ImageError as error:
        raise NBDTError(f"The {split.name} images cannot be read: {error}") from None


def _read(
    split: Split, sources: Iterable[ImageSource], recipe: Recipe, *, keep: bool
) -> Scan | None:
    """Return what was read, with pixels to `keep`; None if these do not fit into memory."""
    limit = int(recipe.memory_gigabytes * 1e9) // (3 * recipe.image_size**2)
    scanned, opened = Scan(split), partial(_opened, recipe=recipe, keep=keep)
    for source, result in read_each(opened, sources, worker_count(recipe)):
        if isinstance(result, ImageError):
            scanned.failed.append(str(result))
            continue
        digest, pixels = result
        label = source.class_label.encode(errors="surrogateescape")
        scanned.digest.update(label + b"\0" + digest)
        scanned.labels.append(source.class_label)
        if pixels is None:
            scanned.sources.append(source)
        elif len(scanned.pixels) == limit:
            return None
        else:
            scanned.pixels.append(pixels)
    return scanned


def _opened(source: ImageSource, recipe: Recipe, *, keep: bool) -> tuple[bytes, Pixels | None]:
    """Return a digest of an image, and its pixels to `keep`. Raises ImageError."""
    # Features are kept, so whoever computes them reports unreadable images then.
    if not keep and (recipe.freeze_backbone or not (recipe.check_images or recipe.skip_corrupt)):
        name = source.reference.replace("\\", "/").rpartition("/")[2]
        return f"{name} {source.state()[0]}".encode(errors="surrogateescape"), None
    digest, decode = source.content()
    image = decode()
    if not keep:
        return digest, None
    return digest, np.array(ImageOps.fit(image, (recipe.image_size, recipe.image_size)))


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
    remedy = f"take the classes out of {order.origin}"
    if order.origin.startswith("the data"):
        remedy = "remove their folders"
    return (
        f"{scanned.split.origin}: no image of {_count(missing)} {listed(missing)}."
        f"{_other_files(scanned, missing)} Add images of them, or {remedy}."
    )


def _other_files(scanned: Scan, missing: list[str]) -> str:
    """Return what the folders of classes without images hold instead."""
    data, kinds = scanned.split.data, Counter[str]()
    for name in missing:
        kinds.update(data.other_files(name))
    found = [counted(count, f"{kind} file") for kind, count in kinds.most_common(3)]
    unreadable = sum(map(data.labels(scanned.split.part).__getitem__, missing))
    found += [f"{counted(unreadable, 'image')} that cannot be read"] if unreadable else []
    return f" Their folders hold {', '.join(found)}." if found else ""


def _too_few(
    scans: Mapping[str, Scan], indices: list[int | None], order: ClassOrder, recipe: Recipe
) -> str:
    drawn = {VALIDATION: recipe.held_out, TEST: recipe.held_out_test}
    amounts = [amount for name, amount in drawn.items() if name not in scans]
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
    if not scanned.pixels:
        return Images(labels, scanned.sources)
    stacked = torch.from_numpy(np.stack(scanned.pixels)).permute(0, 3, 1, 2).contiguous()
    scanned.pixels.clear()
    return Images(labels, pixels=stacked)
