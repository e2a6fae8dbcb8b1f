"""Run labelled images through a model into the columns of an evidence index."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from nbdt.evidence import (
    MANIFEST,
    Column,
    ColumnWriter,
    EvidenceError,
    encoded,
    manifest_of,
    read_columns,
    unit_embeddings,
)
from nbdt.files import new_folder, write_atomic
from nbdt.images.dataset import iter_images, parts_of
from nbdt.images.image import AMPLE_SIDE
from nbdt.images.sources import ImageSource, opened
from nbdt.model.model import NBDT
from nbdt.progress import Progress
from nbdt.tree.class_names import class_of_name, count_labelled, normalised_name

BATCH = 64
THUMBNAIL_SIDE = 160  # pixels at most; smaller where the network sees less

Data = str | os.PathLike[str] | Sequence[ImageSource]


@dataclass(frozen=True)
class BuiltIndex:
    """The result of a build: columns, manifest, and messages of unreadable images."""

    columns: dict[str, Column]
    manifest: dict[str, Any]
    failed: tuple[str, ...]


@dataclass
class _Embedder:
    """Runs images through the model in batches and writes their columns."""

    model: NBDT
    root: str | None
    writer: ColumnWriter
    thumbnails: bool
    failed: list[str] = field(default_factory=list)

    def add(self, sources: Iterable[ImageSource]) -> None:
        places = class_of_name(self.model.hierarchy)
        for part in parts_of(opened(sources, self.failed), BATCH):
            images = [image for _, image in part]
            _, pooled = forward(self.model, images)
            self.writer.append("embeddings", unit_embeddings(pooled))
            labels = [places[normalised_name(source.class_label)] for source, _ in part]
            self.writer.append("labels", np.array(labels))
            references = encoded([source.reference for source, _ in part], self.root)
            self.writer.append_blob("references", "reference_ends", references)
            if self.thumbnails:
                small = [thumbnail(self.model, image) for image in images]
                self.writer.append_blob("thumbnails", "thumbnail_ends", small)


def build(
    model: NBDT,
    data: Data,
    folder: Path | None,
    *,
    split: str | None,
    thumbnails: bool,
    progress: Progress,
) -> BuiltIndex:
    """Make the columns and manifest, in `folder` or in memory; see `EvidenceIndex.build`."""
    model.check_evaluating()
    root = os.fspath(data) if isinstance(data, str | os.PathLike) else None

    def fill(into: Path | None) -> BuiltIndex:
        count = _count_labelled(model, data, split)
        embedder = _Embedder(model, root, ColumnWriter(into), thumbnails)
        with closing(embedder.writer):
            embedder.add(progress(_sources(data, split), count, "images"))
            if len(embedder.failed) == count:
                raise EvidenceError(
                    f"None of the {count} images can be read; the first: {embedder.failed[0]}"
                )
            columns = embedder.writer.finish()
        failed = tuple(embedder.failed)
        return BuiltIndex(columns, manifest_of(model, columns, len(failed), root), failed)

    if folder is None:
        return fill(None)
    with new_folder(folder) as aside:
        built = replace(fill(aside), columns={})  # Windows renames no folder with mapped files
        write_atomic(aside / MANIFEST, json.dumps(built.manifest, indent=1) + "\n")
    return replace(built, columns=read_columns(folder, built.manifest))


def _sources(data: Data, split: str | None) -> Iterator[ImageSource]:
    if isinstance(data, str | os.PathLike):
        # A photograph is reduced while it is decoded; no network looks at more.
        return iter_images(data, split, max_side=AMPLE_SIDE)
    return iter(data)


def _count_labelled(model: NBDT, data: Data, split: str | None) -> int:
    named = os.fspath(data) if isinstance(data, str | os.PathLike) else "the data"
    labels = (source.class_label for source in _sources(data, split))
    count = count_labelled(labels, model.hierarchy, named)
    if not count:
        raise EvidenceError(f"Expected labelled images, but {named!r} holds none.")
    return count


def forward(
    model: NBDT, images: Sequence[Image.Image], *, framed: bool = False
) -> tuple[Tensor, Tensor]:
    """Return the last feature map and the pooled features of photographs.

    Args:
        model: in evaluation mode.
        images: photographs.
        framed: the photographs are already cropped to what the network sees, at any size.
    """
    prepare = replace(model.preprocess, crop_pct=1.0) if framed else model.preprocess
    batch = torch.stack([prepare(image) for image in images])
    with torch.inference_mode():
        feature_map = model.feature_map(batch.to(model.device))
        return feature_map, model.pool(feature_map)


def thumbnail(model: NBDT, image: Image.Image) -> bytes:
    """Encode what the network sees of a photograph as WebP without metadata."""
    side = min(model.preprocess.size, THUMBNAIL_SIDE)
    small = model.preprocess.frame(image, side)
    small.info = {}
    stream = io.BytesIO()
    small.save(stream, "WEBP", quality=90, exif=b"", icc_profile=b"", xmp=b"")
    return stream.getvalue()
