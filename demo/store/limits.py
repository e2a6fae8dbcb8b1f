"""What strangers may fill a store with."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from nbdt.errors import listed

from .place import StoreError
from .schema import CorrectionRow, HierarchyRow, PhotographRow


@dataclass(frozen=True)
class Limits:
    """What strangers may fill a store with. Bytes are of photographs, and of hierarchies' JSON."""

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
    """Raises StoreError if the visitor, or everybody together, has said enough."""
    own = count(session, select(CorrectionRow.id).where(CorrectionRow.visitor == visitor))
    instead = "Delete some first."
    at_most(own + 1, limits.corrections_of_visitor, "corrections of one visitor", instead)
    at_most(count(session, select(CorrectionRow.id)) + 1, limits.corrections,
            "corrections in this store")  # fmt: skip


def room_for_hierarchy(session: Session, visitor: str, size: int, limits: Limits) -> None:
    """Raises StoreError if the visitor, or everybody together, has saved enough hierarchies."""
    own = count(session, select(HierarchyRow.id).where(HierarchyRow.visitor == visitor))
    instead = "Download this one instead."
    at_most(own + 1, limits.hierarchies_of_visitor, "saved hierarchies of one visitor", instead)
    at_most(count(session, select(HierarchyRow.id)) + 1, limits.hierarchies,
            "saved hierarchies in this store", instead)  # fmt: skip
    length = func.length(HierarchyRow.content) + func.length(HierarchyRow.edits)
    used = session.scalar(select(func.coalesce(func.sum(length), 0))) or 0
    at_most(used + size, limits.hierarchy_text_in_all,
            "characters of saved hierarchies in this store", instead)  # fmt: skip


def keep_photograph(
    session: Session,
    image: str,
    visitor: str,
    size: tuple[int, int],
    data: bytes,
    *,
    limits: Limits,
) -> int:
    """Store a copy, unless the visitor's is there already; returns its id.

    Raises:
        StoreError: there is no room for it.
    """
    known = session.scalar(
        select(PhotographRow.id).where(
            PhotographRow.hash == image, PhotographRow.visitor == visitor
        )
    )
    if known is not None:
        return known
    used = select(func.coalesce(func.sum(PhotographRow.size), 0))
    own = session.scalar(used.where(PhotographRow.visitor == visitor)) or 0
    instead = "Delete some, or correct without keeping the photograph."
    at_most(own + len(data), limits.photograph_bytes_of_visitor,
            "bytes of photographs for one visitor", instead)  # fmt: skip
    at_most((session.scalar(used) or 0) + len(data), limits.photograph_bytes_in_all,
            "bytes of photographs in this store", instead)  # fmt: skip
    row = PhotographRow(
        visitor=visitor, hash=image, width=size[0], height=size[1], size=len(data), time=now(),
        data=data,
    )  # fmt: skip
    session.add(row)
    session.flush()
    return row.id


def at_most(number: int, limit: int, of_what: str, remedy: str = "") -> None:
    """Raises StoreError if `number` is more than `limit`."""
    if number > limit:
        raise StoreError(f"There is room for {limit:,} {of_what}, not {number:,}. {remedy}".strip())


def check_texts(*texts: str | None) -> None:
    """Databases take neither a null character nor half of one beyond the basic plane."""
    for text in texts:
        if text is not None and ("\0" in text or any("\ud800" <= c <= "\udfff" for c in text)):
            raise StoreError(
                f"Text holds a character that cannot be stored: {listed([text[:80]])}. Leave out "
                "null characters and broken emoji."
            )


def count(session: Session, query: Select[Any]) -> int:
    """Rows that a query would give."""
    return session.scalar(select(func.count()).select_from(query.subquery())) or 0


def now() -> str:
    """UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")
