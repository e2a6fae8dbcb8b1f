"""The tables of a store, and the records that it returns; `migrations` changes older stores."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields

from sqlalchemy import (
    ColumnElement,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    Text,
    UniqueConstraint,
    select,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from nbdt.correction import Correction

# Names that migrations can refer to, whatever the database.
_NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
# SQLite would give the number of a deleted row to the next one; people keep these numbers.
_NUMBERS_ONCE = {"sqlite_autoincrement": True}


class Table(DeclarativeBase):
    """The base of all tables."""

    metadata = MetaData(naming_convention=_NAMES)


class AboutRow(Table):
    """Facts about the database itself, such as the release that last changed the schema."""

    __tablename__ = "about"
    key: Mapped[str] = mapped_column(Text, primary_key=True)
    value: Mapped[str] = mapped_column(Text)


class PhotographRow(Table):
    """A photograph that its owner agreed to keep: pixels alone, without loss."""

    __tablename__ = "photograph"
    __table_args__ = (UniqueConstraint("visitor", "hash"), _NUMBERS_ONCE)
    id: Mapped[int] = mapped_column(primary_key=True)
    visitor: Mapped[str] = mapped_column(Text)
    hash: Mapped[str] = mapped_column(Text, index=True)
    width: Mapped[int]
    height: Mapped[int]
    size: Mapped[int]
    time: Mapped[str] = mapped_column(Text)
    data: Mapped[bytes] = mapped_column(LargeBinary, deferred=True)


class CorrectionRow(Table):
    """The fields of `nbdt.correction.Correction`, and the visitor who made it."""

    __tablename__ = "correction"
    __table_args__ = (_NUMBERS_ONCE,)
    id: Mapped[int] = mapped_column(primary_key=True)
    visitor: Mapped[str] = mapped_column(Text, index=True)
    kind: Mapped[str] = mapped_column(Text)
    image: Mapped[str] = mapped_column(Text, index=True)
    reference: Mapped[str] = mapped_column(Text)
    node: Mapped[str | None] = mapped_column(Text)
    child: Mapped[str | None] = mapped_column(Text)
    label: Mapped[str | None] = mapped_column(Text)
    region: Mapped[str | None] = mapped_column(Text)  # four numbers, as JSON
    model: Mapped[str | None] = mapped_column(Text, index=True)
    hierarchy: Mapped[str | None] = mapped_column(Text)
    time: Mapped[str] = mapped_column(Text)
    note: Mapped[str] = mapped_column(Text)
    photograph_id: Mapped[int | None] = mapped_column(
        ForeignKey("photograph.id", ondelete="SET NULL"), index=True
    )


class HierarchyRow(Table):
    """One saved version of a hierarchy."""

    __tablename__ = "hierarchy"
    __table_args__ = (UniqueConstraint("model", "name", "version"), _NUMBERS_ONCE)
    id: Mapped[int] = mapped_column(primary_key=True)
    visitor: Mapped[str] = mapped_column(Text, index=True)
    model: Mapped[str] = mapped_column(Text)
    name: Mapped[str] = mapped_column(Text)
    version: Mapped[int]
    hash: Mapped[str] = mapped_column(Text)
    time: Mapped[str] = mapped_column(Text)
    content: Mapped[str] = mapped_column(Text, deferred=True)  # `Hierarchy.to_json`
    edits: Mapped[str] = mapped_column(Text, deferred=True)  # records of the edits, a JSON list


class MarkRow(Table):
    """A visitor's mark on one image of an evidence index; the last one on an image counts."""

    __tablename__ = "evidence_mark"
    __table_args__ = (
        Index("ix_evidence_mark_evidence_visitor", "evidence", "visitor"),
        _NUMBERS_ONCE,
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    visitor: Mapped[str] = mapped_column(Text)
    evidence: Mapped[str] = mapped_column(Text)  # `marks.evidence_hash` of the index
    reference: Mapped[str] = mapped_column(Text)
    bad: Mapped[bool]
    why: Mapped[str] = mapped_column(Text)
    time: Mapped[str] = mapped_column(Text)


class ModelRow(Table):
    """A model that was trained with corrections."""

    __tablename__ = "model_version"
    __table_args__ = (_NUMBERS_ONCE,)
    id: Mapped[int] = mapped_column(primary_key=True)
    folder: Mapped[str] = mapped_column(Text)
    hash: Mapped[str] = mapped_column(Text, unique=True)
    parent: Mapped[str] = mapped_column(Text, index=True)
    learned: Mapped[int]
    left_out: Mapped[int]
    accuracy: Mapped[str] = mapped_column(Text)  # before and after, as JSON
    time: Mapped[str] = mapped_column(Text)


class LearnedRow(Table):
    """A model and one of the corrections that it was trained with."""

    __tablename__ = "learned"
    model_id: Mapped[int] = mapped_column(
        ForeignKey("model_version.id", ondelete="CASCADE"), primary_key=True
    )
    correction_id: Mapped[int] = mapped_column(
        ForeignKey("correction.id", ondelete="CASCADE"), primary_key=True, index=True
    )


_FIELDS = tuple(field.name for field in fields(Correction))


@dataclass(frozen=True)
class SavedCorrection:
    """One correction with its number.

    Attributes:
        id: its number, which is never given again.
        visitor: its owner.
        correction: the correction itself.
        photograph: id of the kept copy, None without one.
        learned_by: ids of the model versions that were trained with it.
    """

    id: int
    visitor: str
    correction: Correction
    photograph: int | None
    learned_by: tuple[int, ...] = ()


@dataclass(frozen=True)
class ModelVersion:
    """A model that was trained with corrections.

    Attributes:
        id: its number.
        folder: the saved model.
        hash: its `model_hash`.
        parent: that of the model that was corrected.
        learned: number of corrections that it was trained with.
        left_out: number of corrections that could not be used.
        accuracy: "before" and "after", each "flat", "soft" and "hard", on held-out images.
        time: when it was recorded.
    """

    id: int
    folder: str
    hash: str
    parent: str
    learned: int
    left_out: int
    accuracy: Mapping[str, Mapping[str, float]]
    time: str


@dataclass(frozen=True)
class Pending:
    """The corrections that wait for one model.

    A correction is applied to a model if the model, or a version that it descends from, learned from
    it. It waits if it was made on a model of the same family and is not applied.

    Attributes:
        family: `model_hash` of each model of the family.
        lineage: ids of the versions that the model descends from, its own included.
    """

    family: frozenset[str]
    lineage: frozenset[int]

    def is_applied(self, saved: SavedCorrection) -> bool:
        """Return whether a correction is applied to the model."""
        return not self.lineage.isdisjoint(saved.learned_by)

    def condition(self) -> ColumnElement[bool]:
        """Return the SQL condition of the corrections that wait."""
        applied = select(LearnedRow.correction_id).where(LearnedRow.model_id.in_(self.lineage))
        return CorrectionRow.model.in_(self.family) & CorrectionRow.id.not_in(applied)


def correction_row(correction: Correction, visitor: str) -> CorrectionRow:
    """Return a correction as a row."""
    values = {name: getattr(correction, name) for name in _FIELDS}
    values["region"] = json.dumps(correction.region) if correction.region else None
    return CorrectionRow(visitor=visitor, **values)


def saved_correction(row: CorrectionRow, learned_by: tuple[int, ...]) -> SavedCorrection:
    """Return a row's correction."""
    values = {name: getattr(row, name) for name in _FIELDS}
    values["region"] = json.loads(row.region) if row.region else None
    return SavedCorrection(row.id, row.visitor, Correction(**values), row.photograph_id, learned_by)


def model_version(row: ModelRow) -> ModelVersion:
    """Return a row's model version."""
    values = {field.name: getattr(row, field.name) for field in fields(ModelVersion)}
    return ModelVersion(**values | {"accuracy": json.loads(row.accuracy)})
