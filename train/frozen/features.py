"""The features of a frozen network, kept on the disk by the content of each image file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from nbdt.errors import NBDTError
from nbdt.files import write_atomic
from nbdt.images.image import ImageError
from nbdt.images.sources import ImageSource
from nbdt.model.fingerprint import weights_hash
from nbdt.model.model import NBDT
from nbdt.network.preprocessing import Preprocessing
from nbdt.progress import Progress

from ..data.dataset import Images, Labelled
from ..data.inspection import in_parallel
from ..fit.measure import map_images

BATCH = 16  # images; the memory of larger batches goes back to the system, which takes time
SHARD = 512  # features in a file; an interrupted run loses fewer

Pixels = NDArray[np.uint8]


def cache_folder() -> Path:
    """Return the folder of this user where features are kept; deleting it loses only time."""
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(root).expanduser() / "nbdt" / "features"


class FeatureStore:
    """Features of one network at one preprocessing, by the SHA-256 of the image file.

    Each file of the folder has `keys` (count, 32) uint8 and `features` (count, width) float16. A
    damaged file is left out: its features are computed again.

    Args:
        root: the folder of all networks' features.
        backbone: without classifier, with the weights that it is used with.
        preprocessing: of its input.
    """

    def __init__(self, root: Path, backbone: nn.Module, preprocessing: Preprocessing) -> None:
        facts = [1, weights_hash(backbone), type(backbone).__name__, asdict(preprocessing)]
        self.folder = root / hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]
        self._rows: dict[bytes, Tensor] = {}
        self._new: dict[bytes, Tensor] = {}
        for path in sorted(self.folder.glob("*.safetensors")):
            try:
                stored = load_file(path)
                keys, features = stored["keys"].numpy(), stored["features"]
                self._rows |= {bytes(key): row for key, row in zip(keys, features, strict=True)}
            except (SafetensorError, OSError, KeyError, ValueError):
                continue

    def get(self, key: bytes) -> Tensor | None:
        """Return the features (width,) float16 of a file, None if they are not known."""
        return self._rows.get(key)

    def add(self, key: bytes, row: Tensor) -> None:
        """Keep features (width,); they are written when there are `SHARD` of them."""
        self._rows[key] = self._new[key] = row.half()
        if len(self._new) >= SHARD:
            self.flush()

    def flush(self) -> None:
        """Write what is new. Raises OSError if the folder cannot be written."""
        if not self._new:
            return
        keys = torch.tensor(np.frombuffer(b"".join(self._new), np.uint8).reshape(-1, 32))
        name = hashlib.sha256(keys.numpy().tobytes()).hexdigest()[:32]
        self.folder.mkdir(parents=True, exist_ok=True)
        features = torch.stack([*self._new.values()])
        content = save({"keys": keys, "features": features})
        write_atomic(self.folder / f"{name}.safetensors", content)
        self._new.clear()


def frozen_features(
    backbone: nn.Module,
    sources: Sequence[ImageSource],
    preprocessing: Preprocessing,
    store: FeatureStore,
    *,
    what: str = "features",
    threads: int = 1,
    progress: Progress,
) -> tuple[Tensor, dict[int, str]]:
    """Return the pooled features of images, those of the store without looking at the image.

    Args:
        backbone: of timm, without classifier, in evaluation mode.
        sources: the images.
        preprocessing: of the backbone.
        store: what is known already; new features are added to it.
        what: the noun for the progress.
        threads: that read images.
        progress: of the images.

    Returns:
        Features (readable images, width) float32, rounded to half precision, and for each
        unreadable image its index and a message.
    """
    device = next(backbone.parameters()).device
    keys: list[bytes] = []
    failed: dict[int, str] = {}
    waiting: dict[bytes, Pixels] = {}

    def opened(source: ImageSource) -> tuple[bytes, Pixels | None]:
        key = hashlib.sha256(source.read()).digest()
        known = store.get(key) is not None
        return key, None if known else np.array(preprocessing.frame(source.open()))

    def compute() -> None:
        batch = preprocessing.normalise(torch.from_numpy(np.stack([*waiting.values()])))
        with torch.inference_mode():
            rows = _pooled(backbone, batch.to(device))
        for key, row in zip(waiting, rows.clone(), strict=True):
            store.add(key, row)
        waiting.clear()

    found = in_parallel(sources, opened, threads)
    for index, (_, result) in enumerate(progress(found, len(sources), what)):
        if isinstance(result, ImageError):
            failed[index] = str(result)
            continue
        key, pixels = result
        keys.append(key)
        if pixels is not None:
            waiting[key] = pixels
        if len(waiting) == BATCH:
            compute()
    if waiting:
        compute()
    store.flush()
    rows = [store.get(key) for key in keys]
    return torch.stack([row for row in rows if row is not None]).float(), failed


def features_of(model: NBDT, data: Images, progress: Progress) -> Tensor:
    """Return a model's features of images, (count, features), on its device; files' are kept.

    Raises:
        NBDTError: an image that cannot be read.
    """
    if isinstance(data, Labelled):
        return map_images(model.features, data, model.preprocess, model.device)
    store = FeatureStore(cache_folder(), model.backbone, model.preprocess)
    found, failed = frozen_features(
        model.backbone, data.sources, model.preprocess, store, what="features", progress=progress
    )
    if failed:
        raise NBDTError(f"{next(iter(failed.values()))} Repair it or remove it.")
    return found.to(model.device)


def _pooled(backbone: Any, images: Tensor) -> Tensor:
    features: Tensor = backbone.forward_head(backbone.forward_features(images), pre_logits=True)
    return features.float().cpu()
