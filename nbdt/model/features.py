"""Embeddings of many images: in batches, with progress, kept on the disk by content."""

from __future__ import annotations

import hashlib
import io
import logging
import os
from collections.abc import Callable, Iterable, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..files import write_atomic
from ..images.image import ImageError
from ..images.sources import ImageSource, cores, read_each
from ..progress import Progress, no_progress
from ..runtime.accelerate import feature_map
from .fingerprint import Embedder, embedding_hash

if TYPE_CHECKING:
    from PIL import Image

ON_CPU, ON_GPU = 16, 64  # images in a batch; a CPU loses time with the memory of larger ones
SHARD = 512  # embeddings in a file; an interrupted run loses fewer
log = logging.getLogger(__name__)

Row: TypeAlias = NDArray[np.float32]
Pixels: TypeAlias = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Features:
    """The embeddings of the images that can be read."""

    values: Tensor  # (images, features) float32, on the CPU
    sources: Sequence[ImageSource]  # the images, in order
    places: Sequence[int]  # index of each among all images, the unreadable ones included
    keys: Sequence[bytes]  # SHA-256 of each file
    seen: Sequence[Any]  # what `look` returned for each
    failed: Sequence[str]  # one message for each unreadable image

    def pick(self, chosen: Tensor) -> Features:
        """Return those of some images, (images,) bool."""
        rows = chosen.nonzero()[:, 0].tolist()
        sources, places, keys, seen = (
            [column[row] for row in rows]
            for column in (self.sources, self.places, self.keys, self.seen)
        )
        return Features(self.values[chosen], sources, places, keys, seen, self.failed)


def embed(
    model: Embedder,
    images: Iterable[ImageSource],
    *,
    keep: bool = True,
    look: Callable[[Image.Image], Any] | None = None,
    threads: int | None = None,
    what: str = "photographs",
    progress: Progress = no_progress,
) -> Features:
    """Return the embeddings of images: what the model's head gets of each.

    Args:
        model: in evaluation mode, on the device to use (`nbdt.network.encoder.to_device`).
        images: from `nbdt.images`; if they have a length, the progress shows it.
        keep: whether embeddings are read from and written to `cache_folder`. Their key is the
            network, its preprocessing and the content of the file. Both runtimes share them: the
            default model's differ by 7e-6 of values up to 3.4, torch's at two batch sizes by 3e-6.
        look: is called with each image, in a thread; its results are `seen`.
        threads: that read images; by default one a core.
        what: a noun for the images.
        progress: of the images.
    """
    store = FeatureStore(cache_folder() / embedding_hash(model)[:32] if keep else None)
    device = next(iter(model.backbone.state_dict().values())).device
    size = ON_CPU if device.type == "cpu" else ON_GPU
    waiting: dict[bytes, Pixels] = {}
    found: list[tuple[ImageSource, int, Any, bytes]] = []
    failed: list[str] = []

    def read(source: ImageSource) -> tuple[bytes, Pixels | None, Any]:
        key, decode = source.content()
        known = key in store.rows
        if known and not look:
            return key, None, None
        image = decode()
        pixels = None if known else np.array(model.preprocess.frame(image))
        return key, pixels, look(image) if look else None

    def compute() -> None:
        if waiting:
            rows = _pooled(model, np.stack([*waiting.values()]), device)
            store.add(dict(zip(waiting, rows, strict=True)))
            waiting.clear()

    count = len(images) if isinstance(images, Sized) else None
    shown = progress(images, count, what)
    try:
        each = read_each(read, shown, cores() if threads is None else threads)
        for place, (source, result) in enumerate(each):
            if isinstance(result, ImageError):
                failed.append(str(result))
                continue
            key, pixels, seen = result
            found.append((source, place, seen, key))
            if pixels is not None and key not in store.rows:
                waiting[key] = pixels
            if len(waiting) == size:
                compute()
        compute()
    finally:
        store.flush()
    if not found:
        return Features(torch.zeros(0, 0), (), (), (), (), failed)
    sources, places, seen, keys = zip(*found, strict=True)
    values = torch.from_numpy(np.stack([store.rows[key] for key in keys]))
    return Features(values, sources, places, keys, seen, failed)


def _pooled(model: Embedder, pixels: Pixels, device: torch.device) -> Row:
    """Return the embeddings, (images, features), of framed pixels (images, height, width, 3)."""
    backbone = cast(Any, model.backbone)
    with torch.inference_mode():
        images = model.preprocess.normalise(torch.from_numpy(pixels).to(device))
        rows = backbone.forward_head(feature_map(backbone, images), pre_logits=True)
        return cast(Row, rows.float().cpu().numpy())


# ---- kept on the disk -------------------------------------------------------------------------


def cache_folder() -> Path:
    """Return the folder of this user where embeddings are kept; deleting it loses only time."""
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(root).expanduser() / "nbdt" / "features"


class FeatureStore:
    """Embeddings of one network, by the SHA-256 of the image file.

    Each file of the folder is an array of "key" (32,) uint8 and "row" (features,) float32, read through
    a memory map. A damaged file is named in a warning; its embeddings are computed again.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder  # of the files; None keeps the embeddings only as long as the store
        self.rows: dict[bytes, Row] = {}  # by key
        self._new: list[bytes] = []
        for path in sorted(folder.glob("*.npy")) if folder else ():
            self._read(path)

    def _read(self, path: Path) -> None:
        try:
            table = np.load(path, mmap_mode="r", allow_pickle=False)
            keys = [key.tobytes() for key in table["key"]]
            self.rows |= zip(keys, table["row"], strict=True)
        except (OSError, ValueError, EOFError, IndexError) as error:
            log.warning("Ignored %s, kept embeddings that cannot be read: %s", path, error)

    def add(self, rows: dict[bytes, Row]) -> None:
        """Keep rows; they are written when there are `SHARD` of them."""
        self.rows |= rows
        self._new += rows
        if len(self._new) >= SHARD:
            self.flush()

    def flush(self) -> None:
        """Write what is new; a folder that cannot be written costs only time."""
        if self._new and self.folder:
            try:
                self._write(self.folder)
            except OSError as error:
                log.warning("Embeddings cannot be kept in %s: %s", self.folder, error)
            self._new.clear()

    def _write(self, folder: Path) -> None:
        keys = np.frombuffer(b"".join(self._new), np.uint8).reshape(-1, 32)
        values = np.stack([self.rows[key] for key in self._new])
        table = np.empty(len(keys), [("key", "u1", 32), ("row", "<f4", values.shape[1:])])
        table["key"], table["row"] = keys, values
        stream = io.BytesIO()
        np.save(stream, table, allow_pickle=False)
        folder.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256(keys.tobytes()).hexdigest()[:32]
        write_atomic(folder / f"{name}.npy", stream.getvalue())
