"""Run labelled images through a model into the columns of an evidence index."""

from __future__ import annotations

import io
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
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
    failed: Sequence[str] = ()


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
    fill = partial(_fill, model, data, split=split, thumbnails=thumbnails, progress=progress)
    if folder is None:
        with tempfile.TemporaryDirectory() as aside:
            manifest, failed = fill(Path(aside))
            columns = {name: np.load(Path(aside, f"{name}.npy")) for name in manifest["columns"]}
        return BuiltIndex(columns, manifest, failed)
    with new_folder(folder) as aside:
        manifest, failed = fill(aside)
        write_atomic(aside / MANIFEST, json.dumps(manifest, indent=1) + "\n")
    return BuiltIndex(read_columns(folder, manifest), manifest, failed)


def _fill(
    model: NBDT,
    data: Data,
    folder: Path,
    *,
    split: str | None,
    thumbnails: bool,
    progress: Progress,
) -> tuple[dict[str, Any], list[str]]:
    """Run the images through the model in batches; return manifest and messages of failures."""
    root = os.fspath(data) if isinstance(data, str | os.PathLike) else None
    count, failed = _count_labelled(model, data, split), list[str]()
    writer, places = ColumnWriter(folder), class_of_name(model.hierarchy)
    with closing(writer):
        sources = progress(_sources(data, split), count, "images")
        for part in parts_of(opened(sources, failed), BATCH):
            images = [image for _, image in part]
            _, pooled = forward(model, images)
            writer.append("embeddings", unit_embeddings(pooled))
            labels = [places[normalised_name(source.class_label)] for source, _ in part]
            writer.append("labels", np.array(labels))
            references = encoded([source.reference for source, _ in part], root)
            writer.append_blob("references", "reference_ends", references)
            if thumbnails:
                small = [thumbnail(model, image) for image in images]
                writer.append_blob("thumbnails", "thumbnail_ends", small)
    if len(failed) == count:
        raise EvidenceError(f"None of the {count} images can be read; the first: {failed[0]}")
    return manifest_of(model, writer.shapes, len(failed), root), failed


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
