"""Marks on evidence: which training images visitors called bad, and what follows from it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row, select

from .database import Database, at_most, check_texts, count, now, owned_by, reading, writing
from .schema import MarkRow

if TYPE_CHECKING:
    from nbdt.explain import EvidenceIndex


class Marks(Database):
    """The marks in a store."""

    def mark_evidence(
        self, evidence: str, reference: str, *, visitor: str, bad: bool = True, why: str = ""
    ) -> int:
        """Save that an image is bad evidence, or good again; returns the mark's number.

        Args:
            evidence: `evidence_hash` of the index.
            reference: the image in the index.
            visitor: whose mark it is.
            bad: False takes an earlier mark back.
            why: the visitor's reason.

        Raises:
            StoreError: text that cannot be stored, or a limit.
        """
        check_texts(reference, why, visitor)
        at_most(len(why), self.limits.text, "characters in a note")
        with writing(self._engine) as session:
            number = count(session, select(MarkRow.id).where(MarkRow.visitor == visitor))
            at_most(number + 1, self.limits.marks_of_visitor, "marks of one visitor")
            row = MarkRow(
                visitor=visitor, evidence=evidence, reference=reference, bad=bad, why=why,
                time=now(),
            )  # fmt: skip
            session.add(row)
            session.flush()
            return row.id

    def marks(
        self, evidence: str | None = None, *, visitor: str | None = None
    ) -> Sequence[Row[Any]]:
        """Return the columns of `MarkRow` for one index or all, one visitor or all; oldest first."""
        query = select(*MarkRow.__table__.columns).where(owned_by(MarkRow, visitor))
        if evidence is not None:
            query = query.where(MarkRow.evidence == evidence)
        with reading(self._engine) as session:
            return session.execute(query.order_by(MarkRow.id)).all()


def evidence_hash(index: EvidenceIndex) -> str:
    """Return the SHA-256 of how an index was built; later marks do not change it."""
    return hashlib.sha256(json.dumps(index.manifest, sort_keys=True).encode()).hexdigest()


def bad_references(marks: Iterable[Row[Any]]) -> list[str]:
    """Return the images that the last mark of any visitor calls bad."""
    last = {(mark.visitor, mark.reference): mark.bad for mark in marks}
    return sorted({reference for (_, reference), bad in last.items() if bad})


def view_without_bad(index: EvidenceIndex, store: Marks, visitor: str) -> EvidenceIndex:
    """Return the shared index as one visitor sees it: without the images that they called bad."""
    bad = bad_references(store.marks(evidence_hash(index), visitor=visitor))
    return index.without(bad) if bad else index


def mark_index(folder: Path, marks: Iterable[Row[Any]]) -> int:
    """Mark the images in the index in a folder, for all visitors; returns how many.

    Raises:
        EvidenceError: there is no index.
    """
    from nbdt.explain import EvidenceIndex

    index = EvidenceIndex.load(folder)
    relevant = [mark for mark in marks if mark.evidence == evidence_hash(index)]
    marked = 0
    for reference in bad_references(relevant):
        if not set(index.rows_of(reference)) <= index.excluded:
            reasons = (m.why for m in reversed(relevant) if m.reference == reference and m.why)
            index.mark(reference, why=next(reasons, None))
            marked += 1
    return marked
