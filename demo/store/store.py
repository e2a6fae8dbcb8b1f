"""The store: corrections, photographs, marks, hierarchies, and models trained with corrections."""

import io
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Self

from PIL import Image
from sqlalchemy import Engine, Row, delete, func, select, update
from sqlalchemy.orm import Session

from nbdt.correction import Correction, picture_hash
from nbdt.hierarchies.edit.history import History
from nbdt.images.image import open_image

from . import database as db
from .hierarchies import StoredHistory
from .place import StoreError, check_disk, default_url
from .schema import (
    HierarchyRow,
    LearnedRow,
    MarkRow,
    ModelVersion,
    Pending,
    PhotographRow,
    SavedCorrection,
)


class Store:
    """A database of visitors' corrections; a write is durable when its method returns.

    A visitor is any text that the caller has verified. A method that is given a visitor reaches
    only what belongs to that visitor.
    """

    def __init__(self, engine: Engine, limits: db.Limits) -> None:
        self._engine = engine
        self.limits = limits

    @classmethod
    def open(cls, url: str | None = None, *, limits: db.Limits | None = None) -> Self:
        """Open a SQLite file (by default the user's own) or a PostgreSQL database; create it if new.

        Raises StoreError: it cannot be reached, is something else, or a newer release wrote it.
        """
        return cls(db.open_engine(url or default_url()), limits or db.Limits())

    @property
    def location(self) -> str:
        """The file or the URL, without a password."""
        url = self._engine.url
        return str(url.database) if url.drivername == "sqlite" else url.render_as_string()

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    # ---- corrections ----------------------------------------------------------------------------

    def add_correction(
        self,
        correction: Correction,
        *,
        visitor: str,
        photo: Image.Image | None = None,
        seen: tuple[str, bytes] | None = None,
    ) -> int:
        """Save a correction, and a copy of its photograph if given; returns its number.

        `seen` is the `embedding_hash` of a network and the features that it made of the photograph,
        float16.

        Raises StoreError: text that cannot be stored, another photograph, or a limit.
        """
        db.check_texts(correction.note, correction.reference, correction.label, correction.node,
                       correction.child, visitor)  # fmt: skip
        db.at_most(len(correction.note), self.limits.text, "characters in a note")
        kept = None
        if photo is not None:
            data = encoded(photo, correction.image, self.limits.photograph_bytes)
            check_disk(self._engine, len(data))
            kept = PhotographRow(
                visitor=visitor, hash=correction.image, width=photo.width, height=photo.height,
                size=len(data), data=data,
            )  # fmt: skip
        allowed = self.limits.corrections_of_visitor, self.limits.corrections
        with db.writing(self._engine) as session:
            db.check_room(session, SavedCorrection, visitor, allowed, "corrections")
            network, features = seen or (None, None)
            row = SavedCorrection(
                visitor=visitor, correction=correction, network=network, features=features
            )
            if kept is not None:
                row.photograph = keep_photograph(session, kept, self.limits)
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
        query = select(SavedCorrection).where(db.owned_by(SavedCorrection, visitor))
        if ids is not None:
            query = query.where(SavedCorrection.id.in_(ids))
        if pending is not None:
            query = query.where(pending.condition())
        with db.reading(self._engine) as session:
            return list(session.scalars(query.order_by(SavedCorrection.id)))

    def count_pending(self, pending: Pending) -> int:
        """Return how many corrections wait for training."""
        query = select(func.count(SavedCorrection.id)).where(pending.condition())
        with db.reading(self._engine) as session:
            return session.scalar(query) or 0

    def delete_corrections(self, ids: Collection[int], *, visitor: str | None = None) -> None:
        """Delete corrections atomically, with the photographs that no other correction needs.

        `visitor`: if given, they must be this visitor's.

        Raises StoreError: a number that does not exist or belongs to another visitor; the message does
        not tell which.
        """

        def work(session: Session) -> int:
            query = delete(SavedCorrection).where(SavedCorrection.id.in_(ids))
            query = query.where(db.owned_by(SavedCorrection, visitor))
            columns = SavedCorrection.id, SavedCorrection.photograph
            gone = session.execute(query.returning(*columns)).all()
            whose = "" if visitor is None else " of yours"
            if missing := sorted({*ids} - {row.id for row in gone}):
                numbers = ", ".join(map(str, missing[:5]))
                raise StoreError(
                    f"There is no correction{whose} with the number {numbers}; nothing was deleted."
                )
            photographs = {row.photograph for row in gone} - {None}
            kept = SavedCorrection.photograph
            needed = PhotographRow.id.in_(select(kept).where(kept.is_not(None)))
            unused = PhotographRow.id.in_(photographs) & ~needed
            session.execute(delete(PhotographRow).where(unused))
            return len(gone)

        db.deleting(self._engine, work)

    def delete_visitor(self, visitor: str) -> int:
        """Delete a visitor's corrections, photographs and marks; returns how many.

        Hierarchies that they saved stay, since others may use them, but no longer name them.
        """

        def work(session: Session) -> int:
            gone = 0
            for table in (SavedCorrection, PhotographRow, MarkRow):
                theirs = delete(table).where(table.visitor == visitor)
                gone += len(session.execute(theirs.returning(table.id)).all())
            saved = update(HierarchyRow).where(HierarchyRow.visitor == visitor)
            session.execute(saved.values(visitor=""))
            return gone

        return db.deleting(self._engine, work)

    # ---- photographs ----------------------------------------------------------------------------

    def photograph(self, photograph: int, *, visitor: str | None = None) -> Image.Image:
        """Return one kept copy. Raises as `photograph_bytes`; ImageError: it is damaged."""
        data = self.photograph_bytes(photograph, visitor=visitor)
        return open_image(data, name=f"photograph {photograph}")

    def photograph_bytes(self, photograph: int, *, visitor: str | None = None) -> bytes:
        """Return a copy's file. Raises StoreError if it does not exist or is another visitor's."""
        query = select(PhotographRow.data).where(PhotographRow.id == photograph)
        query = query.where(db.owned_by(PhotographRow, visitor))
        with db.reading(self._engine) as session:
            data = session.scalar(query)
        if data is None:
            raise StoreError(f"There is no photograph {photograph}; it may have been deleted.")
        return data

    # ---- hierarchies and marks ------------------------------------------------------------------

    def history(self, model: str) -> History:
        """Return the hierarchies that were saved for a model, by its `model_hash`.

        `History.save` takes the visitor as `who` and as `why` the name that they give; each name
        has versions of its own. It raises StoreError where the store's limits are reached.
        """
        return StoredHistory(self._engine, model, self.limits)

    def mark_evidence(
        self, evidence: str, reference: str, *, visitor: str, bad: bool = True, why: str = ""
    ) -> int:
        """Save that an image is bad evidence, or good again; returns the mark's number.

        Args:
            evidence: `nbdt.demo.corrections.own.memory_key` of the memory.
            bad: False takes an earlier mark back.

        Raises StoreError: text that cannot be stored, or a limit.
        """
        db.check_texts(reference, why, visitor)
        db.at_most(len(why), self.limits.text, "characters in a note")
        with db.writing(self._engine) as session:
            db.check_room(session, MarkRow, visitor, (self.limits.marks_of_visitor, None), "marks")
            row = MarkRow(visitor=visitor, evidence=evidence, reference=reference, bad=bad, why=why)
            session.add(row)
            session.flush()
            return row.id

    def marks(
        self, evidence: str | None = None, *, visitor: str | None = None
    ) -> Sequence[Row[Any]]:
        """Return the columns of `MarkRow` for one memory or all, one visitor or all; oldest first."""
        query = select(*MarkRow.__table__.columns).where(db.owned_by(MarkRow, visitor))
        if evidence is not None:
            query = query.where(MarkRow.evidence == evidence)
        with db.reading(self._engine) as session:
            return session.execute(query.order_by(MarkRow.id)).all()

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
            model: its `model_hash`.
            parent: that of the model that was corrected.
            learned: numbers of the corrections that were used.
            accuracy: "before" and "after", on held-out images.

        Raises StoreError: the store has this model already.
        """
        with db.writing(self._engine) as session:
            if session.scalar(select(ModelVersion.id).where(ModelVersion.hash == model)):
                raise StoreError(f"The model {model[:12]}… is in the store already.")
            numbers = set(learned)
            query = select(SavedCorrection.id).where(SavedCorrection.id.in_(numbers))
            existing = session.scalars(query).all()  # some may have been deleted meanwhile
            version = ModelVersion(
                folder=os.path.abspath(folder), hash=model, parent=parent, learned=len(numbers),
                left_out=left_out, accuracy=accuracy,
            )  # fmt: skip
            session.add(version)
            session.flush()
            session.add_all(LearnedRow(model_id=version.id, correction_id=one) for one in existing)
            return version

    def model_versions(self) -> list[ModelVersion]:
        """Return all, oldest first; `nbdt.demo.corrections.model_versions` relates them."""
        with db.reading(self._engine) as session:
            return list(session.scalars(select(ModelVersion).order_by(ModelVersion.id)))


def encoded(image: Image.Image, expected_hash: str, max_bytes: int) -> bytes:
    """Return a lossless WebP.

    Raises StoreError: the picture has another hash, or takes more than `max_bytes`.
    """
    if picture_hash(image) != expected_hash:
        raise StoreError(
            "The photograph is not the one that the correction is about; send both together."
        )
    rgb = image.convert("RGB")
    pixels = Image.frombytes("RGB", rgb.size, rgb.tobytes())  # no EXIF, no profile, no comment
    stream = io.BytesIO()
    pixels.save(stream, "WEBP", lossless=True, method=0, exact=True)
    data = stream.getvalue()
    if len(data) > max_bytes:
        raise StoreError(
            f"This photograph takes {len(data) / 1e6:.1f} MB without loss; at most "
            f"{max_bytes / 1e6:.0f} MB are kept. Make it smaller, or correct without keeping it."
        )
    return data


def keep_photograph(session: Session, photo: PhotographRow, limits: db.Limits) -> int:
    """Store a copy, unless the visitor has one of the same hash; returns its id.

    Raises StoreError: a limit.
    """
    same = select(PhotographRow.id).filter_by(hash=photo.hash, visitor=photo.visitor)
    if (existing := session.scalar(same)) is not None:
        return existing
    db.check_room(
        session, PhotographRow, photo.visitor,
        (limits.photograph_bytes_of_visitor, limits.photograph_bytes_in_all),
        "bytes of photographs", size=PhotographRow.size, more=photo.size,
        instead="Delete some, or correct without keeping the photograph.",
    )  # fmt: skip
    session.add(photo)
    session.flush()
    return photo.id
