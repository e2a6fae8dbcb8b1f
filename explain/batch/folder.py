"""The folder of a batch: what it belongs to, which parts of it are done, when all of it is.

::

    batch.json               what it was started for; written first
    rows/part-000000.parquet   the rows of the first images; whole once it is there
    maps/part-000000.npz       their maps
    pages/part-000000/…        their pages or pictures, if drawn
    manifest.json            written last: its presence says that nothing is missing

A part is always the same run of inputs, whoever computes it: a later run, or another machine's shard.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from nbdt.errors import NBDTError
from nbdt.files import new_folder, write_atomic
from nbdt.images import ImageError

from .inputs import Input
from .rows import FILE_COLUMNS, META, maps_of, plain_path

FORMAT, VERSION = "nbdt-batch", 1
START, MANIFEST = "batch.json", "manifest.json"
KINDS = {"rows": ".parquet", "maps": ".npz", "pages": "", "pictures": ""}
_PART = re.compile(r"part-(\d{6,})(\.parquet|\.npz|)")


class BatchFolder:
    """Parts are written aside and renamed; the rows of a part come last.

    Args:
        root: the folder, which need not exist.
        kinds: what a part is made of, of `KINDS`.
    """

    def __init__(self, root: str | os.PathLike[str], kinds: Sequence[str] = ("rows",)) -> None:
        self.root = Path(root)
        self.kinds = tuple(kinds)

    def open(self, identity: Mapping[str, Any]) -> None:
        """Start the batch, or go on with it.

        Raises:
            NBDTError: the folder holds another batch, and what differs; or something else.
        """
        record = {"format": FORMAT, "version": VERSION, **identity}
        if (self.root / START).exists():
            _check_same(self.root, read_json(self.root / START), record)
            return
        taken = [name for name in (*KINDS, MANIFEST) if (self.root / name).exists()]
        if taken:
            raise NBDTError(
                f"{str(self.root)!r} holds {taken[0]!r} but no {START}: it is no batch. Name a new "
                "folder with --out."
            )
        self.root.mkdir(parents=True, exist_ok=True)
        write_atomic(self.root / START, json.dumps(record, indent=1) + "\n")

    # ---- parts -----------------------------------------------------------------------------

    def file(self, kind: str, part: int) -> Path:
        """Where a part's rows, maps, pages or pictures go."""
        return self.root / kind / f"part-{part:06d}{KINDS[kind]}"

    def is_done(self, part: int, inputs: Sequence[Input], *, every_byte: bool = False) -> bool:
        """Whether the part is there and its files are still what was explained.

        A file of the same length and date is taken for unchanged, unless `every_byte`; any other
        is read, and its hash decides.
        """
        if not all(self.file(kind, part).exists() for kind in self.kinds):
            return False
        try:
            stored = pq.read_table(self.file("rows", part), columns=list(FILE_COLUMNS))
        except (OSError, pa.ArrowException):
            return False
        columns = zip(*(stored[name].to_pylist() for name in FILE_COLUMNS), strict=True)
        rows = list(columns)
        return len(rows) == len(inputs) and all(
            _unchanged(source, *row, every_byte=every_byte)
            for source, row in zip(inputs, rows, strict=True)
        )

    def write(self, kind: str, part: int, data: bytes) -> None:
        """Rows or maps of a part."""
        target = self.file(kind, part)
        target.parent.mkdir(exist_ok=True)
        self._sweep(target)
        write_atomic(target, data)

    @property
    def draws(self) -> bool:
        """Whether photographs are needed."""
        return not {"pages", "pictures"}.isdisjoint(self.kinds)

    @contextmanager
    def drawing(self, part: int) -> Iterator[dict[str, Path]]:
        """Folders for a part's pages and pictures, by kind, which take the place of older ones."""
        kinds = [kind for kind in self.kinds if not KINDS[kind]]
        with ExitStack() as stack:
            yield {kind: stack.enter_context(self._drawn(kind, part)) for kind in kinds}

    @contextmanager
    def _drawn(self, kind: str, part: int) -> Iterator[Path]:
        target = self.file(kind, part)
        target.parent.mkdir(exist_ok=True)
        self._sweep(target)
        if target.exists():  # of a run that was killed before it wrote the rows
            shutil.rmtree(target)
        with new_folder(target) as aside:
            yield aside

    def forget(self, part: int) -> None:
        """Before a part is made again: neither its rows nor a manifest may claim to be true."""
        (self.root / MANIFEST).unlink(missing_ok=True)
        self.file("rows", part).unlink(missing_ok=True)

    def _sweep(self, target: Path) -> None:
        """What a killed process left beside it. Only of this file: others may be at work."""
        for left in target.parent.glob(f".{target.name}.*"):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)

    # ---- the end ---------------------------------------------------------------------------

    def parts(self) -> list[int]:
        """The parts whose rows are there, in order."""
        names = (_PART.fullmatch(entry.name) for entry in os.scandir(self._rows()))
        return sorted(int(match[1]) for match in names if match)

    def _rows(self) -> Path:
        (self.root / "rows").mkdir(exist_ok=True)
        return self.root / "rows"

    def finish(self, count: int, identity: Mapping[str, Any]) -> int:
        """Write the manifest if all `count` parts are there; the number that are missing.

        Parts beyond them belong to inputs that are no longer listed, and are removed.
        """
        there = self.parts()
        missing = count - len([part for part in there if part < count])
        if missing:
            return missing
        for part in there[count:]:
            self.forget(part)
            self.file("maps", part).unlink(missing_ok=True)
            for kind in ("pages", "pictures"):
                shutil.rmtree(self.file(kind, part), ignore_errors=True)
        facts = [self.facts(part) for part in range(count)]
        images, failed = (sum(fact[name] for fact in facts) for name in ("rows", "failed"))
        made = sorted({json.dumps(fact["made"], sort_keys=True) for fact in facts})
        record = {
            "format": FORMAT,
            "version": VERSION,
            **identity,
            "counts": {"images": images, "explained": images - failed, "failed": failed},
            "parts": count,
            "made": [json.loads(text) for text in made],
        }
        text = json.dumps(record, indent=1) + "\n"
        # Every part is there, so no process is still starting or about to finish.
        for name in (START, MANIFEST):
            self._sweep(self.root / name)
        if not (self.root / MANIFEST).exists() or (self.root / MANIFEST).read_text() != text:
            write_atomic(self.root / MANIFEST, text)
        return 0

    def facts(self, part: int) -> dict[str, Any]:
        """Counts of a part, and what made it."""
        found: dict[str, Any] = json.loads(pq.read_metadata(self.file("rows", part)).metadata[META])
        return found


def read_maps(folder: str | os.PathLike[str], row: int) -> NDArray[Any]:
    """The maps of one image of a batch: (decisions, height, width) float32, raw and signed.

    Args:
        folder: of the batch.
        row: the image's, from the column of that name.

    Raises:
        NBDTError: no batch, one without maps, or a row without maps.
    """
    batch = BatchFolder(folder)
    size = read_json(batch.root / START)["options"]["part"]
    file = batch.file("maps", row // size)
    try:
        return maps_of(file, row)
    except (OSError, KeyError, ValueError):
        raise NBDTError(
            f"{str(batch.root)!r} has no maps of row {row}: the image failed, is not done, or the "
            "batch was made without --maps npz."
        ) from None


def read_json(path: Path) -> dict[str, Any]:
    """A batch's own record. Raises NBDTError if it is not one that this release reads."""
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError:
        raise NBDTError(f"There is no batch at {str(path.parent)!r} ({path.name}).") from None
    except (ValueError, RecursionError) as error:
        raise NBDTError(f"{str(path)!r} is not JSON: {error}") from None
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise NBDTError(f'{str(path)!r} is not the record of a batch ("format": "{FORMAT}").')
    if record.get("version") != VERSION:
        raise NBDTError(
            f"{str(path)!r} has batch format version {record.get('version')!r}; this release reads "
            f"version {VERSION}. Upgrade nbdt-vision, or name a new folder."
        )
    return record


def _unchanged(
    source: Input,
    path: str,
    sha256: str | None,
    size: int | None,
    modified_ns: int | None,
    *,
    every_byte: bool,
) -> bool:
    if plain_path(source.reference) != path:
        return False
    if not every_byte and source.modified_ns == modified_ns and source.size in {None, size}:
        return True
    try:
        return source.sha256() == sha256
    except ImageError:
        return sha256 is None


def _check_same(root: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Raises NBDTError, saying what differs, if a batch was started for something else."""
    before, after = _flat(old), _flat(json.loads(json.dumps(new)))
    names = [name for name in {**after, **before} if before.get(name) != after.get(name)]
    if names:
        lines = "; ".join(
            f"{n}: {_show(before.get(n))} there, {_show(after.get(n))} now" for n in names
        )
        raise NBDTError(
            f"{str(root)!r} holds another batch ({lines}). Go on with the same command, or name a "
            "new folder with --out."
        )


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    options = record.get("options")
    plain = {name: value for name, value in record.items() if name != "options"}
    return {**plain, **(options if isinstance(options, dict) else {})}


def _show(value: object) -> str:
    """For a message: a hash by its beginning."""
    if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value):
        return f"{value[:12]}…"
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "…"
