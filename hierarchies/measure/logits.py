"""Class logits of labelled photographs, computed once and kept for later runs."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from nbdt.errors import NBDTError
from nbdt.files import write_atomic
from nbdt.images.dataset import iter_images, parts_of
from nbdt.images.sources import ImageSource, opened
from nbdt.images.tables import is_table
from nbdt.model.fingerprint import embedding_hash, weights_hash
from nbdt.model.model import NBDT
from nbdt.progress import Progress, no_progress
from nbdt.tree.class_names import class_of_name, count_labelled, normalised_name

BATCH = 32


@dataclass(frozen=True, eq=False)
class Logits:
    """A model's class logits of labelled photographs; no hierarchy takes part.

    Attributes:
        files: (count) where each photograph came from.
        labels: (count,) int64, its class.
        logits: (count, classes), float32.
        failed: one message for each photograph that could not be read.
    """

    files: tuple[str, ...]
    labels: Tensor
    logits: Tensor
    failed: tuple[str, ...]


def class_logits(
    model: NBDT,
    data: str | os.PathLike[str],
    *,
    split: str | None = None,
    cache: str | os.PathLike[str] | None = None,
    progress: Progress = no_progress,
) -> Logits:
    """Compute the logits of every photograph in a folder of class folders, or in a tar archive.

    A photograph's class is its folder's name, or the WordNet id that its file name starts with
    where it is in no folder. It may be the class's name, in any case and with spaces or
    underscores, or its WordNet id.

    Args:
        model: in evaluation mode.
        data: as `nbdt.images.dataset.iter_images` reads it.
        split: the folder of splits inside, "test" for instance.
        cache: a folder where logits are kept, by model and by the data's names, sizes and times
            of change.
        progress: of the photographs.

    Raises:
        NBDTError: labels that are no classes of the model, no readable photograph, or unreadable
            data.
    """
    key = _key(model, data, split)
    file = Path(cache) / f"logits-{key[:16]}.safetensors" if cache is not None else None
    if file and (stored := _read(file, key)):
        return stored
    places = class_of_name(model.hierarchy)
    labels = (source.class_label for source in iter_images(data, split))
    count = count_labelled(labels, model.hierarchy, os.fspath(data))
    measured = _compute(model, progress(iter_images(data, split), count, "photographs"), places)
    if file:
        _write(file, key, measured)
    return measured


def _compute(model: NBDT, sources: Iterable[ImageSource], places: dict[str, int]) -> Logits:
    files: list[str] = []
    labels: list[int] = []
    failed: list[str] = []
    parts: list[Tensor] = []
    inputs = ((source, model.preprocess(image)) for source, image in opened(sources, failed))
    for batch in parts_of(inputs, BATCH):
        images = torch.stack([image for _, image in batch])
        with torch.inference_mode():
            logits = model.logits(images.to(model.device)).float().cpu()
        parts.append(logits.clone())
        files += [source.reference for source, _ in batch]
        labels += [places[normalised_name(source.class_label)] for source, _ in batch]
    if not parts:
        raise NBDTError(f"None of the photographs can be read; the first: {failed[0]}")
    return Logits(tuple(files), torch.tensor(labels), torch.cat(parts), tuple(failed))


# ---- kept on the disk -------------------------------------------------------------------------


def _key(model: NBDT, data: str | os.PathLike[str], split: str | None) -> str:
    """Return a digest of everything that determines the logits; the hierarchy does not."""
    tree = model.hierarchy
    wnids = tree.class_wnids
    facts = [embedding_hash(model), weights_hash(model.head.linear), tree.classes, wnids, split]
    digest = hashlib.sha256(json.dumps(facts).encode())
    for line in _traces(Path(data), split):
        digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()


def _traces(data: Path, split: str | None) -> Iterator[str]:
    """Yield name, size and time of change of each file: reading the content takes minutes."""
    paths = [data]
    if data.is_dir():
        walked = os.walk(data, followlinks=True)
        paths = [Path(folder, name) for folder, _, names in walked for name in names]
    elif is_table(data.name):
        paths += [Path(source.file) for source in iter_images(data, split)]
    for path in sorted(paths):
        if path.is_file():
            status = path.stat()
            yield f"{os.path.abspath(path)}\0{status.st_size}\0{status.st_mtime_ns}\n"


def _read(path: Path, key: str) -> Logits | None:
    """Read what `_write` wrote; None if it is missing, damaged or belongs to another key."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {}).get("facts", "{}"))
            logits, labels = file.get_tensor("logits"), file.get_tensor("labels")
        if facts["key"] == key and len(facts["files"]) == len(logits) == len(labels):
            return Logits(tuple(facts["files"]), labels, logits, tuple(facts["failed"]))
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # it is computed and written again
    return None


def _write(path: Path, key: str, measured: Logits) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = json.dumps({"key": key, "files": measured.files, "failed": measured.failed})
    tensors = {"logits": measured.logits, "labels": measured.labels}
    write_atomic(path, save(tensors, metadata={"facts": facts}))
