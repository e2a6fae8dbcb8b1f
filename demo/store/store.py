"""The store: corrections, photographs, marks, hierarchies, and models trained with corrections."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from PIL import Image
from sqlalchemy import Row, delete, select, update

from nbdt.correction import Correction
from nbdt.images.image import open_image

from .database import (
    at_most,
    check_texts,
    count,
    now,
    owned_by,
    reading,
    room_for_correction,
    writing,
)
from .hierarchies import Hierarchies
from .marks import Marks
from .photographs import encoded, keep_photograph
from .schema import (
    CorrectionRow,
    HierarchyRow,
    LearnedRow,
    MarkRow,
    ModelRow,
    ModelVersion,
    Pending,
    PhotographRow,
    SavedCorrection,
    correction_row,
    model_version,
    saved_correction,
)
from .url import StoreError


class Store(Hierarchies, Marks):
    """A database of visitors' corrections; a write is durable when its method returns.

    A visitor is any text that the caller has verified. A method that is given a visitor reaches
    only what belongs to that visitor.
    """

    # ---- corrections ----------------------------------------------------------------------------

    def add_correction(
        self, correction: Correction, *, visitor: str, photo: Image.Image | None = None
    ) -> int:
        """Save a correction, and a copy of its photograph if given; returns its number.

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
            row = correction_row(correction, visitor)
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
        """Return corrections, oldest first: all, one visitor's, by number, or those that wait."""
        selected = select(CorrectionRow.id).where(owned_by(CorrectionRow, visitor))
        if ids is not None:
            selected = selected.where(CorrectionRow.id.in_(ids))
        if pending is not None:
            selected = selected.where(pending.condition())
        used = select(LearnedRow).where(LearnedRow.correction_id.in_(selected))
        query = select(CorrectionRow).where(CorrectionRow.id.in_(selected))
        with reading(self._engine) as session:
            learned: dict[int, tuple[int, ...]] = {}
            for row in session.scalars(used.order_by(LearnedRow.model_id)):
                learned[row.correction_id] = (*learned.get(row.correction_id, ()), row.model_id)
            rows = session.scalars(query.order_by(CorrectionRow.id))
            return [saved_correction(row, learned.get(row.id, ())) for row in rows]

    def count_pending(self, pending: Pending) -> int:
        """Return how many corrections wait for training."""
        with reading(self._engine) as session:
            return count(session, select(CorrectionRow.id).where(pending.condition()))

    def delete_corrections(self, ids: Collection[int], *, visitor: str | None = None) -> None:
        """Delete corrections atomically, with the photographs that no other correction needs.

        Args:
            ids: their numbers.
            visitor: if given, they must be this visitor's.

        Raises:
            StoreError: a number that does not exist or belongs to another visitor; the message does not
                tell which.
        """
        with writing(self._engine) as session:
            query = select(CorrectionRow).where(CorrectionRow.id.in_(ids))
            query = query.where(owned_by(CorrectionRow, visitor))
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
        """Delete a visitor's corrections, photographs and marks; returns how many.

        Hierarchies that they saved stay, since others may use them, but no longer name them.
        """
        with writing(self._engine) as session:
            gone = 0
            for table in (CorrectionRow, PhotographRow, MarkRow):
                deleted = session.execute(
                    delete(table).where(table.visitor == visitor).returning(table.id)
                )
                gone += len(deleted.all())
            session.execute(
                update(HierarchyRow).where(HierarchyRow.visitor == visitor).values(visitor="")
            )
            return gone

    # ---- photographs ----------------------------------------------------------------------------

    def photographs(self, *, visitor: str | None = None) -> Sequence[Row[Any]]:
        """Return the columns of `PhotographRow` but the data for each kept copy, oldest first."""
        columns = [column for column in PhotographRow.__table__.columns if column.key != "data"]
        query = select(*columns).where(owned_by(PhotographRow, visitor))
        with reading(self._engine) as session:
            return session.execute(query.order_by(PhotographRow.id)).all()

    def photograph(self, photograph: int, *, visitor: str | None = None) -> Image.Image:
        """Return one kept copy. Raises as `photograph_bytes`; ImageError: it is damaged."""
        data = self.photograph_bytes(photograph, visitor=visitor)
        return open_image(data, name=f"photograph {photograph}")

    def photograph_bytes(self, photograph: int, *, visitor: str | None = None) -> bytes:
        """Return a copy's file. Raises StoreError if it does not exist or is another visitor's."""
        query = select(PhotographRow.data).where(PhotographRow.id == photograph)
        query = query.where(owned_by(PhotographRow, visitor))
        with reading(self._engine) as session:
            data = session.scalar(query)
        if data is None:
            raise StoreError(f"There is no photograph {photograph}; it may have been deleted.")
        return data

    def delete_photographs(
        self, ids: Collection[int] | None = None, *, visitor: str | None = None
    ) -> int:
        """Delete these copies, or all; the corrections stay. Returns how many were deleted."""
        query = delete(PhotographRow).returning(PhotographRow.id)
        query = query.where(owned_by(PhotographRow, visitor))
        if ids is not None:
            query = query.where(PhotographRow.id.in_(ids))
        with writing(self._engine) as session:
            gone = session.scalars(query).all()
            if ids is not None and len(gone) != len(set(ids)):
                missing = ", ".join(map(str, sorted(set(ids) - set(gone))[:5]))
                raise StoreError(f"There is no photograph {missing}; nothing was deleted.")
            return len(gone)

    # ---- models ---------------------------------------------------------------------------------

    def add_model_version(
        self,
        folder: str | os.PathLike[str],
        model: str,
        *,
        parent: str,
        learned: Iterable[int],
        left_out: int,
        accuracy: Mapping[str, Mapping[str, float]],
    ) -> ModelVersion:
        """Record that a model was trained with corrections.

        Args:
            folder: the saved model.
            model: its `model_hash`.
            parent: that of the model that was corrected.
            learned: numbers of the corrections that were used.
            left_out: number of corrections that could not be used.
            accuracy: "before" and "after", on held-out images.

        Raises:
            StoreError: the store has this model already.
        """
        with writing(self._engine) as session:
            if session.scalar(select(ModelRow.id).where(ModelRow.hash == model)):
                raise StoreError(f"The model {model[:12]}… is in the store already.")
            numbers = sorted(set(learned))
            query = select(CorrectionRow.id).where(CorrectionRow.id.in_(numbers))
            existing = session.scalars(query).all()  # some may have been deleted meanwhile
            row = ModelRow(
                folder=os.path.abspath(folder), hash=model, parent=parent, learned=len(numbers),
                left_out=left_out, accuracy=json.dumps(accuracy), time=now(),
            )  # fmt: skip
            session.add(row)
            session.flush()
            session.add_all(LearnedRow(model_id=row.id, correction_id=each) for each in existing)
            return model_version(row)

    def model_versions(self) -> list[ModelVersion]:
        """Return all, oldest first; `nbdt.demo.corrections.model_versions` relates them."""
        with reading(self._engine) as session:
            rows = session.scalars(select(ModelRow).order_by(ModelRow.id))
            return [model_version(row) for row in rows]
