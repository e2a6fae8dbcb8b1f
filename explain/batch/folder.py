"""The folder of a batch: what it was started for, which of its parts are done, and its end.

``docs/batch.md`` lists the files. A part is complete once its rows exist. The manifest exists once
nothing is missing; the overview is written last.

A part always has the same inputs, in a later run and in another machine's shard too.
"""

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from nbdt.errors import NBDTError
from nbdt.files import NPZ_ERRORS, locked, read_record
from nbdt.images.folders import BATCH_FILE
from nbdt.images.image import ImageError
from nbdt.images.sources import ImageSource
from nbdt.storage import LocalStorage, Storage, is_uri, open_storage

from .options import differences
from .rows import FILE_COLUMNS, META, SCHEMA, maps_of, plain_path

FORMAT, VERSION = "nbdt-batch", 1
MANIFEST, OVERVIEW = "manifest.json", "index.html"
KINDS = {"rows": ".parquet", "maps": ".npz", "pages": "", "pictures": ""}
DRAWN = ("pages", "pictures")
AT_ONCE, ATTEMPTS = 16, 3
LOCK = ".lock-"
_LEFT = re.compile(r"\.(part-|lock-|batch\.json\.|manifest\.json\.)")
_PART = re.compile(r"part-(\d{6,})(\.parquet|\.npz|)")


class BatchFolder:
    """Reads and writes a batch's files atomically; the rows of a part come last.

    The folder need not exist; `kinds` are those of a part's files, from `KINDS`.
    """

    def __init__(
        self, where: str | os.PathLike[str] | Storage, kinds: Sequence[str] = ("rows",)
    ) -> None:
        self.storage = open_storage(where)
        self.kinds = tuple(kinds)
        self.model = ""  # hash of the model that makes the parts, once the batch is open
        self._start = b""

    @contextmanager
    def locked(self, shard: tuple[int, int]) -> Iterator[None]:
        """Keep out other runs that would write the same parts; an object store has no locks.

        Raises NBDTError: at once, if there is one.
        """
        if not isinstance(self.storage, LocalStorage):
            yield
            return
        root, (number, shards) = self.storage.root, shard
        root.mkdir(parents=True, exist_ok=True)
        who = f"Another run is writing to {str(self.storage)!r}"
        with locked(root / f"{LOCK}{number}-{shards}", who):
            for other in root.glob(f"{LOCK}*"):
                if not other.name.endswith(f"-{shards}"):  # shares of another division overlap
                    with locked(other, who):
                        pass
            yield

    def open(self, identity: Mapping[str, Any]) -> None:
        """Start the batch, or continue it.

        Raises:
            NBDTError: the folder holds another batch (the message lists what differs), or no batch.
        """
        if self.storage.exists(BATCH_FILE):
            self.check(identity)
            return
        taken = [name for name in (*KINDS, *self._claims) if self.storage.exists(name)]
        if taken:
            raise NBDTError(
                f"{str(self.storage)!r} holds {taken[0]!r} but no {BATCH_FILE}: it is not a batch. Name a new "
                "folder with --out."
            )
        self.storage.write(BATCH_FILE, _text(_record(identity)))
        self.check(identity)

    def check(self, identity: Mapping[str, Any]) -> None:
        """Raise NBDTError if the folder holds no batch, or another one."""
        differ = differences(read_json(self.storage, BATCH_FILE), _record(identity))
        if differ:
            raise NBDTError(
                f"{str(self.storage)!r} holds another batch ({'; '.join(differ)}). Go on with the same "
                "command, or name a new folder with --out."
            )
        self.model, self._start = identity["model"], self._read(BATCH_FILE)

    def check_present(self) -> None:
        """Raise NBDTError if the folder was removed or replaced since the batch was opened."""
        with suppress(FileNotFoundError):
            if self._read(BATCH_FILE) == self._start:
                return
        raise NBDTError(
            f"{str(self.storage)!r} was removed or replaced while the batch was running. Remove what "
            "is left of it, and run the same command again."
        )

    @property
    def _claims(self) -> tuple[str, ...]:
        """The files that claim that all parts are done; `OVERVIEW` only if the batch writes it."""
        return (OVERVIEW, MANIFEST) if "pages" in self.kinds else (MANIFEST,)

    def is_done(self, part: int, inputs: Sequence[ImageSource]) -> bool:
        """Return whether the part exists and its input files are unchanged.

        A file of the same length and date counts as unchanged; any other is read and its hash
        compared. A part of an unfinished batch whose columns are an earlier
        version's is not done: its "class" is that of greedy descent.
        """
        if not self._is_whole(part):
            return False
        try:
            with self.storage.open(part_name("rows", part)) as file:
                rows_file = pq.ParquetFile(file)
                stored = rows_file.read(columns=list(FILE_COLUMNS))
                is_current = rows_file.schema_arrow.names == SCHEMA.names
                maker = _facts(rows_file.metadata).get("model", self.model)
        except (OSError, KeyError, ValueError, pa.ArrowException):
            return False
        if maker != self.model or not (is_current or self.storage.exists(MANIFEST)):
            return False
        rows = list(zip(*(stored[name].to_pylist() for name in FILE_COLUMNS), strict=True))
        if len(rows) != len(inputs):
            return False
        if not any(is_uri(source.file) for source in inputs):
            return all(map(_unchanged, inputs, rows))
        return all(_at_once(_unchanged, inputs, rows))

    def _is_whole(self, part: int) -> bool:
        return all(self._has(kind, part) for kind in self.kinds)

    def _has(self, kind: str, part: int) -> bool:
        if self.storage.exists(part_name(kind, part)):
            return True
        if kind not in DRAWN or not self._has("rows", part):
            return False
        facts = self.facts(part)  # an object store has no folder for a part that drew nothing
        return bool(facts["failed"] == facts["rows"])

    def write(self, kind: str, part: int, data: bytes) -> None:
        """Write the rows or the maps of a part. Raises NBDTError: as `check_present` does."""
        self.check_present()
        self.storage.write(part_name(kind, part), data)

    @property
    def draws(self) -> bool:
        """Whether photographs are needed."""
        return not set(DRAWN).isdisjoint(self.kinds)

    @contextmanager
    def drawing(self, part: int) -> Iterator[dict[str, Path]]:
        """Give new folders for a part's pages and pictures, by kind; they replace older ones."""
        with ExitStack() as stack:
            yield {
                kind: stack.enter_context(self.storage.folder(part_name(kind, part)))
                for kind in self.kinds
                if kind in DRAWN
            }

    def forget(self, part: int) -> None:
        """Remove all claims that a part is done, before it is made again."""
        # Again in the end: a run of another share may have claimed it in between.
        for claim in (*self._claims, part_name("rows", part), *self._claims):
            self.storage.remove(claim)

    def rows(self, part: int) -> list[dict[str, Any]]:
        """Return all rows of a part that is done."""
        with self.storage.open(part_name("rows", part)) as file:
            rows: list[dict[str, Any]] = pq.read_table(file).to_pylist()
        return rows

    def facts(self, part: int) -> dict[str, Any]:
        """Return the counts of a part, and what made it."""
        with self.storage.open(part_name("rows", part)) as file:
            return _facts(pq.read_metadata(file))

    def finish(self, count: int, identity: Mapping[str, Any]) -> int:
        """Write the manifest if all `count` parts exist; return the number of missing parts.

        Parts beyond `count` belong to inputs that are no longer listed, and are removed. Raises
        NBDTError: as `check_present` does.
        """
        self.check_present()
        if missing := self._missing(count):
            return missing
        names = map(_PART.fullmatch, self.storage.names("rows"))
        for part in sorted(int(match[1]) for match in names if match):
            if part >= count:
                for kind in reversed(KINDS):  # the rows last
                    self.storage.remove(part_name(kind, part))
                self.forget(part)
        self._sweep()
        self._write_manifest(_text({**_record(identity), **self._summary(count)}))
        if missing := self._missing(count):  # removed since
            self.storage.remove(MANIFEST)
        return missing

    def _missing(self, count: int) -> int:
        return sum(not whole for whole in _at_once(self._is_whole, range(count)))

    def _write_manifest(self, text: bytes) -> None:
        """Retry: another machine that ends at the same time may sweep the file being written."""
        for _ in range(ATTEMPTS):
            if self.storage.exists(MANIFEST) and self._read(MANIFEST) == text:
                return
            with suppress(FileNotFoundError):
                self.storage.write(MANIFEST, text)
        self.storage.write(MANIFEST, text)

    def _summary(self, count: int) -> dict[str, Any]:
        """Return counts of images and all that made them."""
        images = failed = 0
        made = set[str]()
        for fact in _at_once(self.facts, range(count)):
            images, failed = images + fact["rows"], failed + fact["failed"]
            made.add(json.dumps(fact["made"], sort_keys=True))
        counts = {"images": images, "explained": images - failed, "failed": failed}
        return {"counts": counts, "parts": count, "made": [json.loads(t) for t in sorted(made)]}

    def _sweep(self) -> None:
        """Remove what killed processes left: all parts exist, so no process is still writing one."""
        for folder in ("", *KINDS):
            for name in self.storage.names(folder):
                if name.startswith(".") and _LEFT.match(name):
                    self.storage.remove(f"{folder}/{name}".lstrip("/"))

    def _read(self, name: str) -> bytes:
        with self.storage.open(name) as file:
            return file.read()


def _at_once(work: Callable[..., Any], *items: Iterable[Any]) -> Iterator[Any]:
    """Yield the results of `work` in order, from threads: an object store is slow for each file."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield from pool.map(work, *items)


def _facts(metadata: Any) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(metadata.metadata[META])
    return facts


def part_name(kind: str, part: int) -> str:
    """Return where a part's rows, maps, pages or pictures are in a batch's folder."""
    return f"{kind}/part-{part:06d}{KINDS[kind]}"


def read_maps(folder: str | os.PathLike[str], row: int) -> NDArray[Any]:
    """Read the maps of one image of a batch: (decisions, height, width) float32, raw and signed.

    `row` is the image's number, from the column of that name.

    Raises NBDTError: no batch, a batch without maps, or a row without maps.
    """
    batch = open_storage(folder)
    start = read_json(batch, BATCH_FILE)
    try:
        with batch.open(part_name("maps", row // start["options"]["part"])) as file:
            return maps_of(file, row)
    except (*NPZ_ERRORS, TypeError, ZeroDivisionError):  # the last two: no sensible "part"
        raise NBDTError(
            f"{str(batch)!r} has no maps of row {row}: the image failed, is not done, or the "
            "batch was made without --maps npz."
        ) from None


def read_json(where: Storage, name: str) -> dict[str, Any]:
    """Read ``batch.json`` or the manifest; NBDTError if this release cannot read it."""
    try:
        with where.open(name) as file:
            text = file.read()
    except FileNotFoundError:
        raise NBDTError(f"There is no batch at {str(where)!r} ({name}).") from None
    return read_record(text, f"{where}/{name}", FORMAT, VERSION)


def _unchanged(source: ImageSource, row: Sequence[object]) -> bool:
    path, sha256, size, modified_ns = row
    if plain_path(source.reference) != path:
        return False
    length, date = source.state()
    if date == modified_ns and length in {None, size}:
        return True
    try:
        return source.sha256() == sha256
    except ImageError:
        return sha256 is None


def _record(identity: Mapping[str, Any]) -> dict[str, Any]:
    return {"format": FORMAT, "version": VERSION, **identity}


def _text(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, indent=1) + "\n").encode()
