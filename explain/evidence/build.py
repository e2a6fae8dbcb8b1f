"""Run labelled images through a model into the columns of an evidence index."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from nbdt.evidence import EvidenceError, Index, make_index
from nbdt.files import check_new
from nbdt.images.labelled import Data, LabelledImages
from nbdt.model.features import embed
from nbdt.model.model import NBDT
from nbdt.progress import Progress

THUMBNAIL_SIDE = 160  # pixels at most; smaller where the network sees less


def build(
    model: NBDT,
    data: Data,
    folder: Path | None,
    *,
    split: str | None,
    thumbnails: bool,
    progress: Progress,
) -> Index:
    """Make the index in `folder` or in memory; see `EvidenceIndex.build`."""
    model.check_evaluating()
    if folder is not None:
        check_new(folder)
    images = LabelledImages(data, model.hierarchy, split)
    if not len(images):
        raise EvidenceError(f"Expected labelled images, but {images.name!r} holds none.")
    look = partial(thumbnail, model) if thumbnails else None
    found = embed(model, images, look=look, what="images", progress=progress)
    root = os.fspath(data) if isinstance(data, str | os.PathLike) else None
    return make_index(model, found, images.labels(found.sources), root, folder)


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
