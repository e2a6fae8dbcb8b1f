"""A history of hierarchies in a store: one row a version."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Engine, func, select
from sqlalchemy.orm import undefer

from nbdt.hierarchies.edit.history import History, Version
from nbdt.tree.hierarchy import Hierarchy
from nbdt.tree.nodes import check_word

from .database import Limits, at_most, check_room, reading, writing
from .place import check_disk
from .schema import HierarchyRow


class StoredHistory(History):
    """What `Store.history` returns: the versions of the hierarchies of one model."""

    where = "this store"

    def __init__(self, engine: Engine, model: str, limits: Limits) -> None:
        self._engine, self._model, self._limits = engine, model, limits

    def _numbers(self) -> list[int]:
        query = select(HierarchyRow.id).where(HierarchyRow.model == self._model)
        with reading(self._engine) as session:
            return list(session.scalars(query.order_by(HierarchyRow.id)))

    def _headers(self, numbers: Sequence[int]) -> Iterator[object]:
        query = select(HierarchyRow).where(HierarchyRow.id.in_(numbers))
        query = query.order_by(HierarchyRow.id).options(undefer(HierarchyRow.edits))
        with reading(self._engine) as session:
            return iter([_header(row) for row in session.scalars(query)])

    def _hierarchy(self, number: int) -> Hierarchy:
        query = select(HierarchyRow.content).where(HierarchyRow.id == number)
        with reading(self._engine) as session:
            return Hierarchy.from_json(session.scalar(query) or "")

    def _name(self, number: int) -> str:
        return f"The saved hierarchy {number}"

    def _add(self, version: Version, hierarchy: Hierarchy) -> Version:
        """Write a row: the next version of its name.

        Raises StoreError: a limit. HierarchyError: a name that cannot be one.
        """
        name, content = version.why, hierarchy.to_json()
        check_word(name, "The name of a hierarchy")
        at_most(len(content.encode()), self._limits.hierarchy_bytes, "bytes in a hierarchy")
        edits = json.dumps([edit.to_dict() for edit in version.edits])
        limits, instead, size = (
            self._limits,
            "Download this one instead.",
            len(content) + len(edits),
        )
        check_disk(self._engine, size)
        of_name = HierarchyRow.model == self._model, HierarchyRow.name == name
        with writing(self._engine) as session:
            check_room(
                session, HierarchyRow, version.who,
                (limits.hierarchies_of_visitor, limits.hierarchies),
                "saved hierarchies", instead=instead,
            )  # fmt: skip
            check_room(
                session, HierarchyRow, version.who, (None, limits.hierarchy_text_in_all),
                "characters of saved hierarchies", more=size, instead=instead,
                size=func.length(HierarchyRow.content) + func.length(HierarchyRow.edits),
            )  # fmt: skip
            last = session.scalar(select(func.max(HierarchyRow.version)).where(*of_name))
            row = HierarchyRow(
                visitor=version.who, model=self._model, name=name, version=(last or 0) + 1,
                hash=version.hash, time=version.when, content=content, edits=edits,
            )  # fmt: skip
            session.add(row)
            session.flush()
            return Version.from_dict(_header(row))


def _header(row: HierarchyRow) -> dict[str, Any]:
    return {
        "number": row.id,
        "parent": None,
        "who": row.visitor or "unknown",  # the visitor was deleted
        "when": row.time,
        "why": f"{row.name}, version {row.version}",
        "hash": row.hash,
        "classes": None,
        "edits": json.loads(row.edits),
    }
