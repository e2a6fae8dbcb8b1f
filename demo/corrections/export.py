"""Corrections as files: JSON lines, and the photographs where training finds them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from nbdt.correction import Correction, write_corrections
from nbdt.files import write_atomic

from ..store import Store
from ..store.schema import SavedCorrection
from ..store.store import suffix


def export(
    store: Store,
    saved: Sequence[SavedCorrection],
    out: Path,
    photos: Path,
) -> dict[int, Correction]:
    """Write corrections as `nbdt train --corrections` reads them, and their photographs.

    A correction's reference becomes the path of the kept copy. Without a copy it does not change.

    Args:
        store: has the photographs.
        saved: the corrections.
        out: a file of JSON lines, replaced if it exists.
        photos: a folder for photographs; it is made if needed.

    Returns:
        The corrections as written, by number.

    Raises StoreError: the store cannot be read. OSError: a file cannot be written.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    copies = {item.correction.image: item.photograph for item in saved if item.photograph}
    paths = {
        image: _write(photos, image, store.photograph_bytes(copy)) for image, copy in copies.items()
    }
    written = {item.id: _with_path(item.correction, paths, out.parent) for item in saved}
    write_corrections(written.values(), out)
    return written


def _write(photos: Path, image: str, data: bytes) -> Path:
    photos.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = photos / f"{image}{suffix(data)}"
    write_atomic(path, data)
    return path


def _with_path(correction: Correction, paths: Mapping[str, Path], root: Path) -> Correction:
    """Return a correction whose reference starts at the folder of the JSON lines, if it can."""
    if correction.image not in paths:
        return correction
    path, base = paths[correction.image].absolute(), root.absolute()
    is_inside = path.is_relative_to(base)
    reference = path.relative_to(base).as_posix() if is_inside else os.fspath(path)
    return replace(correction, reference=reference)
