"""What a store gives back: frozen results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from nbdt.correction import Correction

from .schema import CorrectionRow, HierarchyRow, MarkRow, ModelRow, PhotographRow

_FIELDS = tuple(field.name for field in fields(Correction))


@dataclass(frozen=True)
class SavedCorrection:
    """One correction with its number.

    Attributes:
        id: its number, which no other will ever have.
        visitor: whose it is.
        correction: what was said.
        photograph: id of the kept copy, None without one.
        learned_by: ids of the model versions that learnt from it.
    """

    id: int
    visitor: str
    correction: Correction
    photograph: int | None
    learned_by: tuple[int, ...] = ()


@dataclass(frozen=True)
class StoredPhotograph:
    """A copy that its owner agreed to; width and height in pixels, size in bytes."""

    id: int
    visitor: str
    hash: str
    width: int
    height: int
    size: int
    time: str


@dataclass(frozen=True)
class SavedHierarchy:
    """One version of a named hierarchy; `Store.hierarchy` gives the tree."""

    id: int
    visitor: str
    model: str
    name: str
    version: int
    hash: str
    time: str


@dataclass(frozen=True)
class EvidenceMark:
    """What a visitor said of one image of an index."""

    id: int
    visitor: str
    evidence: str
    reference: str
    bad: bool
    why: str
    time: str


@dataclass(frozen=True)
class ModelVersion:
    """A model that learnt from corrections.

    Attributes:
        id: its number.
        folder: the saved model.
        hash: its `model_hash`.
        parent: that of the model that was corrected.
        learned: corrections it learnt from.
        left_out: corrections that could not be used.
        accuracy: "before" and "after", each "flat", "soft" and "hard", on held-out images.
        time: of its making.
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
    """Which corrections wait: said of any of these models, and learnt by none of these versions.

    Attributes:
        models: `model_hash` of each.
        known: ids of versions.
    """

    models: frozenset[str]
    known: frozenset[int]


def correction_row(correction: Correction, visitor: str) -> CorrectionRow:
    """As it is stored."""
    values = {name: getattr(correction, name) for name in _FIELDS}
    values["region"] = json.dumps(correction.region) if correction.region else None
    return CorrectionRow(visitor=visitor, **values)


def saved_correction(row: CorrectionRow, learned_by: tuple[int, ...]) -> SavedCorrection:
    """As it was said."""
    values = {name: getattr(row, name) for name in _FIELDS}
    values["region"] = json.loads(row.region) if row.region else None
    return SavedCorrection(row.id, row.visitor, Correction(**values), row.photograph_id, learned_by)


def stored_photograph(row: PhotographRow) -> StoredPhotograph:
    """Without its pixels."""
    return StoredPhotograph(**_values(StoredPhotograph, row))


def saved_hierarchy(row: HierarchyRow) -> SavedHierarchy:
    """Without its nodes."""
    return SavedHierarchy(**_values(SavedHierarchy, row))


def evidence_mark(row: MarkRow) -> EvidenceMark:
    """As it was said."""
    return EvidenceMark(**_values(EvidenceMark, row))


def model_version(row: ModelRow) -> ModelVersion:
    """With its figures."""
    values = _values(ModelVersion, row) | {"accuracy": json.loads(row.accuracy)}
    return ModelVersion(**values)


def _values(kind: Any, row: Any) -> dict[str, Any]:
    return {field.name: getattr(row, field.name) for field in fields(kind)}
