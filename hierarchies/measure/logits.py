"""Class logits of photographs; embeddings are computed once and kept for later runs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import compress

import torch
from torch import Tensor

from nbdt.errors import NBDTError
from nbdt.images.dataset import iter_inputs
from nbdt.images.labelled import Data, LabelledImages
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

    def pick(self, chosen: Tensor) -> Logits:
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
    found = embed(model, images, progress=progress)
    return _logits(model, found, images.labels(found.sources))


def unlabelled_logits(
    model: NBDT, data: str | os.PathLike[str], *, progress: Progress = no_progress
) -> Logits:
    """Compute the logits of every photograph in a folder, an archive or a list, whatever it shows.

    Raises NBDTError: no readable photograph, or unreadable data.
    """
    found = embed(model, iter_inputs([data]), what="other photographs", progress=progress)
    return _logits(model, found, torch.full((len(found.sources),), -1))


def _logits(model: NBDT, found: Features, labels: Tensor) -> Logits:
    if not found.sources:
        first = found.failed[0] if found.failed else "there is none"
        raise NBDTError(f"None of the photographs can be read; the first: {first}")
    with torch.inference_mode():
        logits = model.head.logits(found.values.to(model.device)).float().cpu()
    files = tuple(source.reference for source in found.sources)
    return Logits(files, labels, logits.clone(), tuple(found.failed))
