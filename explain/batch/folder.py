"""The folder of a batch: what it belongs to, which parts of it are done, when all of it is.

::

    batch.json               what it was started for; written first
    rows/part-000000.parquet   the rows of the first images; whole once it is there
    maps/part-000000.npz       their maps
    pages/part-000000/…        their pages or pictures, if drawn
    manifest.json            its presence says that nothing is missing
    index.html               leads to the pages, if drawn; written last

A part is always the same run of inputs, whoever computes it: a later run, or another machine's shard.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from nbdt.errors import NBDTError
from nbdt.files import NPZ_ERRORS, check_record
from nbdt.images.image import ImageError
from nbdt.images.inputs import START, Input
from nbdt.storage import Place, is_uri, place

from .rows import FILE_COLUMNS, META, maps_of, plain_path

FORMAT, VERSION = "nbdt-batch", 1
MANIFEST, OVERVIEW = "manifest.json", "index.html"
KINDS = {"rows": ".parquet", "maps": ".npz", "pages": "", "pictures": ""}
DRAWN = ("pages", "pictures")
AT_ONCE, PARTS_AT_ONCE, ATTEMPTS = 16, 4096, 3
_LEFT = re.compile(r"\.(part-|batch\.json\.|manifest\.json\.)")
_PART = re.compile(r"part-(\d{6,})(\.parquet|\.npz|)")


class BatchFolder:
    """What is written is whole or not there; the rows of a part come last.

    Args:
        where: the folder, which need not exist: a path, a URI or a `Place`.
        kinds: what a part is made of, of `KINDS`.
    """

    def __init__(
        self, where: str | os.PathLike[str] | Place, kinds: Sequence[str] = ("rows",)
    ) -> None:
        self.place = place(where)
        self.kinds = tuple(kinds)

    def open(self, identity: Mapping[str, Any]) -> None:
        """Start the batch, or go on with it.

        Raises:
            NBDTError: the folder holds another batch, and what differs; or something else.
        """
        record = _record(identity)
        if self.place.exists(START):
            _check_same(self.place, read_json(self.place, START), record)
            return
        taken = [name for name in (*KINDS, *self._claims) if self.place.exists(name)]
        if taken:
            raise NBDTError(
                f"{str(self.place)!r} holds {taken[0]!r} but no {START}: it is no batch. Name a new "
                "folder with --out."
            )
        self.place.write(START, _text(record))

    def check(self, identity: Mapping[str, Any]) -> None:
        """Raises NBDTError unless the batch is there, and this one: nodes may have other disks."""
        try:
            _check_same(self.place, read_json(self.place, START), _record(identity))
        except NBDTError as error:
            raise NBDTError(
                f"{error} All nodes must reach it: name a folder of a disk that they share, or a "
                "URI, such as s3://…"
            ) from None

    @property
    def _claims(self) -> tuple[str, ...]:
        """What says that all parts are there; an `OVERVIEW` only where it is ours."""
        return (OVERVIEW, MANIFEST) if "pages" in self.kinds else (MANIFEST,)

    # ---- parts -----------------------------------------------------------------------------

    def is_done(self, part: int, inputs: Sequence[Input], *, every_byte: bool = False) -> bool:
        """Whether the part is there and its files are still what was explained.

        A file of the same length and date is taken for unchanged, unless `every_byte`; any other
        is read, and its hash decides.
        """
        if not all(self._has(kind, part) for kind in self.kinds):
            return False
        try:
            with self.place.open(part_name("rows", part)) as file:
                stored = pq.read_table(file, columns=list(FILE_COLUMNS))
        except (OSError, pa.ArrowException):
            return False
        rows = list(zip(*(stored[name].to_pylist() for name in FILE_COLUMNS), strict=True))
        if len(rows) != len(inputs):
            return False
        same = partial(_unchanged, every_byte=every_byte)
        if not any(is_uri(source.file) for source in inputs):
            return all(map(same, inputs, rows))
        with ThreadPoolExecutor(AT_ONCE) as pool:  # a store takes its time for each
            return all(pool.map(same, inputs, rows))

    def _has(self, kind: str, part: int) -> bool:
        if self.place.exists(part_name(kind, part)):
            return True
        # An object store has no empty folder: where nothing could be drawn, there is none.
        return kind in DRAWN and self._has("rows", part) and self._all_failed(part)

    def _all_failed(self, part: int) -> bool:
        facts = self.facts(part)
        return bool(facts["failed"] == facts["rows"])

    def write(self, kind: str, part: int, data: bytes) -> None:
        """Rows or maps of a part."""
        self.place.write(part_name(kind, part), data)

    @property
    def draws(self) -> bool:
        """Whether photographs are needed."""
        return not set(DRAWN).isdisjoint(self.kinds)

    @contextmanager
    def drawing(self, part: int) -> Iterator[dict[str, Path]]:
        """Folders for a part's pages and pictures, by kind, which take the place of older ones."""
        with ExitStack() as stack:
            yield {
                kind: stack.enter_context(self.place.folder(part_name(kind, part)))
                for kind in self.kinds
                if kind in DRAWN
            }

    def forget(self, part: int) -> None:
        """Before a part is made again: nothing may claim that it is done."""
        for claim in (*self._claims, part_name("rows", part)):
            self.place.remove(claim)

    def rows(self, part: int) -> list[dict[str, Any]]:
        """All rows of a part that is done."""
        with self.place.open(part_name("rows", part)) as file:
            found: list[dict[str, Any]] = pq.read_table(file).to_pylist()
        return found

    def facts(self, part: int) -> dict[str, Any]:
        """Counts of a part, and what made it."""
        with self.place.open(part_name("rows", part)) as file:
            found: dict[str, Any] = json.loads(pq.read_metadata(file).metadata[META])
        return found

    # ---- the end ---------------------------------------------------------------------------

    def parts(self) -> list[int]:
        """The parts whose rows are there, in order."""
        names = map(_PART.fullmatch, self.place.names("rows"))
        return sorted(int(match[1]) for match in names if match)

    def finish(self, count: int, identity: Mapping[str, Any]) -> int:
        """Write the manifest if all `count` parts are there; the number that are missing.

        Parts beyond them belong to inputs that are no longer listed, and are removed.
        """
        there = self.parts()
        missing = count - len([part for part in there if part < count])
        if missing:
            return missing
        for part in there[count:]:
            for kind in reversed(KINDS):  # its rows last: they say that there is something
                self.place.remove(part_name(kind, part))
            self.forget(part)
        self._sweep()
        self._settle(_text({**_record(identity), **self._summary(count)}))
        return 0

    def _settle(self, text: bytes) -> None:
        """Write the manifest; another machine that ends now may sweep a file under our hands."""
        for _ in range(ATTEMPTS):
            if self.place.exists(MANIFEST) and self._read(MANIFEST) == text:
                return
            with suppress(FileNotFoundError):
                self.place.write(MANIFEST, text)
        self.place.write(MANIFEST, text)

    def _summary(self, count: int) -> dict[str, Any]:
        """Counts of images, and all that made them; flat in memory for any number of parts."""
        images = failed = 0
        made = set[str]()
        with ThreadPoolExecutor(AT_ONCE) as pool:  # a store may take its time for each
            for start in range(0, count, PARTS_AT_ONCE):
                for fact in pool.map(self.facts, range(start, min(count, start + PARTS_AT_ONCE))):
                    images, failed = images + fact["rows"], failed + fact["failed"]
                    made.add(json.dumps(fact["made"], sort_keys=True))
        counts = {"images": images, "explained": images - failed, "failed": failed}
        return {"counts": counts, "parts": count, "made": [json.loads(t) for t in sorted(made)]}

    def _sweep(self) -> None:
        """What killed processes left: every part is there, so nobody is at work on one any more."""
        for folder in ("", *KINDS):
            for name in self.place.names(folder):
                if name.startswith(".") and _LEFT.match(name):
                    self.place.remove(f"{folder}/{name}".lstrip("/"))

    def _read(self, name: str) -> bytes:
        with self.place.open(name) as file:
            return file.read()


def part_name(kind: str, part: int) -> str:
    """Where a part's rows, maps, pages or pictures lie in a batch's folder."""
    return f"{kind}/part-{part:06d}{KINDS[kind]}"


def read_maps(folder: str | os.PathLike[str], row: int) -> NDArray[Any]:
    """The maps of one image of a batch: (decisions, height, width) float32, raw and signed.

    Args:
        folder: of the batch.
        row: the image's, from the column of that name.

    Raises:
        NBDTError: no batch, one without maps, or a row without maps.
    """
    batch = place(folder)
    start = read_json(batch, START)
    try:
        with batch.open(part_name("maps", row // start["options"]["part"])) as file:
            return maps_of(file, row)
    except (*NPZ_ERRORS, TypeError, ZeroDivisionError):  # the last two: no sensible "part"
        raise NBDTError(
            f"{str(batch)!r} has no maps of row {row}: the image failed, is not done, or the "
            "batch was made without --maps npz."
        ) from None


def read_json(where: Place, name: str) -> dict[str, Any]:
    """A batch's own record. Raises NBDTError if it is not one that this release reads."""
    path = f"{where}/{name}"
    try:
        with where.open(name) as file:
            record = json.loads(file.read())
    except FileNotFoundError:
        raise NBDTError(f"There is no batch at {str(where)!r} ({name}).") from None
    except (ValueError, RecursionError) as error:
        raise NBDTError(f"{path!r} is not JSON: {error}") from None
    return check_record(record, path, FORMAT, VERSION)


def _unchanged(
    source: Input,
    row: tuple[str, str | None, int | None, int | None],
    *,
    every_byte: bool,
) -> bool:
    path, sha256, size, modified_ns = row
    if plain_path(source.reference) != path:
        return False
    if not every_byte:
        length, date = source.state()
        if date == modified_ns and length in {None, size}:
            return True
    try:
        return source.sha256() == sha256
    except ImageError:
        return sha256 is None


def _check_same(root: Place, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
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


def _record(identity: Mapping[str, Any]) -> dict[str, Any]:
    return {"format": FORMAT, "version": VERSION, **identity}


def _text(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, indent=1) + "\n").encode()


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
