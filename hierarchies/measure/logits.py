"""Class logits of photographs; embeddings are computed once and kept for later runs."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import compress
from typing import Any

import torch
from torch import Tensor

from nbdt.errors import NBDTError
from nbdt.images.dataset import iter_inputs
from nbdt.images.labelled import Data, LabelledImages
from nbdt.images.sources import ImageSource
from nbdt.model.features import Features, embed
from nbdt.model.model import NBDT
from nbdt.progress import Progress, no_progress
from nbdt.tree.hierarchy import Hierarchy


@dataclass(frozen=True, eq=False)
class Logits:
    """A model's class logits of labelled photographs; no hierarchy takes part."""

    files: tuple[str, ...]  # (count) where each photograph came from
    labels: Tensor  # (count,) int64, as in `nbdt.tree.labels`; −1 without labels
    logits: Tensor  # (count, classes), float32
    failed: tuple[str, ...]  # one message for each photograph that could not be read

    def pick(self, chosen: Tensor) -> "Logits":
        """Return those of some photographs, (count) bool."""
        files = tuple(compress(self.files, chosen.tolist()))
        return Logits(files, self.labels[chosen], self.logits[chosen], self.failed)


def class_logits(
    model: NBDT,
    data: Data,
    *,
    split: str | None = None,
    hierarchy: Hierarchy | None = None,
    progress: Progress = no_progress,
) -> Logits:
    """Compute the logits of every photograph of a labelled data set, read as `LabelledImages` does.

    Labels may be groups of `hierarchy`, by default the model's.

    Raises NBDTError: labels that are no class or group, no readable photograph, or unreadable data.
    """
    images = LabelledImages(data, hierarchy or model.hierarchy, split, groups=True)
    found, logits = _of_each(model, images, progress=progress)
    return _found(found, images.labels(found.sources), logits)


def unlabelled_logits(
    model: NBDT, data: str | os.PathLike[str], *, progress: Progress = no_progress
) -> Logits:
    """Compute the logits of every photograph in a folder, an archive or a list, whatever it shows.

    Raises NBDTError: no readable photograph, or unreadable data.
    """
    what = "other photographs"
    found, logits = _of_each(model, iter_inputs([data]), what=what, progress=progress)
    return _found(found, torch.full((len(logits),), -1), logits)


def _of_each(model: NBDT, images: Iterable[ImageSource], **options: Any) -> tuple[Features, Tensor]:
    """Return what was read of images, and their logits; the large model of a cascade sees the rest."""
    first = model if model.cascade is None else model.cascade.small
    found = embed(first, images, **options)
    if not found.sources:
        reason = found.failed[0] if found.failed else "there is none"
        raise NBDTError(f"None of the photographs can be read; the first: {reason}")
    logits = _head_logits(first, found)
    if model.cascade is None:
        return found, logits
    unsure = ~model.cascade.sure(found.values.to(model.device)).cpu()
    others = found.pick(unsure)
    rest = embed(model, others.sources, **options) if others.sources else others
    if [*rest.keys] != [*others.keys]:
        raise NBDTError("The photographs changed while they were read; try again.")
    if rest.sources:
        logits[unsure] = _head_logits(model, rest)
    return found, logits


def _head_logits(model: NBDT, found: Features) -> Tensor:
    with torch.no_grad():
        return model.head.logits(found.values.to(model.device)).float().cpu()


def _found(found: Features, labels: Tensor, logits: Tensor) -> Logits:
    files = tuple(source.reference for source in found.sources)
    return Logits(files, labels, logits, tuple(found.failed))
