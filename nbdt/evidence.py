"""The files of an evidence index: the embeddings of labelled images, one .npy array a column.

Columns are read through memory maps. Nothing is pickled: texts and thumbnails are an array of bytes
and an array of their ends. The manifest is written last and states the type and shape of each column.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from . import __version__
from .errors import NBDTError
from .files import check_record, new_folder, write_atomic
from .model.features import Features
from .model.fingerprint import embedding_hash
from .model.model import NBDT

FORMAT = "nbdt-evidence"
VERSION = 1
MANIFEST = "manifest.json"
MAX_MANIFEST = 64 << 20  # bytes; 100,000 class names take about 3 MB
DTYPES = {
    "embeddings": "<f2",
    "labels": "<i4",
    "references": "|u1",
    "reference_ends": "<i8",
    "thumbnails": "|u1",
    "thumbnail_ends": "<i8",
}
OBSOLETE = {"patches", "projection"}  # stored regions, which 0.1.0 could write; ignored
REQUIRED = ("embeddings", "labels", "references", "reference_ends")

Column = NDArray[Any]


class EvidenceError(NBDTError):
    """An evidence index that cannot be built, read or used with this model."""


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read and check the manifest of an index.

    Raises:
        EvidenceError: no index, a damaged manifest, or one written by a newer release.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise EvidenceError(
            f"There is no evidence index at {os.fspath(folder)!r} (a folder with {MANIFEST}); "
            "make one with: nbdt evidence build MODEL --data TRAIN"
        )
    try:
        if path.stat().st_size > MAX_MANIFEST:
            raise ValueError(f"larger than {MAX_MANIFEST:,} bytes")
        manifest = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from None
    manifest = check_record(manifest, path, FORMAT, VERSION, EvidenceError)
    expected = {"embedding_hash": str, "classes": list, "columns": dict, "preprocessing": dict,
                "count": int}  # fmt: skip
    wrong = [key for key, kind in expected.items() if not isinstance(manifest.get(key), kind)]
    if wrong or not all(isinstance(name, str) for name in manifest["classes"]):
        raise _damaged(path, f"missing or wrong: {', '.join(wrong or ['classes'])}")
    return manifest


def read_columns(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Column]:
    """Open the columns as memory maps and check them against the manifest.

    Raises:
        EvidenceError: a file that is missing, cut short, of another shape, or inconsistent.
    """
    columns = {}
    for name, stated in manifest["columns"].items():
        if name in OBSOLETE:
            continue
        path = folder / f"{name}.npy"
        if name not in DTYPES or not isinstance(stated, dict):
            raise _damaged(folder / MANIFEST, f"an unknown column {name!r}")
        try:
            column = columns[name] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise _damaged(path, f"{type(error).__name__}: {error}") from None
        actual = {"dtype": column.dtype.str, "shape": list(column.shape)}
        if actual != {"dtype": DTYPES[name], "shape": stated.get("shape")}:
            raise _damaged(path, f"{actual}, where the manifest says {stated}")
    _check(folder, columns, manifest)
    return columns


def _check(folder: Path, columns: Mapping[str, Column], manifest: Mapping[str, Any]) -> None:
    """Refuse columns that contradict each other."""
    missing = [name for name in REQUIRED if name not in columns]
    pair = {"thumbnails", "thumbnail_ends"}  # both or neither
    missing += [name for name in pair if name not in columns and pair & {*columns}]
    if missing:
        raise _damaged(folder, f"without {', '.join(missing)}")
    count, labels = manifest["count"], columns["labels"]
    if count < 1:
        raise EvidenceError(f"The evidence index {str(folder)!r} is empty; build it again.")
    rows = [n for n in columns if n not in {"references", "thumbnails"}]
    uneven = [name for name in rows if len(columns[name]) != count]
    if uneven or columns["embeddings"].ndim != 2:
        raise _damaged(folder, f"{', '.join(uneven or ['embeddings'])} not of {count:,} rows")
    if labels.min() < 0 or labels.max() >= len(manifest["classes"]):
        raise _damaged(folder / "labels.npy", "labels outside the classes")
    for name, ends in (("references", "reference_ends"), ("thumbnails", "thumbnail_ends")):
        if name in columns:
            _check_ends(folder / f"{ends}.npy", columns[ends], len(columns[name]))


def _check_ends(path: Path, ends: Column, size: int) -> None:
    if ends[0] < 0 or ends[-1] != size or (np.diff(ends) < 0).any():
        raise _damaged(path, "ends that do not fit their bytes")


def blob(items: Column, ends: Column, row: int) -> bytes:
    """Return byte string `row` that `_blobs` joined."""
    return items[ends[row - 1] if row else 0 : ends[row]].tobytes()


def _damaged(path: Path, what: str) -> EvidenceError:
    plain = "".join(c if c.isprintable() else repr(c)[1:-1] for c in what)[:300]
    return EvidenceError(f"{str(path)!r} is damaged ({plain}); build the index again.")


# ---- written ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Index:
    """What an evidence index consists of."""

    columns: dict[str, Column]  # arrays by name, with the types of `DTYPES`
    manifest: dict[str, Any]  # what they are of
    failed: Sequence[str] = ()  # messages of images that could not be read


def make_index(
    model: NBDT,
    found: Features,
    labels: Tensor,
    data: str | None,
    folder: Path | None,
) -> Index:
    """Make the index of images whose embeddings are known.

    Args:
        model: whose backbone gave the embeddings.
        found: the embeddings; thumbnails are what was `seen`.
        labels: (images,) class indices.
        data: the folder or archive that the images are in, if they are in one.
        folder: must not exist; it is written atomically. None keeps the index in memory.

    Raises:
        EvidenceError: no image, or embeddings that are not finite.
        NBDTError: the folder exists.
    """
    if not found.sources:
        count, first = len(found.failed), found.failed[0] if found.failed else "there is none"
        raise EvidenceError(f"None of the {count} images can be read; the first: {first}")
    references = [_relative(source.reference, data) for source in found.sources]
    names = [name.encode(errors="surrogateescape") for name in references]
    columns = {"embeddings": unit_embeddings(found.values), "labels": labels.numpy()}
    columns["references"], columns["reference_ends"] = _blobs(names)
    if any(found.seen):
        columns["thumbnails"], columns["thumbnail_ends"] = _blobs(found.seen)
    columns = {name: column.astype(DTYPES[name]) for name, column in columns.items()}
    manifest = _manifest(model, columns, len(found.failed), data and os.path.abspath(data))
    if folder is None:
        return Index(columns, manifest, found.failed)
    with new_folder(folder) as aside:
        for name, column in columns.items():
            np.save(aside / f"{name}.npy", column, allow_pickle=False)
        write_atomic(aside / MANIFEST, json.dumps(manifest, indent=1) + "\n")
    return Index(read_columns(folder, manifest), manifest, found.failed)


def _blobs(items: Sequence[bytes]) -> tuple[Column, Column]:
    """Join byte strings; return the bytes and where each string ends."""
    return np.frombuffer(b"".join(items), np.uint8), np.cumsum([len(item) for item in items])


def unit_embeddings(pooled: Tensor) -> Column:
    """Scale pooled features (batch, features) to float32 of unit length."""
    units: Column = torch.nn.functional.normalize(pooled.detach().float(), dim=1).cpu().numpy()
    if not np.isfinite(units).all():
        raise EvidenceError("The model gives features that are not finite numbers.")
    return units


def _relative(reference: str, root: str | None) -> str:
    """Make a reference relative to the data."""
    if root is None:
        return reference
    if reference.startswith(root + "!"):
        return reference[len(root) + 1 :]
    return Path(os.path.relpath(reference, root)).as_posix()


def _manifest(
    model: NBDT, columns: Mapping[str, Column], failed: int, data: str | None
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "version": VERSION,
        "embedding_hash": embedding_hash(model),
        "architecture": model.architecture,
        "preprocessing": asdict(model.preprocess),
        "classes": list(model.hierarchy.classes),
        "count": len(columns["labels"]),
        "failed": failed,
        "data": data,
        "columns": {
            name: {"dtype": DTYPES[name], "shape": list(column.shape)}
            for name, column in columns.items()
        },
        "versions": {
            "nbdt": __version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }
