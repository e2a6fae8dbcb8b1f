"""``nbdt memory convert``: make a memory of an evidence index that release 0.1 wrote.

An index is a folder of columns, one .npy array each, and a manifest that states their types and
shapes. Texts and pictures are an array of bytes and an array of their ends. Nothing is pickled. It
is hostile until checked.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from nbdt.errors import NBDTError
from nbdt.files import check_record, new_folder
from nbdt.hierarchies.library import MODEL_HELP, open_model
from nbdt.images.image import ImageError
from nbdt.images.sources import file_source
from nbdt.memory.memory import Memory
from nbdt.model.remember import check_network, make_memory

from .opening import Weights, many, report

DTYPES = {
    "embeddings": "<f2",
    "labels": "<i4",
    "references": "|u1",
    "reference_ends": "<i8",
    "thumbnails": "|u1",
    "thumbnail_ends": "<i8",
}
OBSOLETE = {"patches", "projection"}  # of regions; ignored
TEXTS = {"references": "reference_ends", "thumbnails": "thumbnail_ends"}
MAX_MANIFEST = 64 << 20  # bytes; 100,000 class names take about 3 MB

Columns = Mapping[str, NDArray[Any]]


def convert(
    index: Annotated[Path, typer.Argument(help="The folder of an evidence index.")],
    *,
    model: Annotated[str, typer.Option(help=MODEL_HELP)],
    out: Annotated[Path, typer.Option(metavar="M", help="A new folder for the memory.")],
    weights: Weights = None,
) -> None:
    """Make a memory of an evidence index of release 0.1; images marked as bad are struck out.

    The memory can be shown, not fitted: an index has the directions of embeddings only.
    """
    loaded = open_model(model, weights)
    manifest, columns = read_index(index)
    check_network(loaded, manifest, str(index))
    facts = {"directions_only": True, "index": index_hash(manifest)}
    with new_folder(out) as aside:
        memory = make_memory(loaded, aside, facts=facts)
        failed = _fill(memory, index, manifest, columns)
    typer.echo(f"written: {out} ({many(len(columns['labels']) - len(failed))})")
    report(failed)


def index_hash(manifest: Mapping[str, Any]) -> str:
    """Return the SHA-256 of how an index was built, which marks in a store name."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def read_index(folder: Path) -> tuple[dict[str, Any], Columns]:
    """Read the manifest and the columns of an index.

    Raises:
        NBDTError: no index, or one that is damaged or inconsistent.
    """
    path = folder / "manifest.json"
    if not path.is_file():
        raise NBDTError(f"There is no evidence index at {str(folder)!r}: it has no manifest.json.")
    try:
        if path.stat().st_size > MAX_MANIFEST:
            raise ValueError(f"larger than {MAX_MANIFEST:,} bytes")
        manifest = check_record(json.loads(path.read_bytes()), path, "nbdt-evidence", 1)
        columns = {
            name: _column(folder / f"{name}.npy", DTYPES[name], stated["shape"])
            for name, stated in manifest["columns"].items()
            if name not in OBSOLETE
        }
        _check(manifest, columns)
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        OSError,
        EOFError,
        RecursionError,
    ) as error:
        if isinstance(error, NBDTError):
            raise
        plain = f"{type(error).__name__}: {error}"[:300]
        raise NBDTError(
            f"The evidence index {str(folder)!r} is damaged ({plain!r}). Build a memory instead: nbdt "
            "memory build MODEL --data D --out M"
        ) from None
    return manifest, columns


def _column(path: Path, dtype: str, shape: object) -> NDArray[Any]:
    column: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    if (column.dtype.str, list(column.shape)) != (dtype, shape):
        raise ValueError(f"{path.name} is not what the manifest says")
    return column


def _check(manifest: Mapping[str, Any], columns: Columns) -> None:
    """Raise ValueError or KeyError where columns contradict each other."""
    count, classes = len(columns["labels"]), manifest["classes"]
    if not count or not all(isinstance(name, str) for name in classes):
        raise ValueError("no images, or no classes")
    if columns["embeddings"].ndim != 2 or len(columns["embeddings"]) != count:
        raise ValueError(f"embeddings not of {count:,} rows")
    if columns["labels"].min() < 0 or columns["labels"].max() >= len(classes):
        raise ValueError("labels outside the classes")
    for name, ends in TEXTS.items():
        if name in columns or name == "references":
            found, size = columns[ends], len(columns[name])
            if (
                len(found) != count
                or found[0] < 0
                or found[-1] != size
                or (np.diff(found) < 0).any()
            ):
                raise ValueError(f"{ends} that do not fit")


def _fill(memory: Memory, folder: Path, manifest: Mapping[str, Any], columns: Columns) -> list[str]:
    """Add the rows of an index; return a line for each that has a label of no node."""
    bad = _marked(folder / "marks.jsonl")
    records, kept, failed = dict[str, dict[str, Any]](), list[int](), list[str]()
    for row, label in enumerate(columns["labels"].tolist()):
        stored = _text(columns, "references", row).decode(errors="replace")
        reference = _original(manifest["data"], stored)
        try:
            node = memory.node_of(manifest["classes"][label])
        except NBDTError as error:
            failed.append(f"{stored!r}: {error}")
            continue
        key = hashlib.sha256(columns["embeddings"][row].tobytes() + stored.encode()).hexdigest()
        with suppress(ImageError):
            key = file_source(reference).sha256()
        if key in records:
            failed.append(f"{stored!r} is in the index twice.")
            continue
        picture = _text(columns, "thumbnails", row) if "thumbnails" in columns else None
        records[key] = {
            "id": key, "label": node, "reference": reference, "by": "", "why": bad.get(row, ""),
            "active": row not in bad, "picture": picture,
        }  # fmt: skip
        kept.append(row)
    memory.table.add([*records.values()], np.array(columns["embeddings"][kept]))
    return failed


def _original(data: str | None, reference: str) -> str:
    """Return the path of an image, which was stored relative to its folder or archive."""
    if data is None:
        return reference
    root = os.path.abspath(data)
    return f"{root}!{reference}" if os.path.isfile(root) else os.path.join(root, reference)


def _text(columns: Columns, name: str, row: int) -> bytes:
    ends = columns[TEXTS[name]]
    return columns[name][ends[row - 1] if row else 0 : ends[row]].tobytes()


def _marked(path: Path) -> dict[int, str]:
    """Return the rows whose last mark is bad, with the reason; a line that was cut off is none."""
    bad: dict[int, str] = {}
    for line in path.read_text().splitlines() if path.is_file() else ():
        with suppress(ValueError, KeyError, TypeError):
            mark = json.loads(line)
            for row in mark["rows"]:
                bad.pop(row, None)
                if mark["bad"]:
                    bad[row] = str(mark["why"] or "marked as bad")[:2000]
    return bad
