"""Class logits of labelled photographs, computed once and kept for later runs."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
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
from nbdt.tree.hierarchy import Hierarchy

BATCH = 32
UNLABELLED = "no labels"


@dataclass(frozen=True, eq=False)
class Logits:
    """A model's class logits of labelled photographs; no hierarchy takes part.

    Attributes:
        files: (count) where each photograph came from.
        labels: (count,) int64, as in `nbdt.tree.labels`; −1 without labels.
        logits: (count, classes), float32.
        failed: one message for each photograph that could not be read.
        names: (count) the text of each label.
    """

    files: tuple[str, ...]
    labels: Tensor
    logits: Tensor
    failed: tuple[str, ...]
    names: tuple[str, ...] = ()

    def pick(self, chosen: Tensor) -> Logits:
        """Return those of some photographs, (count) bool."""
        rows = chosen.nonzero()[:, 0].tolist()
        files, names = (tuple(column[row] for row in rows) for column in (self.files, self.names))
        return Logits(files, self.labels[chosen], self.logits[chosen], self.failed, names)


def class_logits(
    model: NBDT,
    data: str | os.PathLike[str],
    *,
    split: str | None = None,
    hierarchy: Hierarchy | None = None,
    cache: str | os.PathLike[str] | None = None,
    progress: Progress = no_progress,
) -> Logits:
    """Compute the logits of every photograph in a folder of class folders, or in a tar archive.

    A photograph's label is its folder's name, or the WordNet id that its file name starts with
    where it is in no folder. It may be the name of a class or group, in any case and with spaces or
    underscores, or its id: see `labels_by_name`.

    Args:
        model: in evaluation mode.
        data: as `nbdt.images.dataset.iter_images` reads it.
        split: the folder of splits inside, "test" for instance.
        hierarchy: whose groups labels may be; by default the model's.
        cache: a folder where logits are kept, by model and by the data's names, sizes and times
            of change.
        progress: of the photographs.

    Raises:
        NBDTError: labels that are no class or group, no readable photograph, or unreadable
            data.
    """
    tree = hierarchy or model.hierarchy
    places = labels_by_name(tree)
    checked = partial(count_labelled, hierarchy=tree, data=os.fspath(data), groups=True)

    def compute() -> Logits:
        count = checked(source.class_label for source in iter_images(data, split))
        return _compute(model, progress(iter_images(data, split), count, "photographs"))

    found = _kept(_key(model, data, [split]), cache, compute)
    checked(found.names)  # they may have been kept under another tree
    labels = torch.tensor([places[normalised_name(name)] for name in found.names])
    return replace(found, labels=labels)


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
        return _compute(model, progress(iter_inputs([data]), None, "other photographs"))

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


def _compute(model: NBDT, sources: Iterable[ImageSource]) -> Logits:
    files: list[str] = []
    names: list[str] = []
    failed: list[str] = []
    parts: list[Tensor] = []
    inputs = ((source, model.preprocess(image)) for source, image in opened(sources, failed))
    for batch in parts_of(inputs, BATCH):
        images = torch.stack([image for _, image in batch])
        with torch.inference_mode():
            logits = model.logits(images.to(model.device)).float().cpu()
        parts.append(logits.clone())
        files += [source.reference for source, _ in batch]
        names += [source.class_label for source, _ in batch]
    if not parts:
        first = failed[0] if failed else "there is none"
        raise NBDTError(f"None of the photographs can be read; the first: {first}")
    logits, none = torch.cat(parts), torch.full((len(files),), -1)
    return Logits(tuple(files), none, logits, tuple(failed), tuple(names))


# ---- kept on the disk -------------------------------------------------------------------------


def _key(model: NBDT, data: str | os.PathLike[str], how: Sequence[str | None]) -> str:
    """Return a digest of what determines logits and labels."""
    tree = model.hierarchy
    wnids = tree.class_wnids
    facts = [embedding_hash(model), weights_hash(model.head.linear), tree.classes, wnids, how]
    digest = hashlib.sha256(json.dumps(facts).encode())
    for line in _traces(Path(data), how):
        digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()


def _traces(data: Path, how: Sequence[str | None]) -> Iterator[str]:
    """Yield name, size and time of change of each file: reading the content takes minutes."""
    paths = [data]
    if data.is_dir():
        walked = os.walk(data, followlinks=True)
        paths = [Path(folder, name) for folder, _, names in walked for name in names]
    elif is_table(data.name):
        sources = iter_inputs([data]) if UNLABELLED in how else iter_images(data, how[0])
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
            logits = file.get_tensor("logits")
        files, names = tuple(facts["files"]), tuple(facts["names"])
        if facts["key"] == key and len(files) == len(logits) == len(names):
            none = torch.full((len(files),), -1)
            return Logits(files, none, logits, tuple(facts["failed"]), names)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # it is computed and written again
    return None


def _write(path: Path, key: str, measured: Logits) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = {name: getattr(measured, name) for name in ("files", "failed", "names")}
    facts = json.dumps({"key": key, **texts})
    write_atomic(path, save({"logits": measured.logits}, metadata={"facts": facts}))
