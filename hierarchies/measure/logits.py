"""Class logits of labelled photographs, computed once and kept for later runs."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from nbdt.errors import NBDTError
from nbdt.files import write_atomic
from nbdt.images.dataset import iter_images, iter_inputs, parts_of
from nbdt.images.sources import ImageSource, opened
from nbdt.images.tables import is_table
from nbdt.model.fingerprint import embedding_hash, weights_hash
from nbdt.model.model import NBDT
from nbdt.progress import Progress, no_progress
from nbdt.tree.class_names import count_labelled, labels_by_name, normalised_name

BATCH = 32
UNLABELLED = "no labels"


@dataclass(frozen=True, eq=False)
class Logits:
    """A model's class logits of labelled photographs; no hierarchy takes part.

    Attributes:
        files: (count) where each photograph came from.
        labels: (count,) int64, its class; −1 − node for a group; −1 without labels.
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
    groups: bool = False,
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
        groups: whether a label may also be a group of the hierarchy.
        cache: a folder where logits are kept, by model and by the data's names, sizes and times
            of change.
        progress: of the photographs.

    Raises:
        NBDTError: labels that are no classes of the model, no readable photograph, or unreadable
            data.
    """
    tree = model.hierarchy
    places = labels_by_name(tree, groups)

    def compute() -> Logits:
        labels = (source.class_label for source in iter_images(data, split))
        count = count_labelled(labels, tree, os.fspath(data), groups)
        return _compute(model, progress(iter_images(data, split), count, "photographs"), places)

    return _kept(_key(model, data, [split, tree.hash if groups else None]), cache, compute)


def unlabelled_logits(
    model: NBDT,
    data: str | os.PathLike[str],
    *,
    cache: str | os.PathLike[str] | None = None,
    progress: Progress = no_progress,
) -> Logits:
    """Compute the logits of every photograph in a folder, an archive or a list, whatever it shows.

    Args:
        model, cache, progress: as in `class_logits`.
        data: as `nbdt.images.dataset.iter_inputs` reads it.

    Raises:
        NBDTError: no readable photograph, or unreadable data.
    """

    def compute() -> Logits:
        return _compute(model, progress(iter_inputs([data]), None, "other photographs"), None)

    return _kept(_key(model, data, [None, UNLABELLED]), cache, compute)


def _kept(key: str, cache: str | os.PathLike[str] | None, compute: Callable[[], Logits]) -> Logits:
    """Return the logits that are in the cache; compute and keep them if they are not."""
    if cache is None:
        return compute()
    file = Path(cache) / f"logits-{key[:16]}.safetensors"
    if stored := _read(file, key):
        return stored
    measured = compute()
    _write(file, key, measured)
    return measured


def _compute(model: NBDT, sources: Iterable[ImageSource], places: dict[str, int] | None) -> Logits:
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
        labels += [
            places[normalised_name(source.class_label)] if places else -1 for source, _ in batch
        ]
    if not parts:
        first = failed[0] if failed else "there is none"
        raise NBDTError(f"None of the photographs can be read; the first: {first}")
    return Logits(tuple(files), torch.tensor(labels), torch.cat(parts), tuple(failed))


# ---- kept on the disk -------------------------------------------------------------------------


def _key(model: NBDT, data: str | os.PathLike[str], how: list[str | None]) -> str:
    """Return a digest of what determines logits and labels: the hierarchy only where groups do."""
    tree = model.hierarchy
    wnids = tree.class_wnids
    facts = [embedding_hash(model), weights_hash(model.head.linear), tree.classes, wnids, how]
    digest = hashlib.sha256(json.dumps(facts).encode())
    for line in _traces(Path(data), how):
        digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()


def _traces(data: Path, how: list[str | None]) -> Iterator[str]:
    """Yield name, size and time of change of each file: reading the content takes minutes."""
    paths = [data]
    if data.is_dir():
        walked = os.walk(data, followlinks=True)
        paths = [Path(folder, name) for folder, _, names in walked for name in names]
    elif is_table(data.name):
        sources = iter_images(data, how[0]) if how[1] != UNLABELLED else iter_inputs([data])
        paths += [Path(source.file) for source in sources if source.file]
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
