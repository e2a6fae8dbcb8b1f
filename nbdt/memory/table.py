"""The rows of a memory in LanceDB: every change is a version, which can be restored.

LanceDB is loaded only here. A table has one row a photograph, whose id is the SHA-256 of the file.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import NBDTError
from ..storage import is_uri
from .rows import ENDS, Halves, Rows, Version, find, sampled

NAME = "photographs"
FORMAT = "nbdt-memory"
VERSION = 1
FACTS = b"nbdt"  # of the schema's metadata
LIGHT = ("id", "label", "active", "weight")
PLAIN = ("id", "label", "reference", "by", "why", "active", "added")
_IN_RUST = re.compile(r",? ?/[^\s,]+\.rs:\d+:\d+:?")  # places in LanceDB's code
PATIENCE = 60  # seconds that a writer waits for another
PIECE = 20_000  # rows that are read at a time
FEW = 1000  # ids that are looked for one by one


class Table:
    """The LanceDB table of a memory.

    `place`: a folder, or the URI of an object store.
    """

    kept = True  # whether it is the newest version, and changes are written

    def __init__(self, place: str, table: Any) -> None:
        self.place = place
        self._table = table
        self._known: dict[int | None, Rows] = {}

    @classmethod
    def create(cls, place: str, width: int, facts: Mapping[str, Any]) -> "Table":
        """Make an empty table for features of `width` values; `facts` are JSON data.

        Raises NBDTError: there is one already, or the place cannot be written.
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
    def open(cls, place: str) -> "Table":
        """Open a table.

        Raises NBDTError: there is none, a damaged one, or one of a newer release.
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
        with reporting(self.place, "read"):
            if self.kept:
                self._table.checkout_latest()
            return int(self._table.version)

    def versions(self) -> list[Version]:
        """List the states that `restore` can bring back, oldest first."""
        with reporting(self.place, "read"):
            found = self._table.list_versions()
        return [
            Version(int(one["version"]), one["timestamp"].astimezone(UTC).isoformat("T", "seconds"))
            for one in found
        ]

    def at(self, version: int) -> "Table":
        """Return the table of a version, to be read. Raises NBDTError: no such version."""
        with reporting(self.place, "read"):
            table = connect(self.place).open_table(NAME)
            try:
                table.checkout(version)
            except (ValueError, TypeError):
                known = [item.number for item in self.versions()]
                if version in known:
                    raise
                raise NBDTError(
                    f"Expected a version of {known[0]} to {known[-1]}, got {version}; `nbdt memory "
                    "versions` lists them."
                ) from None
        past = Table(self.place, table)
        past.kept = False
        return past

    def counts(self) -> tuple[int, int]:
        """Return the numbers of active rows and of those that were struck out."""
        with reporting(self.place, "read"):
            self.version  # noqa: B018 - also of other processes
            active = int(self._table.count_rows("active"))
            return active, int(self._table.count_rows()) - active

    def rows(self, most: int | None = None) -> Rows:
        """Return all rows of the newest version, without pictures; they are kept in memory.

        `most`: read only what a fit on so many takes, where there are more; see `sampled`.
        """
        newest = self.version
        if most not in self._known or self._known[most].version != newest:
            with reporting(self.place, "read"):
                few = most is not None and self.counts()[0] <= most
                self._known[most] = self.rows() if few else self._read(newest, most)
        return self._known[most]

    def _read(self, version: int, most: int | None) -> Rows:
        """Read rows in two passes: what chooses them, and then theirs, a piece at a time."""
        light = self.columns([*LIGHT, "_rowid"])
        order = _first_of_each(light["id"].combine_chunks())
        active = light["active"].to_numpy()[order]
        weights = np.ones(len(order), np.float32)
        if "weight" in light.schema.names:  # not in the first memories
            weights = np.nan_to_num(light["weight"].to_numpy(), nan=1.0)[order]
        if most is not None:
            labels = light["label"].combine_chunks().dictionary_encode().indices.to_numpy()
            chosen = sampled(active, labels[order], weights, most)
            order, active, weights = order[chosen], active[chosen], weights[chosen]
        numbers = light["_rowid"].to_numpy()[order]
        values = np.empty(
            (len(order), self._table.schema.field("features").type.list_size), np.float16
        )
        text = {name: np.empty(len(order), object) for name in PLAIN if name != "active"}
        places = numbers.argsort()
        for at in range(0, len(places), PIECE):
            piece = places[at : at + PIECE]
            taken = self._table.take_row_ids(numbers[piece].tolist())
            found = taken.select([*text, "features"]).to_arrow().combine_chunks()
            values[piece] = found["features"].chunk(0).flatten().to_numpy().reshape(len(piece), -1)
            for name, column in text.items():
                column[piece] = [value or "" for value in found[name].to_pylist()]
        plain = {name: tuple(column) for name, column in text.items()}
        return Rows(
            plain["id"], values, plain["label"], plain["reference"], plain["by"], plain["why"],
            active, plain["added"], version, weights,
        )  # fmt: skip

    def columns(self, names: Sequence[str], where: str | None = None) -> Any:
        """Return columns of the rows for which a condition holds, as Arrow; "_rowid" is their number."""
        wanted = [name for name in names if name in self._table.schema.names]
        with reporting(self.place, "read"):
            query = self._table.search().select(wanted).with_row_id("_rowid" in names)
            return (query if where is None else query.where(where)).to_arrow()

    def find(self, rows: Sequence[str]) -> list[str]:
        """Return the id of each row, named as in the function `find`, which raises the same."""
        self.version  # noqa: B018 - also of other processes
        exact = self.labels(rows)
        return [row if row in exact else self._named(row) for row in rows]

    def _named(self, row: str) -> str:
        conditions = [f"ends_with(reference, {_quoted(mark + row)})" for mark in ENDS]
        conditions += [f"reference = {_quoted(row)}", f"starts_with(id, {_quoted(row)})"]
        found = self.columns(["id", "reference"], " OR ".join(conditions)).to_pylist()
        references = {one["id"]: one["reference"] or "" for one in found}
        ids = [*references]
        return str(ids[find(row, ids, [*references.values()])])

    def described(self, keys: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """Return the plain columns of rows, by default all, in the order of their ids."""
        found = self.columns(PLAIN, None if keys is None else _among(keys))
        order = _first_of_each(found["id"].combine_chunks())
        return [
            {name: "" if value is None else value for name, value in row.items()}
            for row in found.take(order).to_pylist()
        ]

    def labels(self, keys: Sequence[str]) -> dict[str, str]:
        """Return the labels of those ids that are there, struck out or not."""
        wanted = {*keys}
        found = self.columns(["id", "label"], _among(wanted) if len(wanted) <= FEW else None)
        return {one["id"]: one["label"] for piece in found.to_batches()
                for one in piece.to_pylist() if one["id"] in wanted}  # fmt: skip

    def picture(self, key: str) -> bytes | None:
        """Return the stored picture of a row, None if it has none."""
        found = self.columns(["picture"], _among([key]))
        return found["picture"][0].as_py() if len(found) else None

    # ---- changed ------------------------------------------------------------------------

    def add(self, records: Sequence[Mapping[str, Any]], features: Halves) -> dict[str, str]:
        """Append rows together or, if that fails, none of them.

        `records`: the plain columns and "picture" of each.

        Returns:
            The labels of rows that are there already, by id; these are not added.
        """
        import pyarrow as pa

        schema = self._table.schema
        with self.changing():
            known = self.labels([record["id"] for record in records])
            new = [n for n, record in enumerate(records) if record["id"] not in known]
            if not new:
                return known
            columns: dict[str, Any] = {
                name: [records[n].get(name) for n in new]
                for name in schema.names if name not in {"features", "added"}
            }  # fmt: skip
            columns["added"] = [now()] * len(new)
            flat = pa.array(np.ascontiguousarray(features[new], np.float16).reshape(-1))
            columns["features"] = pa.FixedSizeListArray.from_arrays(flat, features.shape[1])
            self._table.add(pa.table(columns, schema=schema))
        return known

    def update(self, keys: Sequence[str], values: Mapping[str, Any]) -> None:
        """Set columns of rows, all or none."""
        with self.changing():
            self._table.update(where=_among(keys), values=dict(values))

    def update_each(self, changes: Mapping[str, Mapping[str, Any]]) -> None:
        """Set the same columns of several rows to values of their own, all or none."""
        import pyarrow as pa

        records = pa.Table.from_pylist([{"id": key, **values} for key, values in changes.items()])
        with self.changing():
            self._table.merge_insert("id").when_matched_update_all().execute(records)

    def restore(self, version: int) -> None:
        """Make the rows of a version the newest ones. Raises NBDTError: no such version."""
        self.at(version)
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


def _first_of_each(ids: Any) -> NDArray[np.int64]:
    """Return the places of the ids in their order, each id once."""
    import pyarrow.compute as pc

    order = pc.sort_indices(ids)
    found = ids.take(order)
    new = np.ones(len(order), bool)
    new[1:] = pc.not_equal(found[1:], found[:-1]).to_numpy(zero_copy_only=False)
    return cast("NDArray[np.int64]", order.to_numpy()[new].astype(np.int64))


def _among(keys: Iterable[str]) -> str:
    return f"id IN ({', '.join(map(_quoted, keys))})"


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
        text = " ".join(_IN_RUST.sub("", str(error)).split())[:300]
        remedy = "Nothing was changed."
        if what not in {"made", "changed"}:
            remedy = (
                "If it is damaged, copy it again, or make one: nbdt memory build MODEL --data D"
            )
        raise NBDTError(
            f"The memory at {place!r} cannot be {what} ({type(error).__name__}: {text}). {remedy}"
        ) from error
