"""The results that a store returns, all frozen."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, select

from nbdt.correction import Correction

from .schema import CorrectionRow, LearnedRow, ModelRow

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
class StoredPhotograph:
    """A copy that its owner agreed to keep; width and height in pixels, size in bytes."""

    id: int
    visitor: str
    hash: str
    width: int
    height: int
    size: int
    time: str


@dataclass(frozen=True)
class EvidenceMark:
    """A visitor's mark on one image of an evidence index; `evidence` is its `evidence_hash`."""

    id: int
    visitor: str
    evidence: str
    reference: str
    bad: bool
    why: str
    time: str


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


_Record = TypeVar("_Record", StoredPhotograph, EvidenceMark, ModelVersion)


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
    return from_row(ModelVersion, row, accuracy=json.loads(row.accuracy))


def from_row(kind: type[_Record], row: Any, **replaced: Any) -> _Record:
    """Return the record of that kind with a row's values; `replaced` holds the converted ones."""
    names = (field.name for field in fields(kind) if field.name not in replaced)
    return kind(**{name: getattr(row, name) for name in names}, **replaced)
