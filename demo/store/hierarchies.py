"""The hierarchies of a store: every save a new version of its name."""

from __future__ import annotations

import json
from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import undefer

from nbdt.hierarchies.edit.record import Edit
from nbdt.tree.hierarchy import Hierarchy
from nbdt.tree.nodes import check_word

from . import records
from .database import Database, reading, writing
from .limits import at_most, now, room_for_hierarchy
from .records import SavedHierarchy
from .schema import HierarchyRow
from .url import StoreError


class Hierarchies(Database):
    """Saved hierarchies."""

    def save_hierarchy(
        self,
        hierarchy: Hierarchy,
        name: str,
        *,
        model: str,
        visitor: str,
        edits: Sequence[Edit] = (),
    ) -> SavedHierarchy:
        """Keep a hierarchy as the next version of its name; earlier ones stay.

        Args:
            hierarchy: as it is now.
            name: what people call it.
            model: `model_hash` of the model that it was edited for.
            visitor: who saves it.
            edits: what led to it.

        Raises:
            StoreError: a limit. HierarchyError: a name that cannot be one.
        """
        check_word(name, "The name of a hierarchy")
        content = hierarchy.to_json()
        at_most(len(content.encode()), self.limits.hierarchy_bytes, "bytes in a hierarchy")
        records_of_edits = json.dumps([edit.to_dict() for edit in edits])
        with writing(self._engine) as session:
            room_for_hierarchy(session, visitor, len(content) + len(records_of_edits), self.limits)
            last = session.scalar(
                select(func.max(HierarchyRow.version)).where(
                    HierarchyRow.model == model, HierarchyRow.name == name
                )
            )
            row = HierarchyRow(
                visitor=visitor, model=model, name=name, version=(last or 0) + 1,
                hash=hierarchy.hash, time=now(), content=content,
                edits=records_of_edits,
            )  # fmt: skip
            session.add(row)
            session.flush()
            return records.from_row(SavedHierarchy, row)

    def hierarchies(self, model: str) -> list[SavedHierarchy]:
        """All versions that were saved for a model, oldest first."""
        query = select(HierarchyRow).where(HierarchyRow.model == model).order_by(HierarchyRow.id)
        with reading(self._engine) as session:
            return [records.from_row(SavedHierarchy, row) for row in session.scalars(query)]

    def hierarchy(self, saved: int) -> Hierarchy:
        """The tree of one version. Raises StoreError if there is none."""
        return Hierarchy.from_json(self._hierarchy(saved).content)

    def hierarchy_edits(self, saved: int) -> list[Edit]:
        """The edits that led to one version. Raises StoreError if there is none."""
        return [Edit.from_dict(record) for record in json.loads(self._hierarchy(saved).edits)]

    def _hierarchy(self, saved: int) -> HierarchyRow:
        everything = [undefer(HierarchyRow.content), undefer(HierarchyRow.edits)]
        with reading(self._engine) as session:
            row = session.get(HierarchyRow, saved, options=everything)
        if row is None:
            raise StoreError(f"There is no saved hierarchy {saved}.")
        return row
