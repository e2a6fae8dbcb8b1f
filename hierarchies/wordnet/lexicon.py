"""The words of WordNet's synsets and the ranked senses of its lemmas, as flat columns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from .file import IntArray, frozen, unpack


@dataclass(frozen=True, eq=False)
class Lexicon:
    """Words by synset and senses by lemma, both in compressed rows.

    Attributes:
        word: (words,) as WordNet writes them ("domestic_dog"), synset by synset, best first.
        word_start: (synsets + 1,) where the words of each synset begin.
        sense: (senses,) synset indices, lemma by lemma, most frequent first.
        tag_count: (senses,) how often SemCor's annotators chose that sense of that lemma.
        sense_start: (lemmas + 1,) where the senses of each lemma begin.
        lemma_number: lemma (lower case, underscores) to its row in `sense_start`.
        plurals: irregular plural to its singulars ("mice" to "mouse").
    """

    word: Sequence[str] = field(repr=False)
    word_start: IntArray = field(repr=False)
    sense: IntArray = field(repr=False)
    tag_count: IntArray = field(repr=False)
    sense_start: IntArray = field(repr=False)
    lemma_number: Mapping[str, int] = field(repr=False)
    plurals: Mapping[str, tuple[str, ...]] = field(repr=False)

    def words(self, synset: int) -> Sequence[str]:
        """A synset's words, most usual first."""
        return self.word[self.word_start[synset] : self.word_start[synset + 1]]

    def senses(self, lemma: str) -> list[int]:
        """A lemma's synsets, most frequent first; empty where WordNet lacks it."""
        return self._row(self.sense, lemma)

    def tag_counts(self, lemma: str) -> list[int]:
        """How often each of the lemma's senses was tagged, in the order of `senses`."""
        return self._row(self.tag_count, lemma)

    def _row(self, column: IntArray, lemma: str) -> list[int]:
        number = self.lemma_number.get(lemma)
        if number is None:
            return []
        row: list[int] = column[self.sense_start[number] : self.sense_start[number + 1]].tolist()
        return row


def lemma_key(text: str) -> str:
    """How the lexicon spells a lemma: lower case, underscores for spaces."""
    return "_".join(text.lower().replace("_", " ").split())


def lexicon(columns: Mapping[str, bytes]) -> Lexicon:
    """The lexicon from the columns of the data file."""
    text = columns["words"].decode("utf-8")
    word = text.replace("\n", " ").split(" ")
    word_start = _line_starts(columns["words"])
    lemma_number: dict[str, int] = {}
    numbers = [
        lemma_number.setdefault(lemma, len(lemma_number))
        for lemma in text.lower().replace("\n", " ").split(" ")
    ]
    synset = np.repeat(np.arange(len(word_start) - 1, dtype=np.int32), np.diff(word_start))
    lemma = np.array(numbers, dtype=np.int64)
    kept = _by_rank(lemma, synset, unpack(columns["rank"]))
    counts = np.bincount(lemma[kept], minlength=len(lemma_number))
    return Lexicon(
        word,
        word_start,
        frozen(synset[kept]),
        frozen(unpack(columns["tag_count"])[kept]),
        frozen(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)),
        lemma_number,
        _plurals(columns["plurals"].decode("utf-8")),
    )


def _line_starts(text: bytes) -> IntArray:
    """Number of words before each line, and in all."""
    data = np.frombuffer(text, dtype="u1")
    separators = data[(data == ord("\n")) | (data == ord(" "))]
    ends = np.flatnonzero(separators == ord("\n")) + 1
    return frozen(np.concatenate([[0], ends, [len(separators) + 1]]).astype(np.int32))


def _by_rank(
    lemma: npt.NDArray[np.int64], synset: IntArray, rank: IntArray
) -> npt.NDArray[np.int64]:
    """Places of the senses in order of lemma, then rank; one for each lemma and synset."""
    order = np.argsort(lemma * 256 + rank, kind="stable")
    # "Moon" and "moon" are two words of one synset, but one lemma: both have the same rank.
    same = (np.diff(lemma[order]) == 0) & (np.diff(synset[order]) == 0)
    kept: npt.NDArray[np.int64] = order[np.concatenate([[True], ~same])]
    return kept


def _plurals(text: str) -> dict[str, tuple[str, ...]]:
    rows = (line.split(" ") for line in text.split("\n"))
    return {row[0]: tuple(row[1:]) for row in rows}
