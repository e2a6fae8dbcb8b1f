"""Corrections as files: JSON lines, and the photographs where training finds them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from nbdt.correction import Correction, picture_hash, write_corrections
from nbdt.files import write_atomic
from nbdt.images.dataset import iter_inputs
from nbdt.images.image import ImageError

from ..store import Store
from ..store.photographs import encoded, suffix
from ..store.records import SavedCorrection
from ..visitor import MAX_SIDE

MAX_FOUND = 256 << 20  # bytes of one photograph, written without loss


def export(
    store: Store,
    saved: Sequence[SavedCorrection],
    out: Path,
    photos: Path,
    search: Sequence[str] = (),
) -> dict[int, Correction]:
    """Write corrections as `nbdt train --corrections` reads them, and their photographs.

    A correction's reference becomes the kept copy's path; without a copy it stays as it was, unless
    the photograph is found below `search` by its hash.

    Args:
        store: whose they are.
        saved: which.
        out: a file of JSON lines, replaced if it exists.
        photos: a folder for photographs, made if need be.
        search: files, folders and archives in which people's photographs may lie.

    Returns:
        What was written, by number.

    Raises:
        StoreError: the store cannot be read. OSError: a file cannot be written.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    places = _kept(store, saved, photos)
    wanted = {one.correction.image for one in saved if _is_lost(one, places)}
    places |= _found(wanted, search, photos)
    written = {one.id: _placed(one.correction, places, out.parent) for one in saved}
    write_corrections(written.values(), out, append=False)
    return written


def _kept(store: Store, saved: Iterable[SavedCorrection], photos: Path) -> dict[str, Path]:
    """Where each kept photograph lies now, by hash."""
    places: dict[str, Path] = {}
    for one in saved:
        image = one.correction.image
        if one.photograph is not None and image not in places:
            data = store.photograph_bytes(one.photograph)
            places[image] = _write(photos, image, data)
    return places


def _is_lost(one: SavedCorrection, places: Mapping[str, Path]) -> bool:
    return one.correction.image not in places and not one.correction.reference


def _found(wanted: set[str], search: Sequence[str], photos: Path) -> dict[str, Path]:
    """Photographs known by their hash, as the page would open them; each is written anew."""
    places: dict[str, Path] = {}
    if not wanted or not search:
        return places
    for source in iter_inputs(list(search), max_side=MAX_SIDE):
        try:
            picture = source.open()
        except ImageError:
            continue  # whatever else lies there
        image = picture_hash(picture)
        if image in wanted - places.keys():
            places[image] = _write(photos, image, encoded(picture, image, MAX_FOUND))
        if len(places) == len(wanted):
            break
    return places


def _write(photos: Path, image: str, data: bytes) -> Path:
    photos.mkdir(parents=True, exist_ok=True, mode=0o700)
    place = photos / f"{image}{suffix(data)}"
    write_atomic(place, data)
    return place


def _placed(correction: Correction, places: Mapping[str, Path], root: Path) -> Correction:
    """With a reference that starts at the folder of the JSON lines, where training looks."""
    if correction.image not in places:
        return correction
    place, base = places[correction.image].absolute(), root.absolute()
    inside = place.is_relative_to(base)
    reference = place.relative_to(base).as_posix() if inside else os.fspath(place)
    return replace(correction, reference=reference)
