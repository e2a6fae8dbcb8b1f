"""The rows of a memory in LanceDB: every change is a version, which can be restored.

LanceDB is loaded only here. A table has one row a photograph, whose id is the SHA-256 of the file.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import NBDTError
from ..storage import is_uri

NAME = "photographs"
FORMAT = "nbdt-memory"
VERSION = 1
FACTS = b"nbdt"  # of the schema's metadata
PLAIN = ("id", "label", "reference", "by", "why", "active", "added")
PATIENCE = 60  # seconds that a writer waits for another

Halves = NDArray[np.float16]


@dataclass(frozen=True, eq=False)
class Rows:
    """All rows of one version, in the order of their ids.

    Attributes:
        ids: SHA-256 of each file, hexadecimal.
        features: (rows, features) float16.
        labels: the id of a node of the hierarchy: a class, or a group.
        references: where each photograph came from.
        by: who added or last changed it.
        why: the reason given; "" if none.
        active: (rows,) bool; False where it was struck out.
        added: UTC, ISO 8601.
        version: of the table.
        weights: (rows,) how much each counts, in times of the others of its label; by default 1.
    """

    ids: tuple[str, ...]
    features: Halves
    labels: tuple[str, ...]
    references: tuple[str, ...]
    by: tuple[str, ...]
    why: tuple[str, ...]
    active: NDArray[np.bool_]
    added: tuple[str, ...]
    version: int
    weights: NDArray[np.float32] = field(default_factory=lambda: np.ones(0, np.float32))

    def __post_init__(self) -> None:
        if not len(self.weights):
            object.__setattr__(self, "weights", np.ones(len(self.ids), np.float32))

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def places(self) -> dict[str, int]:
        """The place of each id."""
        return {key: place for place, key in enumerate(self.ids)}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """A short name of each row, without the folders of this machine; `place` finds it by it."""
        short = [shortened(reference) for reference in self.references]
        times = Counter(short)
        pairs = zip(short, self.ids, strict=True)
        return tuple(name if times[name] == 1 else key[:12] for name, key in pairs)

    def place(self, row: str) -> int:
        """Return the place of the row with this id, reference, or beginning or end of either.

        Raises:
            NBDTError: no such row, or several.
        """
        if row in self.places:
            return self.places[row]
        texts = [*enumerate(self.references)]
        found = [n for n, text in texts if text == row]
        found = found or [
            n for n, text in texts if text.endswith(("/" + row, "\\" + row, "!" + row))
        ]
        if not found and len(row) >= 8:
            found = [n for n, key in enumerate(self.ids) if key.startswith(row)]
        if len(found) == 1:
            return found[0]
        what = f"{len(found)} rows fit" if found else "no row has"
        raise NBDTError(
            f"Expected the id or the reference of one row of the memory; {what} {row!r}. "
            "`nbdt memory list` prints them."
        )


def shortened(reference: str) -> str:
    """Return the name of a file with its folder's, such as "cat/17.jpg"."""
    return "/".join(reference.replace("\\", "/").replace("!", "/").rsplit("/", 2)[-2:])


@dataclass(frozen=True)
class Version:
    """One state of a memory.

    Attributes:
        number: counted from 1.
        when: UTC, ISO 8601.
    """

    number: int
    when: str


class Table:
    """The LanceDB table of a memory.

    Args:
        place: a folder, or the URI of an object store.
        table: opened by LanceDB.
    """

    kept = True  # whether changes are written

    def __init__(self, place: str, table: Any) -> None:
        self.place = place
        self._table = table
        self._rows: Rows | None = None

    @classmethod
    def create(cls, place: str, width: int, facts: Mapping[str, Any]) -> Table:
        """Make an empty table for features of `width` values; `facts` are JSON data.

        Raises:
            NBDTError: there is one already, or the place cannot be written.
        """
        import pyarrow as pa

        text = {name: pa.string() for name in PLAIN}
        fields = {**text, "active": pa.bool_(), "weight": pa.float32(), "features": pa.list_(pa.float16(), width),
                  "picture": pa.binary()}  # fmt: skip
        record = {"format": FORMAT, "version": VERSION, **facts}
        schema = pa.schema([*fields.items()], metadata={FACTS: json.dumps(record).encode()})
        with reporting(place, "made"):
            connection = connect(place)
            if NAME in connection.list_tables().tables:
                raise NBDTError(f"There is a memory at {place!r} already; name a new folder.")
            table = connection.create_table(NAME, schema=schema)
        return cls(place, table)

    @classmethod
    def open(cls, place: str) -> Table:
        """Open a table.

        Raises:
            NBDTError: there is none, a damaged one, or one of a newer release.
        """
        remedy = "Make one with: nbdt memory build MODEL --data D --out M"
        if Path(place, "manifest.json").is_file():
            remedy = "It is an evidence index of an earlier release: nbdt memory convert reads it."
        missing = NBDTError(f"There is no memory at {place!r}. {remedy}")
        if not is_uri(place) and not Path(place).is_dir():
            raise missing
        with reporting(place, "opened"):
            connection = connect(place)
            if NAME not in connection.list_tables().tables:
                raise missing
            table = cls(place, connection.open_table(NAME))
        table.facts  # noqa: B018 - is checked
        return table

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What the memory was made for, as given to `create`."""
        text = (self._table.schema.metadata or {}).get(FACTS, b"null")
        record = json.loads(text)
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            raise NBDTError(f"The table at {self.place!r} is not a memory that nbdt made.")
        if record.get("version") != VERSION:
            raise NBDTError(
                f"The memory at {self.place!r} has format version {record.get('version')!r:.20}; this "
                f"release reads version {VERSION}. Upgrade nbdt-vision."
            )
        return record

    @property
    def version(self) -> int:
        """The newest version, also of other processes."""
        self._table.checkout_latest()
        return int(self._table.version)

    def versions(self) -> list[Version]:
        """List the states that `restore` can bring back, oldest first."""
        return [
            Version(
                int(item["version"]), item["timestamp"].astimezone(UTC).isoformat("T", "seconds")
            )
            for item in self._table.list_versions()
        ]

    def rows(self, version: int | None = None) -> Rows:
        """Return all rows, without pictures; those of the newest version are kept in memory."""
        if version is not None:
            with reporting(self.place, "read"):
                self._table.checkout(version)
                try:
                    return self._read(version)
                finally:
                    self._table.checkout_latest()
        newest = self.version
        if self._rows is None or self._rows.version != newest:
            with reporting(self.place, "read"):
                self._rows = self._read(newest)
        return self._rows

    def _read(self, version: int) -> Rows:
        found = _columns(self._table)
        width = found.schema.field("features").type.list_size
        flat = [part.flatten().to_numpy() for part in found["features"].chunks]
        values = np.concatenate([np.empty(0, np.float16), *flat]).reshape(len(found), width)
        # Two processes that add one photograph at the same instant both leave a row.
        order = _first_of_each(found["id"].to_pylist())
        text = {
            name: tuple(value or "" for value in found[name].take(order).to_pylist())
            for name in PLAIN if name != "active"
        }  # fmt: skip
        active = found["active"].to_numpy(zero_copy_only=False).astype(bool)[order]
        weights = np.ones(len(found), np.float32)
        if "weight" in found.schema.names:  # not in the first memories
            weights = np.nan_to_num(found["weight"].to_numpy(), nan=1.0)
        return Rows(
            text["id"], values[order], text["label"], text["reference"],
            text["by"], text["why"], active, text["added"], version, weights[order],
        )  # fmt: skip

    def picture(self, key: str) -> bytes | None:
        """Return the stored picture of a row, None if it has none."""
        found = self._table.search().where(f"id = {_quoted(key)}").select(["picture"]).to_arrow()
        return found["picture"][0].as_py() if len(found) else None

    # ---- changed ------------------------------------------------------------------------

    def add(self, records: Sequence[Mapping[str, Any]], features: Halves) -> None:
        """Append rows, all or none. `records` have the plain columns and "picture"."""
        import pyarrow as pa

        schema = self._table.schema
        columns: dict[str, Any] = {
            name: [record.get(name) for record in records]
            for name in schema.names if name not in {"features", "added"}
        }  # fmt: skip
        columns["added"] = [now()] * len(records)
        flat = pa.array(np.ascontiguousarray(features, np.float16).reshape(-1))
        columns["features"] = pa.FixedSizeListArray.from_arrays(flat, features.shape[1])
        with self.changing():
            self._table.add(pa.table(columns, schema=schema))

    def update(self, keys: Sequence[str], values: Mapping[str, Any]) -> None:
        """Set columns of rows, all or none."""
        listed = ", ".join(map(_quoted, keys))
        with self.changing():
            self._table.update(where=f"id IN ({listed})", values=dict(values))

    def update_each(self, changes: Mapping[str, Mapping[str, Any]]) -> None:
        """Set the same columns of several rows to values of their own, all or none."""
        import pyarrow as pa

        records = pa.Table.from_pylist([{"id": key, **values} for key, values in changes.items()])
        with self.changing():
            self._table.merge_insert("id").when_matched_update_all().execute(records)

    def restore(self, version: int) -> None:
        """Make the rows of a version the newest ones. Raises NBDTError: no such version."""
        known = [item.number for item in self.versions()]
        if version not in known:
            raise NBDTError(
                f"Expected a version of {known[0]} to {known[-1]}, got {version}; `nbdt memory "
                "versions` lists them."
            )
        with self.changing():
            self._table.restore(version)

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Wait for other writers on this machine, then write to the newest version."""
        with reporting(self.place, "changed"), waiting(self.place):
            self._table.checkout_latest()
            yield


def waiting(place: str) -> AbstractContextManager[object]:
    """Wait until no other process of this machine writes to a memory."""
    from filelock import FileLock

    if is_uri(place):
        return nullcontext()
    return FileLock(Path(place, ".lock"), timeout=PATIENCE)


def now() -> str:
    """Return the time in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def connect(place: str) -> Any:
    """Open the database of a memory."""
    import lancedb

    return lancedb.connect(place)


def _columns(table: Any) -> Any:
    """Return all columns but the pictures."""
    names = [name for name in table.schema.names if name != "picture"]
    return table.search().select(names).limit(max(1, table.count_rows())).to_arrow()


def _first_of_each(ids: Sequence[str]) -> NDArray[np.int64]:
    """Return the places of the ids in their order, each id once."""
    places = {key: place for place, key in reversed([*enumerate(ids)])}
    return np.array([places[key] for key in sorted(places)], dtype=np.int64)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


@contextmanager
def reporting(place: str, what: str) -> Iterator[None]:
    """Turn what LanceDB, Arrow and the disk raise into one error that names the place."""
    try:
        yield
    except NBDTError:
        raise
    except Exception as error:  # LanceDB has no base error: OSError, ValueError, RuntimeError
        raise NBDTError(
            f"The memory at {place!r} cannot be {what} ({type(error).__name__}: {str(error)[:300]}). "
            "Nothing was changed."
        ) from error
