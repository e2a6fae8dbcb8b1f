"""The tables of a store, and the records that it returns; `migrations` changes older stores."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.orm import Mapped, mapped_column

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


def now() -> str:
    """Return the UTC time in ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class JsonText(sa.TypeDecorator[Any]):
    """A value that is kept as JSON text."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> str | None:
        """Return what is stored."""
        return None if value is None else json.dumps(value)

    def process_result_value(self, value: str | None, dialect: sa.Dialect) -> Any:
        """Return what was stored."""
        return None if value is None else json.loads(value)


class Table(orm.DeclarativeBase):
    """The base of all tables."""

    metadata = sa.MetaData(naming_convention=_NAMES)
    type_annotation_map = {str: sa.Text}  # noqa: RUF012  as SQLAlchemy writes it


class AboutRow(Table):
    """Facts about the database itself, such as the release that last changed the schema."""

    __tablename__ = "about"
    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]


class PhotographRow(Table):
    """A photograph that its owner agreed to keep: pixels alone, without loss."""

    __tablename__ = "photograph"
    __table_args__ = (sa.UniqueConstraint("visitor", "hash"), _NUMBERS_ONCE)
    id: Mapped[int] = mapped_column(primary_key=True)
    visitor: Mapped[str]
    hash: Mapped[str] = mapped_column(index=True)
    width: Mapped[int]
    height: Mapped[int]
    size: Mapped[int]
    time: Mapped[str] = mapped_column(default=now)
    data: Mapped[bytes] = mapped_column(sa.LargeBinary, deferred=True)


class SavedCorrection(Table):
    """A correction with its number, which is never given again, and the visitor who made it."""

    __tablename__ = "correction"
    __table_args__ = (_NUMBERS_ONCE,)
    id: Mapped[int] = mapped_column(primary_key=True)
    visitor: Mapped[str] = mapped_column(index=True)
    kind: Mapped[str]
    image: Mapped[str] = mapped_column(index=True)
    reference: Mapped[str]
    node: Mapped[str | None]
    child: Mapped[str | None]
    label: Mapped[str | None]
    region: Mapped[list[float] | None] = mapped_column(JsonText)
    model: Mapped[str | None] = mapped_column(index=True)
    hierarchy: Mapped[str | None]
    time: Mapped[str]
    note: Mapped[str]
    photograph: Mapped[int | None] = mapped_column(  # the kept copy
        "photograph_id", sa.ForeignKey("photograph.id", ondelete="SET NULL"), index=True
    )
    # what the network made of the photograph, float16, and the `embedding_hash` of that network
    features: Mapped[bytes | None] = mapped_column(sa.LargeBinary)
    network: Mapped[str | None]
    correction: Mapped[Correction] = orm.composite(  # the columns from `kind` to `note`
        Correction, *(field.name for field in fields(Correction))
    )
    _learned: Mapped[list[LearnedRow]] = orm.relationship(
        order_by="LearnedRow.model_id", lazy="selectin", viewonly=True
    )

    @property
    def learned_by(self) -> tuple[int, ...]:
        """Ids of the model versions that were trained with it."""
        return tuple(row.model_id for row in self._learned)


class HierarchyRow(Table):
    """One saved version of a hierarchy."""

    __tablename__ = "hierarchy"
    __table_args__ = (sa.UniqueConstraint("model", "name", "version"), _NUMBERS_ONCE)
    id: Mapped[int] = mapped_column(primary_key=True)
    visitor: Mapped[str] = mapped_column(index=True)
    model: Mapped[str]
    name: Mapped[str]
    version: Mapped[int]
    hash: Mapped[str]
    time: Mapped[str]
    content: Mapped[str] = mapped_column(deferred=True)  # `Hierarchy.to_json`
    edits: Mapped[str] = mapped_column(deferred=True)  # records of the edits, a JSON list


class MarkRow(Table):
    """A visitor's mark on one image of a memory; the last one on an image counts."""

    __tablename__ = "evidence_mark"
    __table_args__ = (
        sa.Index("ix_evidence_mark_evidence_visitor", "evidence", "visitor"),
        _NUMBERS_ONCE,
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    visitor: Mapped[str]
    evidence: Mapped[str]  # `memory_key` of the memory
    reference: Mapped[str]
    bad: Mapped[bool]
    why: Mapped[str]
    time: Mapped[str] = mapped_column(default=now)


class ModelVersion(orm.MappedAsDataclass, Table):
    """A model that was trained with corrections."""

    __tablename__ = "model_version"
    __table_args__ = (_NUMBERS_ONCE,)
    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    folder: Mapped[str]
    hash: Mapped[str] = mapped_column(unique=True)  # its `model_hash`
    parent: Mapped[str] = mapped_column(index=True)  # that of the model that was corrected
    learned: Mapped[int]  # number of corrections that it was trained with
    left_out: Mapped[int]  # number of corrections that could not be used
    # "before" and "after", each "flat", "soft" and "hard", on held-out images
    accuracy: Mapped[Mapping[str, Mapping[str, float]]] = mapped_column(JsonText)
    time: Mapped[str] = mapped_column(init=False, insert_default=now)


class LearnedRow(Table):
    """A model and one of the corrections that it was trained with."""

    __tablename__ = "learned"
    model_id: Mapped[int] = mapped_column(
        sa.ForeignKey("model_version.id", ondelete="CASCADE"), primary_key=True
    )
    correction_id: Mapped[int] = mapped_column(
        sa.ForeignKey("correction.id", ondelete="CASCADE"), primary_key=True, index=True
    )


@dataclass(frozen=True)
class Pending:
    """The corrections that wait for one model.

    A correction is applied to a model if the model, or a version that it descends from, learned from
    it. It waits if it was made on a model of the same family and is not applied.
    """

    family: frozenset[str]  # `model_hash` of each model of the family
    lineage: frozenset[int]  # ids of the versions that the model descends from, its own included

    def is_applied(self, saved: SavedCorrection) -> bool:
        """Return whether a correction is applied to the model."""
        return not self.lineage.isdisjoint(saved.learned_by)

    def condition(self) -> sa.ColumnElement[bool]:
        """Return the SQL condition of the corrections that wait."""
        applied = sa.select(LearnedRow.correction_id).where(LearnedRow.model_id.in_(self.lineage))
        return SavedCorrection.model.in_(self.family) & SavedCorrection.id.not_in(applied)
