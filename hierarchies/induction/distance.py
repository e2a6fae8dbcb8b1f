"""How far classes are apart: in a classifier's weights, in WordNet, or both mixed by rank.

Distances are condensed as SciPy has them: (pairs,) for the pairs (0, 1), (0, 2), … (1, 2), …
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..wordnet.database import FloatArray, IndexArray, WordNet, wordnet

BLOCK = 256  # rows whose products are held at once: 20 MB at 10,000 classes
BINS = 1 << 18  # that tell values apart when they are ranked
PART = 1_000_000  # values ranked at once
DIGITS = 12  # of a cosine: rounding noise must not decide between equal distances


def class_distances(
    units: FloatArray, synsets: Sequence[int | None], semantics: float
) -> FloatArray:
    """Condensed distances: Euclidean between rows at semantics 0, else mixed ranks in [0, 1].

    The mixture is ``(1 − semantics) · rank(weights) + semantics · rank(WordNet)``. A pair of which
    WordNet does not know both classes keeps the rank of its weights.

    Args:
        units: (classes, features), rows of length 1.
        synsets: (classes,) indices in WordNet, None where unknown.
        semantics: share of WordNet, in [0, 1].
    """
    distances = _euclidean(units)
    known = [place for place, synset in enumerate(synsets) if synset is not None]
    if not semantics or len(known) < 2:
        return distances
    distances = _ranks(distances)
    meaning = _ranks(_jiang_conrath(synsets, wordnet()))
    meaning -= distances
    meaning *= semantics
    np.nan_to_num(meaning, copy=False, nan=0.0)
    distances += meaning
    return distances


def _euclidean(units: FloatArray) -> FloatArray:
    """Distances between rows of length 1, ``sqrt(2 − 2 cos)``, block by block."""
    size = len(units)
    found = np.empty(size * (size - 1) // 2)
    at = 0
    for first in range(0, size - 1, BLOCK):
        cosines = units[first : first + BLOCK] @ units[first:].T
        for row, values in enumerate(cosines[: size - 1 - first]):
            part = found[at : at + len(values) - row - 1]
            np.subtract(1.0, values[row + 1 :], out=part)
            at += len(part)
    np.round(found, DIGITS, out=found)
    np.clip(found, 0.0, None, out=found)
    found *= 2.0
    return np.sqrt(found, out=found)


def _jiang_conrath(synsets: Sequence[int | None], net: WordNet) -> FloatArray:
    """``IC(a) + IC(b) − 2 IC(their most informative common ancestor)``; NaN if one is unknown.

    Jiang and Conrath (1997), with the intrinsic information content of Seco et al. (2004).
    """
    known = np.array([place for place, synset in enumerate(synsets) if synset is not None])
    pairs = net.closure([synset for synset in synsets if synset is not None])
    content = net.information_content
    own = np.full(len(synsets), np.nan)
    own[known] = content[[synset for synset in synsets if synset is not None]]
    # Ascending content, so that the most informative ancestor that two classes share is the last
    # to be written.
    order = np.lexsort((pairs.synset, content[pairs.synset]))
    members = _grouped(pairs.synset[order], known[pairs.row[order]])
    above = _grouped(known[pairs.row[order]], pairs.synset[order])
    found = np.empty(len(synsets) * (len(synsets) - 1) // 2)
    at, shared = 0, np.zeros(len(synsets))
    for row in range(len(synsets) - 1):
        shared[:] = 0
        for synset in above.get(row, ()):
            shared[members[synset]] = content[synset]
        part = found[at : at + len(synsets) - row - 1]
        part[:] = own[row] + own[row + 1 :] - 2 * shared[row + 1 :]
        at += len(part)
    return np.round(found, DIGITS, out=found)


def _grouped(key: IndexArray, value: IndexArray) -> dict[int, IndexArray]:
    """Values by key, in the order given."""
    order = np.argsort(key, kind="stable")
    unique, first = np.unique(key[order], return_index=True)
    return dict(zip(unique.tolist(), np.split(value[order], first[1:]), strict=True))


def _ranks(values: FloatArray) -> FloatArray:
    """In place: each value's mid-rank among all, from 0 to 1; NaN stays.

    Values are counted in BINS equal bins, and those of one bin tie: sorting millions of them would
    take longer than the clustering.
    """
    low, high = np.nanmin(values), np.nanmax(values)
    scale = (BINS - 1) / (high - low) if high > low else 0.0
    counts = np.zeros(BINS, dtype=np.int64)
    parts = [values[start : start + PART] for start in range(0, len(values), PART)]
    for part in parts:
        known = part[~np.isnan(part)]
        counts += np.bincount(((known - low) * scale).astype(np.int32), minlength=BINS)
    ranks = (np.cumsum(counts) - counts / 2) / counts.sum()
    for part in parts:
        known = ~np.isnan(part)
        part[known] = ranks[((part[known] - low) * scale).astype(np.int32)]
    return values
