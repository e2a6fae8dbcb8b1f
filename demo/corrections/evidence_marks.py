"""Bad evidence: what a visitor said of training images, in their own view of the index."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from nbdt.explain import EvidenceIndex

from ..store import Store
from ..store.learning import evidence_hash
from ..store.records import EvidenceMark


def own_view(index: EvidenceIndex, store: Store, visitor: str) -> EvidenceIndex:
    """The shared index as this visitor sees it, without what they called bad."""
    bad = bad_references(store.marks(evidence_hash(index), visitor=visitor))
    return index.without(bad) if bad else index


def mark_index(folder: Path, marks: Iterable[EvidenceMark]) -> int:
    """Mark the images in an index of that folder, for everybody; returns how many.

    Raises:
        EvidenceError: no index there.
    """
    index = EvidenceIndex.load(folder)
    own = [mark for mark in marks if mark.evidence == evidence_hash(index)]
    count = 0
    for reference in bad_references(own):
        if not set(index.rows_of(reference)) <= index.excluded:
            why = next((m.why for m in reversed(own) if m.reference == reference and m.why), None)
            index.mark(reference, why=why)
            count += 1
    return count


def bad_references(marks: Iterable[EvidenceMark]) -> list[str]:
    """The images that the last mark of any visitor calls bad."""
    last = {(mark.visitor, mark.reference): mark.bad for mark in marks}
    return sorted({reference for (_, reference), bad in last.items() if bad})
