"""Distances between classes: in a classifier's weights, in WordNet, or a mixture by rank.

Distances are condensed as in SciPy: (pairs,) for the pairs (0, 1), (0, 2), … (1, 2), …
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..wordnet.database import FloatArray, IndexArray, WordNet, wordnet

BLOCK = 256  # rows multiplied at once: 20 MB at 10,000 classes
BINS = 1 << 18  # bins that separate values for ranking
PART = 1_000_000  # values ranked at once
DIGITS = 12  # of a cosine, so that rounding noise does not order equal distances


def class_distances(
    units: FloatArray, synsets: Sequence[int | None], semantics: float
) -> FloatArray:
    """Return condensed distances: Euclidean at semantics 0, else mixed ranks in [0, 1].

    The mixture is ``(1 − semantics) · rank(weights) + semantics · rank(WordNet)``. A pair with a
    class that WordNet does not know keeps the rank of its weights.

    Args:
        units: (classes, features), rows of length 1.
        synsets: (classes,) indices in WordNet, None if unknown.
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
    """Return distances between rows of length 1, ``sqrt(2 − 2 cos)``, block by block."""
    size = len(units)
    distances = np.empty(size * (size - 1) // 2)
    start = 0
    for first in range(0, size - 1, BLOCK):
        cosines = units[first : first + BLOCK] @ units[first:].T
        for row, values in enumerate(cosines[: size - 1 - first]):
            part = distances[start : start + len(values) - row - 1]
            np.subtract(1.0, values[row + 1 :], out=part)
            start += len(part)
    np.round(distances, DIGITS, out=distances)
    np.clip(distances, 0.0, None, out=distances)
    distances *= 2.0
    return np.sqrt(distances, out=distances)


def _jiang_conrath(synsets: Sequence[int | None], net: WordNet) -> FloatArray:
    """Return ``IC(a) + IC(b) − 2 IC(most informative common ancestor)``; NaN for unknown classes.

    Jiang and Conrath (1997), with the intrinsic information content of Seco et al. (2004).
    """
    known = np.array([place for place, synset in enumerate(synsets) if synset is not None])
    pairs = net.closure([synset for synset in synsets if synset is not None])
    content = net.information_content
    content_of = np.full(len(synsets), np.nan)
    content_of[known] = content[[synset for synset in synsets if synset is not None]]
    # By ascending content, so that the most informative shared ancestor is written last.
    order = np.lexsort((pairs.synset, content[pairs.synset]))
    members = _grouped(pairs.synset[order], known[pairs.row[order]])
    above = _grouped(known[pairs.row[order]], pairs.synset[order])
    distances = np.empty(len(synsets) * (len(synsets) - 1) // 2)
    start, shared = 0, np.zeros(len(synsets))
    for row in range(len(synsets) - 1):
        shared[:] = 0
        for synset in above.get(row, ()):
            shared[members[synset]] = content[synset]
        part = distances[start : start + len(synsets) - row - 1]
        part[:] = content_of[row] + content_of[row + 1 :] - 2 * shared[row + 1 :]
        start += len(part)
    return np.round(distances, DIGITS, out=distances)


def _grouped(key: IndexArray, value: IndexArray) -> dict[int, IndexArray]:
    """Group values by key, in the given order."""
    order = np.argsort(key, kind="stable")
    unique, first = np.unique(key[order], return_index=True)
    return dict(zip(unique.tolist(), np.split(value[order], first[1:]), strict=True))


def _ranks(values: FloatArray) -> FloatArray:
    """Replace each value by its mid-rank, from 0 to 1, in place; NaN stays.

    Values in the same of BINS equal bins tie: sorting millions of values would take longer than
    the clustering.
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
