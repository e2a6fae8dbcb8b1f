"""WordNet 3.0's nouns as arrays: synsets, their words, ranked senses and hypernyms.

A synset is addressed by its *index*, 0 to 82,114 in ascending order of offset, or by its *wnid*,
"n" and the eight-digit offset ("n02084071" is the dog). Data is read when it is first needed:
`wordnet()` loads the numbers about synsets, the first question about words the lexicon. The data file
is an .npz of columns; `tools/build_wordnet.py` writes it and describes them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdt.errors import NBDTError
from nbdt.files import NPZ_ERRORS

DATA_FOLDER = Path(__file__).resolve().parents[1] / "data"
FILE_NAME, LICENSE_NAME = "wordnet-3.0-nouns.npz", "WORDNET-LICENSE.txt"
CORE_COLUMNS = ("offset", "lexicographer", "hyponyms", "individual", "parent_count",
                "parent_target")  # fmt: skip
LEXICON_COLUMNS = ("words", "word_count", "rank", "tag_count", "plurals")

IntArray = npt.NDArray[np.int32]
FloatArray = npt.NDArray[np.float64]
IndexArray = npt.NDArray[np.int64]


class WordNetDataError(RuntimeError):
    """The installed WordNet data file is missing or damaged."""


class UnknownSynsetError(NBDTError):
    """A wnid that is not in WordNet 3.0's nouns."""


@dataclass(frozen=True, eq=False)
class Relation:
    """Directed edges between synsets: those of synset `i` are `target[start[i]:start[i + 1]]`."""

    start: IntArray  # (synsets + 1,) int32
    target: IntArray  # (edges,) int32, synset indices

    def __getitem__(self, synset: int) -> IntArray:
        return self.target[self.start[synset] : self.start[synset + 1]]


@dataclass(frozen=True, eq=False, repr=False)
class Lexicon:
    """Words by synset and senses by lemma, both in compressed rows."""

    word: Sequence[str]  # as WordNet writes them ("domestic_dog"), synset by synset, best first
    word_start: IntArray  # (synsets + 1,) where the words of each synset begin
    sense: IntArray  # (senses,) synset indices, lemma by lemma, most frequent first
    tag_count: IntArray  # (senses,) how often SemCor's annotators chose that sense of that lemma
    sense_start: IntArray  # (lemmas + 1,) where the senses of each lemma begin
    lemma_number: Mapping[str, int]  # lemma (lower case, underscores) to its row in `sense_start`
    plurals: Mapping[str, tuple[str, ...]]  # irregular plural to its singulars

    def words(self, synset: int) -> Sequence[str]:
        """Return a synset's words, most usual first."""
        return self.word[self.word_start[synset] : self.word_start[synset + 1]]

    def row(self, column: IntArray, lemma: str) -> list[int]:
        """Return a lemma's part of `sense` or `tag_count`; empty if WordNet lacks it."""
        number = self.lemma_number.get(lemma_key(lemma))
        if number is None:
            return []
        row: list[int] = column[self.sense_start[number] : self.sense_start[number + 1]].tolist()
        return row


@dataclass(frozen=True, eq=False)
class WordNet:
    """The noun hierarchy. All arrays are read-only, int32, with one entry for each synset."""

    offsets: IntArray  # ascending: the digits of the wnids
    lexicographer: IntArray  # the lexicographer file: 5 animal, 6 artifact, 20 plant, ...
    individual: IntArray  # 1 for an individual such as Paris, 0 for a kind
    parents: Relation  # hypernyms, dog to canine; then what an individual is one of
    hyponym_counts: IntArray  # distinct kinds below each synset; individuals do not count
    path: Path = field(repr=False)

    @classmethod
    def load(cls, path: Path) -> "WordNet":
        """Read the core of a data file. Raises WordNetDataError."""
        columns = read_columns(path, CORE_COLUMNS)
        counts = columns["parent_count"]
        source = np.repeat(np.arange(len(counts)), counts)
        return cls(
            _frozen(np.cumsum(columns["offset"])),
            _frozen(columns["lexicographer"]),
            _frozen(columns["individual"]),
            Relation(_starts(counts), _frozen(columns["parent_target"] + source)),
            _frozen(columns["hyponyms"]),
            path,
        )

    @property
    def num_synsets(self) -> int:
        """82,115 in WordNet 3.0."""
        return len(self.offsets)

    @cached_property
    def _places(self) -> dict[str, int]:
        return {f"n{offset:08d}": place for place, offset in enumerate(self.offsets.tolist())}

    def find(self, wnid: str | None) -> int | None:
        """Return the index of "n02084071"; None without an id, or if WordNet lacks it."""
        return None if wnid is None else self._places.get(wnid)

    def index(self, wnid: str) -> int:
        """Return the index of "n02084071". Raises UnknownSynsetError."""
        place = self.find(wnid)
        if place is None:
            raise UnknownSynsetError(
                f"Expected the id of a WordNet 3.0 noun such as 'n02084071', got {wnid!r}."
            )
        return place

    def wnid(self, index: int) -> str:
        """Return the id of an index, such as "n02084071"."""
        return f"n{self.offsets[index]:08d}"

    def closure(self, synsets: Sequence[int] | IndexArray) -> tuple[IndexArray, IndexArray]:
        """Pair each synset with itself and all its ancestors, through kinds and instances.

        Returns:
            row, synset: (pairs,) position in `synsets`, ascending, and index of the ancestor.
        """
        synset, parents = np.asarray(synsets, dtype=np.int64), self.parents
        row = np.arange(len(synset))
        reached = [row * self.num_synsets + synset]
        while row.size:
            count = (parents.start[synset + 1] - parents.start[synset]).astype(np.int64)
            row = np.repeat(row, count)
            # Position within each run: a count that restarts at every run's first entry.
            within = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
            synset = parents.target[np.repeat(parents.start[synset], count) + within].astype(int)
            reached.append(row * self.num_synsets + synset)
        # Several paths may lead up to one synset.
        return np.divmod(np.unique(np.concatenate(reached)), self.num_synsets)

    def ancestors(self, index: int) -> tuple[int, ...]:
        """Return all ancestors in ascending order of index, without the synset itself."""
        return tuple(int(other) for other in self.closure([index])[1] if other != index)

    @cached_property
    def information_content(self) -> FloatArray:
        """(synsets,) intrinsic information content: 1 for a leaf, 0 for "entity".

        `1 - log(hyponyms + 1) / log(kinds)`, Seco, Veale and Hayes (2004). Individuals have 1.
        """
        kinds = self.num_synsets - int(self.individual.sum())
        content: FloatArray = 1.0 - np.log1p(self.hyponym_counts) / math.log(kinds)
        content.flags.writeable = False
        return content

    @cached_property
    def lexicon(self) -> Lexicon:
        """Words and senses, read at the first use."""
        return read_words(read_columns(self.path, LEXICON_COLUMNS))

    def senses(self, lemma: str) -> tuple[int, ...]:
        """Return a lemma's synsets, most frequent first; empty if WordNet lacks it.

        Case, spaces and underscores do not matter. Plurals and compounds are not analysed.
        """
        return tuple(self.lexicon.row(self.lexicon.sense, lemma))

    def tag_counts(self, lemma: str) -> tuple[int, ...]:
        """Return how often the sense-tagged corpus SemCor uses each of the lemma's senses."""
        return tuple(self.lexicon.row(self.lexicon.tag_count, lemma))

    def lemmas(self, index: int) -> tuple[str, ...]:
        """Return the synset's words with spaces ("domestic dog"), most usual first."""
        return tuple(word.replace("_", " ") for word in self.lexicon.words(index))

    def name(self, index: int) -> str:
        """Return the synset's first word, with spaces: "dog"."""
        return self.lemmas(index)[0]


@cache
def wordnet() -> WordNet:
    """Return WordNet, loaded once. Raises WordNetDataError if the installed file is damaged."""
    return WordNet.load(DATA_FOLDER / FILE_NAME)


def read_columns(path: Path, names: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    """Return columns of the data file by name. Raises WordNetDataError."""
    try:
        with path.open("rb") as file, np.load(file) as columns:
            return {name: columns[name] for name in names}
    except NPZ_ERRORS as error:
        raise WordNetDataError(
            f"Cannot read {path}: it is missing or damaged ({error!r}); reinstall nbdt."
        ) from error


def _frozen(array: npt.NDArray[Any]) -> IntArray:
    """Return an int32 array that is read-only, since all users of WordNet share it."""
    result = array.astype(np.int32)
    result.flags.writeable = False
    return result


def _starts(counts: npt.NDArray[Any]) -> IntArray:
    """Return where each row begins, and the total."""
    return _frozen(np.concatenate([[0], np.cumsum(counts)]))


def lemma_key(text: str) -> str:
    """Return a lemma as the lexicon spells it: lower case, underscores for spaces."""
    return "_".join(text.lower().replace("_", " ").split())


def read_words(columns: Mapping[str, npt.NDArray[Any]]) -> Lexicon:
    """Build the lexicon from the columns of the data file."""
    word = columns["words"].tobytes().decode("utf-8").split(" ")
    lemma_number: dict[str, int] = {}
    numbers = [lemma_number.setdefault(text.lower(), len(lemma_number)) for text in word]
    synset = np.repeat(np.arange(len(columns["word_count"])), columns["word_count"])
    lemma = np.array(numbers, dtype=np.int64)
    order = np.argsort(lemma * 256 + columns["rank"], kind="stable")
    # "Moon" and "moon" are two words of one synset, but one lemma: both have the same rank.
    same = (np.diff(lemma[order]) == 0) & (np.diff(synset[order]) == 0)
    chosen = order[np.concatenate([[True], ~same])]
    counts = np.bincount(lemma[chosen], minlength=len(lemma_number))
    lines = columns["plurals"].tobytes().decode("utf-8").split("\n")
    plurals = (line.split(" ") for line in lines)
    return Lexicon(
        word,
        _starts(columns["word_count"]),
        _frozen(synset[chosen]),
        _frozen(columns["tag_count"][chosen]),
        _starts(counts),
        lemma_number,
        {row[0]: tuple(row[1:]) for row in plurals},
    )
