"""Marks on evidence: which photographs of a memory visitors called bad, and what follows from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from sqlalchemy import Row

from nbdt.errors import NBDTError
from nbdt.explain import Evidence
from nbdt.memory.rows import Rows

from .store import Store


def memory_key(facts: Mapping[str, Any]) -> str:
    """Return what marks name a memory by: its network, or the evidence index that it was made of."""
    return str(facts.get("index") or facts["embedding_hash"])


def bad_rows(marks: Iterable[Row[Any]], rows: Rows) -> dict[str, str]:
    """Return the ids and names of the rows that the last mark of any visitor calls bad.

    Images that are no rows are passed over.
    """
    found: dict[str, str] = {}
    last = {(mark.visitor, mark.reference): mark.bad for mark in marks}
    for reference in sorted({reference for (_, reference), bad in last.items() if bad}):
        with suppress(NBDTError):
            place = rows.place(reference)
            found[rows.ids[place]] = rows.names[place]
    return found


def marked_bad(evidence: Evidence, store: Store, visitor: str) -> dict[str, str]:
    """Return the ids and names of the rows that one visitor called bad."""
    marks = store.marks(memory_key(evidence.memory.table.facts), visitor=visitor)
    return bad_rows(marks, evidence.memory.rows) if marks else {}


def view_without_bad(evidence: Evidence, store: Store, visitor: str) -> Evidence:
    """Return the evidence as one visitor sees it: without the photographs that they called bad."""
    bad = marked_bad(evidence, store, visitor)
    return evidence.view(bad) if bad else evidence
