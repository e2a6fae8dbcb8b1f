"""Where corrections, agreed photographs, hierarchies and marks are kept, so that none is lost."""

from __future__ import annotations

from collections.abc import Collection

from PIL import Image
from sqlalchemy import ColumnElement, delete, select, update

from nbdt.correction import Correction

from . import records
from .engine import reading, writing
from .hierarchies import Hierarchies
from .learning import Learning
from .limits import at_most, check_texts, count, keep_photograph, room_for_correction
from .photographs import decoded, encoded
from .place import StoreError
from .records import Pending, SavedCorrection, StoredPhotograph
from .schema import CorrectionRow, HierarchyRow, LearnedRow, MarkRow, PhotographRow


class Store(Hierarchies, Learning):
    """A database of what people said; see `nbdt.demo.store.engine` for what it promises.

    A visitor is any text that the caller can vouch for; what is deleted in a visitor's name must
    be that visitor's.
    """

    # ---- corrections ----------------------------------------------------------------------------

    def add_correction(
        self, correction: Correction, *, visitor: str, photo: Image.Image | None = None
    ) -> int:
        """Keep one, and a copy of its photograph if given. Durable when this returns its number.

        Raises:
            StoreError: text that cannot be stored, another photograph, or a limit.
        """
        check_texts(correction.note, correction.reference, correction.label, correction.node,
                     correction.child, visitor)  # fmt: skip
        at_most(len(correction.note), self.limits.text, "characters in a note")
        limit = self.limits.photograph_bytes
        data = None if photo is None else encoded(photo, correction.image, limit)
        with writing(self._engine) as session:
            room_for_correction(session, visitor, self.limits)
            row = records.correction_row(correction, visitor)
            if photo is not None and data is not None:
                row.photograph_id = keep_photograph(
                    session, correction.image, visitor, photo.size, data, limits=self.limits
                )
            session.add(row)
            session.flush()
            return row.id

    def corrections(
        self,
        *,
        visitor: str | None = None,
        ids: Collection[int] | None = None,
        pending: Pending | None = None,
    ) -> list[SavedCorrection]:
        """All, or one visitor's, or those of the given numbers, or those that wait; oldest first."""
        wanted = select(CorrectionRow.id)
        if visitor is not None:
            wanted = wanted.where(CorrectionRow.visitor == visitor)
        if ids is not None:
            wanted = wanted.where(CorrectionRow.id.in_(ids))
        if pending is not None:
            wanted = wanted.where(*_waits(pending))
        taught = select(LearnedRow).where(LearnedRow.correction_id.in_(wanted))
        query = select(CorrectionRow).where(CorrectionRow.id.in_(wanted))
        with reading(self._engine) as session:
            learned: dict[int, tuple[int, ...]] = {}
            for row in session.scalars(taught.order_by(LearnedRow.model_id)):
                learned[row.correction_id] = (*learned.get(row.correction_id, ()), row.model_id)
            rows = session.scalars(query.order_by(CorrectionRow.id))
            return [records.saved_correction(row, learned.get(row.id, ())) for row in rows]

    def count_pending(self, pending: Pending) -> int:
        """How many wait to be learnt."""
        with reading(self._engine) as session:
            return count(session, select(CorrectionRow.id).where(*_waits(pending)))

    def delete_corrections(self, ids: Collection[int], *, visitor: str | None = None) -> None:
        """Forget these: all of them or none. A photograph that no other needs goes with them.

        Args:
            ids: their numbers.
            visitor: if given, they must be this visitor's.

        Raises:
            StoreError: a number that is not there, or another visitor's: which, is not told.
        """
        with writing(self._engine) as session:
            query = select(CorrectionRow).where(CorrectionRow.id.in_(ids))
            if visitor is not None:
                query = query.where(CorrectionRow.visitor == visitor)
            rows = session.scalars(query).all()
            if missing := sorted(set(ids) - {row.id for row in rows}):
                whose = "" if visitor is None else " of yours"
                raise StoreError(
                    f"There is no correction{whose} with the number "
                    f"{', '.join(map(str, missing[:5]))}; nothing was deleted."
                )
            photographs = {row.photograph_id for row in rows} - {None}
            for row in rows:
                session.delete(row)
            session.flush()
            needed = select(CorrectionRow.photograph_id).where(
                CorrectionRow.photograph_id.is_not(None)
            )
            session.execute(
                delete(PhotographRow).where(
                    PhotographRow.id.in_(photographs), PhotographRow.id.not_in(needed)
                )
            )

    def delete_visitor(self, visitor: str) -> int:
        """Forget a visitor: corrections, photographs and marks go; returns how many.

        Hierarchies that they saved stay, since others may use them, but no longer name them.
        """
        with writing(self._engine) as session:
            gone = 0
            for table in (CorrectionRow, PhotographRow, MarkRow):
                found = session.execute(
                    delete(table).where(table.visitor == visitor).returning(table.id)
                )
                gone += len(found.all())
            session.execute(
                update(HierarchyRow).where(HierarchyRow.visitor == visitor).values(visitor="")
            )
            return gone

    # ---- photographs ----------------------------------------------------------------------------

    def photographs(self, *, visitor: str | None = None) -> list[StoredPhotograph]:
        """The kept copies, oldest first."""
        query = select(PhotographRow).order_by(PhotographRow.id)
        if visitor is not None:
            query = query.where(PhotographRow.visitor == visitor)
        with reading(self._engine) as session:
            return [records.stored_photograph(row) for row in session.scalars(query)]

    def photograph(self, photograph: int, *, visitor: str | None = None) -> Image.Image:
        """One kept copy. Raises StoreError if there is none, or it is another visitor's."""
        name = f"photograph {photograph}"
        return decoded(self.photograph_bytes(photograph, visitor=visitor), name)

    def photograph_bytes(self, photograph: int, *, visitor: str | None = None) -> bytes:
        """Its file. Raises StoreError if there is none, or it is another visitor's."""
        query = select(PhotographRow.data).where(PhotographRow.id == photograph)
        if visitor is not None:
            query = query.where(PhotographRow.visitor == visitor)
        with reading(self._engine) as session:
            data = session.scalar(query)
        if data is None:
            raise StoreError(f"There is no photograph {photograph}; it may have been deleted.")
        return data

    def delete_photographs(
        self, ids: Collection[int] | None = None, *, visitor: str | None = None
    ) -> int:
        """Forget these copies, or all; the corrections stay. Returns how many there were."""
        query = delete(PhotographRow).returning(PhotographRow.id)
        if ids is not None:
            query = query.where(PhotographRow.id.in_(ids))
        if visitor is not None:
            query = query.where(PhotographRow.visitor == visitor)
        with writing(self._engine) as session:
            gone = session.scalars(query).all()
            if ids is not None and len(gone) != len(set(ids)):
                missing = ", ".join(map(str, sorted(set(ids) - set(gone))[:5]))
                raise StoreError(f"There is no photograph {missing}; nothing was deleted.")
            return len(gone)


def _waits(pending: Pending) -> tuple[ColumnElement[bool], ...]:
    learned = select(LearnedRow.correction_id).where(LearnedRow.model_id.in_(pending.known))
    return CorrectionRow.model.in_(pending.models), CorrectionRow.id.not_in(learned)
