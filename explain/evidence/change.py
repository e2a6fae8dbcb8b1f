"""What changes when an image no longer counts as evidence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from nbdt.decide import paths

from ..result.explanation import DecisionEvidence
from .index import EvidenceIndex
from .per_decision import NEIGHBOURS, ModelEvidence
from .search import Rows, best_of, units

AMONG = 200  # nearest images of a marked one, whose own neighbours are checked
CHUNK = 16  # of them in one matrix product


@dataclass(frozen=True)
class DecisionChange:
    """A decision whose evidence changes.

    Attributes:
        decision: of the path.
        before: while the images counted.
        after: without them.
    """

    decision: paths.Decision
    before: DecisionEvidence
    after: DecisionEvidence


@dataclass(frozen=True)
class VoteChange:
    """An image of the index whose nearest neighbours change.

    Attributes:
        reference: the image.
        label: its class.
        before: classes of its k nearest others, nearest first, while the marked images counted.
        after: the same without them.
    """

    reference: str
    label: str
    before: tuple[str, ...]
    after: tuple[str, ...]

    @property
    def votes(self) -> tuple[str, str]:
        """The most frequent class of the neighbours, before and after; ties go to the nearest."""
        return _majority(self.before), _majority(self.after)


def _majority(labels: tuple[str, ...]) -> str:
    return Counter(labels).most_common(1)[0][0] if labels else ""


def path_changes(
    evidence: ModelEvidence,
    features: Tensor,
    path: paths.Path,
    rows: Collection[int],
    k: int = NEIGHBOURS,
) -> tuple[DecisionChange, ...]:
    """Compare the evidence of a path with and without some rows, where it contains them.

    Args:
        evidence: from `EvidenceIndex.for_model`.
        features: (features,), as in `ModelEvidence.for_path`.
        path: of the same image.
        rows: rows to leave out, marked already or not.
        k: images a side.
    """
    others = evidence.excluded() - set(rows)
    before = evidence.for_path(features, path, k, without=others)
    after = evidence.for_path(features, path, k, without=others | set(rows))
    changes = map(DecisionChange, path, before, after)
    return tuple(change for change in changes if change.before != change.after)


def vote_changes(
    index: EvidenceIndex, rows: Collection[int], k: int = NEIGHBOURS, among: int = AMONG
) -> tuple[VoteChange, ...]:
    """List images of the index that have any of the rows among their k nearest others.

    Only the `among` images nearest to the rows are checked, nearest first. No model is needed.
    """
    others = index.excluded - set(rows)
    hidden = np.array(sorted(others), dtype=np.int64)
    marked = np.array(sorted(rows), dtype=np.int64)
    changes = []
    for row, ranked in _neighbourhoods(index, marked, hidden, k, among):
        before = ranked[:k]
        after = ranked[~np.isin(ranked, marked)][:k]
        if not np.array_equal(before, after):
            labels = [tuple(map(index.label, side.tolist())) for side in (before, after)]
            changes.append(VoteChange(index.reference(row), index.label(row), *labels))
    return tuple(changes)


def _neighbourhoods(
    index: EvidenceIndex, marked: Rows, hidden: Rows, k: int, among: int
) -> Iterator[tuple[int, Rows]]:
    """Yield images near the marked ones with their k + marked nearest others."""
    embeddings = index.search.embeddings
    nearness = index.search.similarities(units(embeddings[marked]).T).max(axis=1)
    nearness[hidden] = nearness[marked] = -np.inf
    everyone = np.arange(len(index))
    close = best_of(nearness, everyone, among)
    close = close[np.isfinite(nearness[close])]
    for at in range(0, len(close), CHUNK):
        some = close[at : at + CHUNK]
        similarities = index.search.similarities(units(embeddings[some]).T).T
        similarities[:, hidden] = -np.inf
        for row, to_others in zip(some.tolist(), similarities, strict=True):
            to_others[row] = -np.inf
            ranked = best_of(to_others, everyone, k + len(marked))
            yield row, ranked[np.isfinite(to_others[ranked])]
