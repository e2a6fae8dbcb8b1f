"""WordNet 3.0's nouns as arrays: synsets, their words, ranked senses and hypernyms.

A synset is addressed by its *index*, 0 to 82,114 in ascending order of offset, or by its *wnid*,
"n" and the eight-digit offset ("n02084071" is the dog). Nothing is read before it is asked for:
`wordnet()` loads the numbers about synsets, the first question about words loads the lexicon.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nbdt.errors import NBDTError

from .file import (
    DATA_FOLDER,
    FILE_NAME,
    IntArray,
    Relation,
    frozen,
    read_core,
    read_lexicon,
    relation,
    unpack,
)
from .lexicon import Lexicon, lemma_key, lexicon

FloatArray = npt.NDArray[np.float64]
IndexArray = npt.NDArray[np.int64]


class UnknownSynsetError(NBDTError):
    """A wnid that is not in WordNet 3.0's nouns."""


@dataclass(frozen=True, eq=False)
class Closure:
    """Synsets and all their ancestors, as pairs sorted by row.

    Attributes:
        row: (pairs,) position in the list of synsets that was asked about.
        synset: (pairs,) an ancestor's index, or the synset itself.
    """

    row: IndexArray
    synset: IndexArray


@dataclass(frozen=True, eq=False)
class WordNet:
    """The noun hierarchy. All arrays are read-only and have one entry for each synset.

    Attributes:
        offsets: (synsets,) int32, ascending: the digits of the wnids.
        lexicographer: (synsets,) int32, the lexicographer file: 5 animal, 6 artifact, 20 plant, ...
        hypernym: kinds; dog to canine.
        instance: what an individual is one of; Paris to national capital.
        hyponym_counts: (synsets,) distinct kinds below each synset; individuals do not count.
    """

    offsets: IntArray
    lexicographer: IntArray
    hypernym: Relation
    instance: Relation
    hyponym_counts: IntArray
    path: Path = field(repr=False)

    @classmethod
    def load(cls, path: Path) -> "WordNet":
        """Reads the core of a data file. Raises WordNetDataError."""
        columns = read_core(path)
        return cls(
            frozen(np.cumsum(unpack(columns["offset"]), dtype=np.int32)),
            frozen(unpack(columns["lexicographer"])),
            relation(columns, "hypernym"),
            relation(columns, "instance"),
            frozen(unpack(columns["hyponyms"])),
            path,
        )

    @property
    def num_synsets(self) -> int:
        """82,115 in WordNet 3.0."""
        return len(self.offsets)

    def index(self, wnid: str) -> int:
        """The index of "n02084071". Raises UnknownSynsetError."""
        digits = wnid[1:] if wnid[:1] == "n" and len(wnid) == 9 and wnid.isascii() else ""
        if digits.isdigit():
            place = int(np.searchsorted(self.offsets, int(digits)))
            if place < self.num_synsets and self.offsets[place] == int(digits):
                return place
        raise UnknownSynsetError(
            f"Expected the id of a WordNet 3.0 noun such as 'n02084071', got {wnid!r}."
        )

    def wnid(self, index: int) -> str:
        """The id of an index, such as "n02084071"."""
        return f"n{self.offsets[index]:08d}"

    def hypernyms(self, index: int) -> tuple[int, ...]:
        """The kinds this synset directly belongs to; none for the root and for individuals."""
        return tuple(self.hypernym[index].tolist())

    def instance_hypernyms(self, index: int) -> tuple[int, ...]:
        """What this individual (a country, a person) is an instance of; none for kinds."""
        return tuple(self.instance[index].tolist())

    def is_instance(self, index: int) -> bool:
        """Whether the synset is an individual rather than a kind."""
        return len(self.instance[index]) > 0

    @cached_property
    def parents(self) -> Relation:
        """Hypernyms and instance hypernyms together."""
        counts = self.hypernym.counts() + self.instance.counts()
        own = np.repeat(np.arange(self.num_synsets), self.hypernym.counts())
        individual = np.repeat(np.arange(self.num_synsets), self.instance.counts())
        order = np.argsort(np.concatenate([own, individual]), kind="stable")
        target = np.concatenate([self.hypernym.target, self.instance.target])[order]
        start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        return Relation(frozen(start), frozen(target))

    def closure(self, synsets: Sequence[int] | IndexArray) -> Closure:
        """Each synset with itself and all its ancestors, through kinds and instances alike."""
        return _closure(self.parents, np.asarray(synsets, dtype=np.int64), self.num_synsets)

    def ancestors(self, index: int) -> tuple[int, ...]:
        """All ancestors in ascending order of index, without the synset itself."""
        return tuple(int(other) for other in self.closure([index]).synset if other != index)

    @cached_property
    def depth(self) -> IntArray:
        """(synsets,) edges on the shortest way up to "entity"."""
        depth = np.full(self.num_synsets, -1, dtype=np.int32)
        child = np.repeat(np.arange(self.num_synsets), self.parents.counts())
        depth[self.parents.counts() == 0] = level = 0
        while (fresh := child[(depth[self.parents.target] == level) & (depth[child] < 0)]).size:
            level += 1
            depth[fresh] = level
        return frozen(depth)

    @cached_property
    def information_content(self) -> FloatArray:
        """(synsets,) intrinsic information content: 1 for a leaf, 0 for "entity".

        `1 - log(hyponyms + 1) / log(kinds)`, Seco, Veale and Hayes (2004). Individuals have 1.
        """
        kinds = int((self.instance.counts() == 0).sum())
        content: FloatArray = 1.0 - np.log1p(self.hyponym_counts) / math.log(kinds)
        content.flags.writeable = False
        return content

    def lowest_common_hypernyms(self, synsets: Iterable[int]) -> tuple[int, ...]:
        """The common ancestors with none of their kind below them, in ascending order.

        A synset counts as its own ancestor. Raises ValueError for no synset at all.
        """
        unique = sorted(set(synsets))
        if not unique:
            raise NBDTError("Expected one or more synsets, got none.")
        pairs = self.closure(unique)
        shared = np.flatnonzero(np.bincount(pairs.synset) == len(unique))
        above = self.closure(shared)
        higher = above.synset[above.synset != shared[above.row]]
        return tuple(np.setdiff1d(shared, higher).tolist())

    @cached_property
    def lexicon(self) -> Lexicon:
        """Words and senses; read at the first use."""
        return lexicon(read_lexicon(self.path))

    def senses(self, lemma: str) -> tuple[int, ...]:
        """Synsets of a lemma, most frequent first; case, spaces and underscores do not matter.

        No plurals or compounds are undone here; empty where WordNet lacks the lemma.
        """
        return tuple(self.lexicon.senses(lemma_key(lemma)))

    def tag_counts(self, lemma: str) -> tuple[int, ...]:
        """How often the sense-tagged corpus SemCor uses each of the lemma's senses."""
        return tuple(self.lexicon.tag_counts(lemma_key(lemma)))

    def lemmas(self, index: int) -> tuple[str, ...]:
        """The synset's words with spaces ("domestic dog"), most usual first."""
        return tuple(word.replace("_", " ") for word in self.lexicon.words(index))

    def name(self, index: int) -> str:
        """The synset's first word, with spaces: "dog"."""
        return self.lemmas(index)[0]


@cache
def wordnet() -> WordNet:
    """WordNet, loaded once. Raises WordNetDataError when the installed file is damaged."""
    return WordNet.load(DATA_FOLDER / FILE_NAME)


def _closure(parents: Relation, synsets: IndexArray, size: int) -> Closure:
    row, synset = np.arange(len(synsets)), synsets
    reached = [row * size + synset]
    while row.size:
        count = (parents.start[synset + 1] - parents.start[synset]).astype(np.int64)
        row = np.repeat(row, count)
        # Position within each run: a running count that restarts at every run's first entry.
        within = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
        synset = parents.target[np.repeat(parents.start[synset], count) + within].astype(np.int64)
        reached.append(row * size + synset)
    # A synset with several ways up is reached several times, on one level or on different ones.
    pairs = np.unique(np.concatenate(reached))
    return Closure(*np.divmod(pairs, size))
