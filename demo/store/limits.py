"""Limits of what visitors may fill a store with."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from nbdt.errors import listed

from .schema import CorrectionRow, HierarchyRow
from .url import StoreError


@dataclass(frozen=True)
class Limits:
    """Limits of what visitors may fill a store with; a hierarchy's bytes are those of its JSON."""

    corrections_of_visitor: int = 1_000
    corrections: int = 1_000_000
    photograph_bytes: int = 24 << 20
    photograph_bytes_of_visitor: int = 500 << 20
    photograph_bytes_in_all: int = 20 << 30
    marks_of_visitor: int = 1_000
    hierarchies_of_visitor: int = 200
    hierarchies: int = 20_000
    hierarchy_bytes: int = 32 << 20
    hierarchy_text_in_all: int = 2 << 30  # characters, which all databases count alike
    text: int = 2_000  # characters of a note


def room_for_correction(session: Session, visitor: str, limits: Limits) -> None:
    """Raise StoreError if the visitor, or all together, saved as many corrections as allowed."""
    by_visitor = count(session, select(CorrectionRow.id).where(CorrectionRow.visitor == visitor))
    instead = "Delete some first."
    at_most(by_visitor + 1, limits.corrections_of_visitor, "corrections of one visitor", instead)
    at_most(count(session, select(CorrectionRow.id)) + 1, limits.corrections,
            "corrections in this store")  # fmt: skip


def room_for_hierarchy(session: Session, visitor: str, size: int, limits: Limits) -> None:
    """Raise StoreError if the visitor, or all together, saved as many hierarchies as allowed."""
    by_visitor = count(session, select(HierarchyRow.id).where(HierarchyRow.visitor == visitor))
    instead = "Download this one instead."
    at_most(
        by_visitor + 1, limits.hierarchies_of_visitor, "saved hierarchies of one visitor", instead
    )
    at_most(count(session, select(HierarchyRow.id)) + 1, limits.hierarchies,
            "saved hierarchies in this store", instead)  # fmt: skip
    length = func.length(HierarchyRow.content) + func.length(HierarchyRow.edits)
    used = session.scalar(select(func.coalesce(func.sum(length), 0))) or 0
    at_most(used + size, limits.hierarchy_text_in_all,
            "characters of saved hierarchies in this store", instead)  # fmt: skip


def at_most(number: int, limit: int, of_what: str, remedy: str = "") -> None:
    """Raise StoreError if `number` is more than `limit`."""
    if number > limit:
        raise StoreError(f"There is room for {limit:,} {of_what}, not {number:,}. {remedy}".strip())


def check_texts(*texts: str | None) -> None:
    """Raise StoreError for what databases refuse: null characters and lone surrogates."""
    for text in texts:
        if text is not None and ("\0" in text or any("\ud800" <= c <= "\udfff" for c in text)):
            raise StoreError(
                f"Text holds a character that cannot be stored: {listed([text[:80]])}. Leave out "
                "null characters and broken emoji."
            )


def count(session: Session, query: Select[Any]) -> int:
    """Return the number of rows that a query gives."""
    return session.scalar(select(func.count()).select_from(query.subquery())) or 0


def now() -> str:
    """Return the UTC time in ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")
