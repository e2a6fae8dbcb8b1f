"""The last layers that were fitted on states of a memory, so that an undo gives the same weights."""

from __future__ import annotations

from typing import Any

from .refit import FittedHead
from .table import connect, now, reporting, waiting

NAME = "heads"
KEPT = 30


class Heads:
    """Fitted heads by the key of what they were fitted on, in the memory's database.

    Args:
        place: of the memory.
        writes: whether new ones are written there, or kept in this process only.
    """

    def __init__(self, place: str, writes: bool = True) -> None:
        self.place, self.writes = place, writes
        self._recent: dict[str, FittedHead] = {}

    def get(self, key: str) -> FittedHead | None:
        """Return the head of a key, None if it is not kept."""
        if key not in self._recent:
            with reporting(self.place, "read"):
                found = self._table().search().where(f"key = '{key}'").limit(1).to_arrow()
            if not len(found):
                return None
            self._recent[key] = FittedHead.from_bytes(found["data"][0].as_py())
        return self._recent[key]

    def put(self, head: FittedHead) -> None:
        """Keep a head; the oldest of more than `KEPT` go."""
        self._recent[head.key] = head
        while len(self._recent) > 3:
            self._recent.pop(next(iter(self._recent)))
        if not self.writes:
            return
        with reporting(self.place, "changed"), waiting(self.place):
            table = self._table()
            table.add([{"key": head.key, "when": now(), "data": head.to_bytes()}])
            if table.count_rows() > KEPT:
                times = table.search().select(["when"]).limit(KEPT * 2).to_arrow()["when"]
                oldest = sorted(times.to_pylist())[-KEPT]
                table.delete(f"\"when\" < '{oldest}'")

    def _table(self) -> Any:
        import pyarrow as pa

        fields = {"key": pa.string(), "when": pa.string(), "data": pa.large_binary()}
        return connect(self.place).create_table(
            NAME, schema=pa.schema([*fields.items()]), exist_ok=True
        )
