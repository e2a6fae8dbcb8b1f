"""``nbdt memory convert``: make a memory of an evidence index that release 0.1 wrote.

An index is a folder of columns, one .npy array each, and a manifest that states their shapes. Texts
and pictures are an array of bytes and an array of their ends. Nothing is pickled. It is hostile
until checked: the folder that it says its photographs are in is never read.
"""

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
from nbdt.files import NPZ_ERRORS, new_folder, read_record
from nbdt.hierarchies.library import MODEL_HELP, open_model
from nbdt.hierarchies.shell import Weights
from nbdt.images.dataset import iter_inputs
from nbdt.images.image import ImageError
from nbdt.memory.memory import Memory
from nbdt.model.remember import check_network, make_memory
from nbdt.progress import counted

from .opening import report

MAX_MANIFEST = 64 << 20  # bytes; 100,000 class names take about 3 MB

Rows = list[dict[str, Any]]


def convert(
    index: Annotated[Path, typer.Argument(help="The folder of an evidence index.")],
    *,
    model: Annotated[str, typer.Option(help=MODEL_HELP)],
    out: Annotated[Path, typer.Option(metavar="M", help="A new folder for the memory.")],
    data: Annotated[
        Path | None, typer.Option(help="The folder or archive that has the original photographs.")
    ] = None,
    weights: Weights = None,
) -> None:
    """Make a memory of an evidence index of release 0.1; images marked as bad are struck out.

    The memory can be shown, not fitted: an index has the directions of embeddings only.
    """
    loaded = open_model(model, weights)
    manifest, rows, embeddings = read_index(index)
    check_network(loaded, manifest, str(index))
    built = json.dumps(manifest, sort_keys=True).encode()  # marks in a store name it by this hash
    facts = {"directions_only": True, "index": hashlib.sha256(built).hexdigest()}
    with new_folder(out) as aside:
        memory = make_memory(loaded, aside, facts=facts)
        failed = _fill(memory, rows, embeddings, {} if data is None else _originals(data))
    typer.echo(f"written: {out} ({counted(len(rows) - len(failed), 'photograph')})")
    report(failed)


def read_index(folder: Path) -> tuple[dict[str, Any], Rows, NDArray[np.float16]]:
    """Read the manifest, the rows and the embeddings (rows, features) of an index.

    Raises NBDTError: no index, or one that is damaged or inconsistent.
    """
    path = folder / "manifest.json"
    if not path.is_file():
        raise NBDTError(f"There is no evidence index at {str(folder)!r}: it has no manifest.json.")
    try:
        if path.stat().st_size > MAX_MANIFEST:
            raise ValueError(f"larger than {MAX_MANIFEST:,} bytes")
        manifest = read_record(path.read_bytes(), path, "nbdt-evidence", 1)
        return manifest, *_read(folder, manifest)
    except NBDTError:
        raise
    except (*NPZ_ERRORS, TypeError, AttributeError, LookupError) as error:
        plain = f"{type(error).__name__}: {error}"[:300]
        raise NBDTError(
            f"The evidence index {str(folder)!r} is damaged ({plain!r}). Build a memory instead: nbdt "
            "memory build MODEL --data D --out M"
        ) from None


def _read(folder: Path, manifest: Mapping[str, Any]) -> tuple[Rows, NDArray[np.float16]]:
    """Raise ValueError or LookupError where columns contradict each other or the manifest."""
    stated, classes = manifest["columns"], manifest["classes"]

    def column(name: str, dtype: str) -> NDArray[Any]:
        found: NDArray[Any] = np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        if (found.dtype.str, [*found.shape]) != (dtype, stated[name]["shape"]):
            raise ValueError(f"{name}.npy is not what the manifest says")
        return found

    def texts(name: str) -> list[bytes]:
        values, ends = column(f"{name}s", "|u1"), column(f"{name}_ends", "<i8")
        if len(ends) != len(labels) or (np.diff([0, *ends, len(values)]) < 0).any():
            raise ValueError(f"{name}_ends that do not fit")
        return [part.tobytes() for part in np.split(values, ends)][: len(ends)]

    embeddings, labels = column("embeddings", "<f2"), column("labels", "<i4")
    if not len(labels) or not all(isinstance(name, str) for name in classes):
        raise ValueError("no images, or no classes")
    if embeddings.ndim != 2 or len(embeddings) != len(labels):
        raise ValueError(f"embeddings not of {len(labels):,} rows")
    if labels.min() < 0 or labels.max() >= len(classes):
        raise ValueError("labels outside the classes")
    pictures = texts("thumbnail") if "thumbnails" in stated else [None] * len(labels)
    bad = _marked(folder / "marks.jsonl")
    columns = zip(labels.tolist(), texts("reference"), pictures, strict=True)
    return [
        {"label": classes[label], "reference": reference.decode(errors="replace"), "by": "",
         "why": bad.get(row, ""), "active": row not in bad, "picture": picture}
        for row, (label, reference, picture) in enumerate(columns)
    ], np.array(embeddings)  # fmt: skip


def _fill(
    memory: Memory,
    rows: Rows,
    embeddings: NDArray[np.float16],
    originals: Mapping[str, tuple[str, str]],
) -> list[str]:
    """Add rows, with the contents of `originals`; return a line for each that cannot be."""
    records, kept, failed = dict[str, dict[str, Any]](), list[int](), list[str]()
    for row, record in enumerate(rows):
        stored = record["reference"]
        try:
            node = memory.node_of(record["label"])
        except NBDTError as error:
            failed.append(f"{stored!r}: {error}")
            continue
        own = embeddings[row].tobytes() + stored.encode(errors="replace")
        reference, key = originals.get(stored, (stored, hashlib.sha256(own).hexdigest()))
        if key in records:
            failed.append(f"{stored!r} is in the index twice.")
            continue
        records[key] = {**record, "id": key, "label": node, "reference": reference}
        kept.append(row)
    memory.table.add([*records.values()], embeddings[kept])
    return failed


def _originals(data: Path) -> dict[str, tuple[str, str]]:
    """Return the path and SHA-256 of each photograph by its path inside the data."""
    found = {}
    for source in iter_inputs([data]):
        inside = source.reference[len(os.fspath(data)) :].lstrip("/\\!")
        reference = os.path.abspath(data) + source.reference[len(os.fspath(data)) :]
        with suppress(ImageError):
            found[inside] = reference, source.sha256()
    return found


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
