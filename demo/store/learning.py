"""What corrections led to: evidence that no longer counts, and models that learnt."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from sqlalchemy import select

from . import records
from .base import Base
from .engine import reading, writing
from .limits import at_most, check_texts, count, now
from .place import StoreError
from .records import EvidenceMark, ModelVersion
from .schema import CorrectionRow, LearnedRow, MarkRow, ModelRow

if TYPE_CHECKING:
    from nbdt.explain import EvidenceIndex


class Learning(Base):
    """Marks of evidence, and versions of models."""

    def mark_evidence(
        self, evidence: str, reference: str, *, visitor: str, bad: bool = True, why: str = ""
    ) -> int:
        """Keep that an image of the index `evidence_hash` names is bad evidence, or good again.

        Raises:
            StoreError: text that cannot be stored, or a limit.
        """
        check_texts(reference, why, visitor)
        at_most(len(why), self.limits.text, "characters in a note")
        with writing(self._engine) as session:
            own = count(session, select(MarkRow.id).where(MarkRow.visitor == visitor))
            at_most(own + 1, self.limits.marks_of_visitor, "marks of one visitor")
            row = MarkRow(
                visitor=visitor, evidence=evidence, reference=reference, bad=bad, why=why,
                time=now(),
            )  # fmt: skip
            session.add(row)
            session.flush()
            return row.id

    def marks(
        self, evidence: str | None = None, *, visitor: str | None = None
    ) -> list[EvidenceMark]:
        """What was said of an index, or of all, by one visitor or by all; oldest first."""
        query = select(MarkRow).order_by(MarkRow.id)
        if evidence is not None:
            query = query.where(MarkRow.evidence == evidence)
        if visitor is not None:
            query = query.where(MarkRow.visitor == visitor)
        with reading(self._engine) as session:
            return [records.evidence_mark(row) for row in session.scalars(query)]

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
        """Keep that the model in `folder`, of this hash, learnt these corrections from `parent`.

        Raises:
            StoreError: this model is here already.
        """
        with writing(self._engine) as session:
            if session.scalar(select(ModelRow.id).where(ModelRow.hash == model)):
                raise StoreError(f"The model {model[:12]}… is in the store already.")
            wanted = sorted(set(learned))
            there = session.scalars(select(CorrectionRow.id).where(CorrectionRow.id.in_(wanted)))
            kept = there.all()  # some may have been deleted while it learnt
            row = ModelRow(
                folder=os.path.abspath(folder), hash=model, parent=parent, learned=len(wanted),
                left_out=left_out, accuracy=json.dumps(accuracy), time=now(),
            )  # fmt: skip
            session.add(row)
            session.flush()
            session.add_all(LearnedRow(model_id=row.id, correction_id=each) for each in kept)
            return records.model_version(row)

    def model_versions(self) -> list[ModelVersion]:
        """All, oldest first; see `store_models` for who descends from whom."""
        with reading(self._engine) as session:
            rows = session.scalars(select(ModelRow).order_by(ModelRow.id))
            return [records.model_version(row) for row in rows]


def evidence_hash(index: EvidenceIndex) -> str:
    """SHA-256 of what an index was built as, whatever was marked in it since."""
    return hashlib.sha256(json.dumps(index.manifest, sort_keys=True).encode()).hexdigest()
