"""Save and load an explanation: a folder with JSON, exact maps, pictures and a page."""

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path as FilePath
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nbdt.errors import NBDTError, listed
from nbdt.files import NPZ_ERRORS, new_folder, read_record
from nbdt.images.image import ImageError, open_image, refuse, regular_file

from .explanation import Explanation
from .html import to_html
from .json_record import arrays, changed_name, from_record, to_record
from .pictures import png, sides
from .tiles import tiles

FORMAT = "nbdt-explanation"
VERSION = 1
MAX_MANIFEST = 2**20  # bytes
MAX_PIXELS = 50_000_000  # of all pictures together
MAX_FILE = 512 * 2**20  # bytes of all files together, and of all unpacked maps
THUMBNAIL = 160  # pixels of a training image in the folder

Files = dict[str, bytes]
_NEEDED = {"explanation.json", "maps.npz"}


def save(explanation: Explanation, folder: str | os.PathLike[str], *, grid: bool = False) -> None:
    """Write the explanation to a new folder, atomically.

    ``explanation.json`` holds everything but the maps (``maps.npz``, exact) and the pictures (PNG
    without metadata); ``index.html`` shows all of it offline; ``manifest.json`` is written last.

    With `grid`, the pictures of decisions have the cells that the network sees.

    Raises:
        NBDTError: the folder exists, or `made` is not plain data.
        OSError: it cannot be written.
    """
    content = _content(explanation, grid)
    files = {name: _facts(data) for name, data in content.items()}
    manifest = _json({"format": FORMAT, "version": VERSION, "files": files})
    with new_folder(folder) as aside:
        for name, data in [*content.items(), ("manifest.json", manifest)]:
            (aside / name).write_bytes(data)


def load(folder: str | os.PathLike[str]) -> Explanation:
    """Read what `save` wrote: the same path, photograph and, bit for bit, maps.

    Raises NBDTError: no such folder, a newer version, or a file that is missing or damaged (named).
    """
    root = FilePath(folder)
    if not (root / "manifest.json").is_file():
        raise NBDTError(
            f"There is no saved explanation at {os.fspath(folder)!r}: expected a folder with "
            "manifest.json, as Explanation.save writes it."
        )
    content = _checked_files(root)
    where = root / "explanation.json"
    record = read_record(content["explanation.json"], where, FORMAT, VERSION)
    maps = _read_maps(content["maps.npz"], root / "maps.npz")

    left = MAX_PIXELS

    @cache
    def picture(name: str) -> Image.Image:
        nonlocal left
        image = open_image(content[name], name=str(root / name), max_pixels=left)
        left = max(1, left - image.width * image.height)
        return image

    try:
        return from_record(record, maps, picture)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        kind = "" if isinstance(error, NBDTError) else f"{type(error).__name__} "
        raise _damaged(where, f"{kind}{error}") from None


# ---- writing -----------------------------------------------------------------------------------


def _content(explanation: Explanation, grid: bool) -> Files:
    """Every file but the manifest."""
    explanation, pictures = _with_thumbnails(explanation)
    if explanation.photo is not None:
        pictures["photo.png"] = explanation.photo
        for tile in tiles(explanation):
            names = (f"decision-{tile.shown + 1}{kind}.png" for kind in ("", "-rival"))
            shown = (image for _, image in sides(explanation, tile, grid=grid))
            pictures |= dict(zip(names, shown, strict=False))
    for found in explanation.counterfactuals:
        if found.picture is not None:
            pictures[changed_name(found.decision)] = found.picture
    record, maps = to_record(explanation, pictures), io.BytesIO()
    np.savez_compressed(maps, **cast(Any, arrays(explanation)))
    return {
        "explanation.json": _json({"format": FORMAT, "version": VERSION, **record}),
        "maps.npz": maps.getvalue(),
        **{name: png(image) for name, image in pictures.items()},
        "index.html": to_html(explanation, grid=grid).encode("utf-8", "backslashreplace"),
    }


def _with_thumbnails(explanation: Explanation) -> tuple[Explanation, dict[str, Image.Image]]:
    """The explanation with evidence that does not need its originals, and its pictures by name."""
    pictures: dict[str, Image.Image] = {}

    def copied(item: Any, name: str) -> Any:
        try:
            image = item.open().convert("RGB")
        except ImageError as error:  # its original is gone: keep the facts without the picture
            return replace(item, open=partial(refuse, error))
        image.thumbnail((THUMBNAIL, THUMBNAIL))
        pictures[name] = image
        return replace(item, open=image.copy)

    both = explanation.evidence, explanation.contributions
    evidence, sums = (
        tuple(replace(one, **one.map(i, copied)) for i, one in enumerate(cast(Any, found)))
        for found in both
    )
    return replace(explanation, evidence=evidence, contributions=sums), pictures


def _json(data: Mapping[str, Any]) -> bytes:
    try:
        return (json.dumps(data, indent=1, allow_nan=False) + "\n").encode()
    except (TypeError, ValueError) as error:
        raise NBDTError(
            f"The explanation cannot be written as JSON ({error}); `made` holds plain data only: "
            "text, finite numbers, lists and mappings."
        ) from None


def _facts(data: bytes) -> dict[str, Any]:
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


# ---- reading -----------------------------------------------------------------------------------


def _damaged(path: FilePath, what: str) -> NBDTError:
    return NBDTError(f"{str(path)!r} is damaged: {what}. Copy or save the explanation again.")


def _read(path: FilePath, limit: int = MAX_FILE) -> bytes:
    """The bytes of a regular file that is no larger than the limit."""
    with regular_file(path, str(path)) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise _damaged(path, f"more than {limit:,} bytes are left for it")
    return data


def _checked_files(root: FilePath) -> Files:
    """Every file that the manifest names, its size and hash checked."""
    where = root / "manifest.json"
    listed_files = read_record(_read(where, MAX_MANIFEST), where, FORMAT, VERSION).get("files")
    if not isinstance(listed_files, dict) or not listed_files.keys() >= _NEEDED:
        raise _damaged(where, f'"files" does not name {listed(sorted(_NEEDED))}')
    content, rest = Files(), MAX_FILE
    for name, facts in listed_files.items():
        plain_name = FilePath(name).name == name not in {"", ".."} and "\\" not in name
        if not plain_name or not isinstance(facts, dict):
            raise _damaged(where, f"{name!r} is not a file of this folder")
        content[name] = data = _read(root / name, rest)
        rest -= len(data)
        if {**facts, **_facts(data)} != facts:
            raise _damaged(root / name, "its size or SHA-256 is not the manifest's")
    return content


def _read_maps(data: bytes, path: FilePath) -> dict[str, NDArray[np.float32]]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > MAX_FILE:
            raise _damaged(path, f"its maps would take {unpacked:,} bytes")
        with np.load(io.BytesIO(data), allow_pickle=False) as found:
            maps = {name: found[name] for name in found.files}
    except NBDTError:
        raise
    except NPZ_ERRORS as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from None
    for name, values in maps.items():
        dimensions = 3 if name.startswith(("children", "below")) else 2
        if not (values.dtype == np.float32 and values.ndim == dimensions and values.size):
            raise _damaged(path, f"{name!r} is not a float32 map")
    return maps
