"""Marks on evidence: which training images visitors called bad, and what follows from it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row

if TYPE_CHECKING:
    from nbdt.explain import EvidenceIndex

    from .store import Store


def evidence_hash(index: EvidenceIndex) -> str:
    """Return the SHA-256 of how an index was built; later marks do not change it."""
    return hashlib.sha256(json.dumps(index.manifest, sort_keys=True).encode()).hexdigest()


def bad_references(marks: Iterable[Row[Any]]) -> list[str]:
    """Return the images that the last mark of any visitor calls bad."""
    last = {(mark.visitor, mark.reference): mark.bad for mark in marks}
    return sorted({reference for (_, reference), bad in last.items() if bad})


def view_without_bad(index: EvidenceIndex, store: Store, visitor: str) -> EvidenceIndex:
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
