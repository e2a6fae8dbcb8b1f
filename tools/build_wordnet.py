"""Builds `hierarchies/data/wordnet-3.0-nouns.npz` from the files of Debian's `wordnet-base`.

    apt-get install wordnet-base
    python tools/build_wordnet.py /usr/share/wordnet hierarchies/data

The result depends on the input alone, so two runs give the same bytes. It is an .npz, compressed with LZMA,
of one column for each fact. Each synset has its offset (less the one before), lexicographer file, number of
distinct kinds below it, whether it is an individual, and its number of parents; each parent is given as the
difference from its synset's index. Each word has its sense rank and its tag count. The words, with
the number of each synset's, and a line for each irregular plural are UTF-8.
"""

import argparse
import io
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdt.files import write_atomic
from nbdt.hierarchies.wordnet.database import FILE_NAME, LICENSE_NAME

HYPERNYM, INSTANCE_HYPERNYM = "@", "@i"
PARENTS = (HYPERNYM, INSTANCE_HYPERNYM)


Column = npt.NDArray[Any]


@dataclass(frozen=True)
class Synset:
    """One line of `data.noun`: words as (text, lexical id), pointers as (symbol, offset)."""

    offset: int
    lexicographer: int
    words: tuple[tuple[str, int], ...]
    pointers: tuple[tuple[str, int], ...]


def _records(path: Path) -> Iterator[list[str]]:
    """Fields of every line but the licence (whose lines begin with a space) and the gloss."""
    with path.open(encoding="latin-1") as file:
        for line in file:
            if not line.startswith(" "):
                yield line.split(" | ")[0].split()


def read_synsets(folder: Path) -> list[Synset]:
    """All noun synsets in ascending order of offset."""
    return [_synset(fields) for fields in _records(folder / "data.noun")]


def _synset(fields: Sequence[str]) -> Synset:
    words = int(fields[3], 16)
    text = fields[4 : 4 + 2 * words]
    rest = fields[5 + 2 * words :]
    pointers = zip(rest[0::4], rest[1::4], rest[2::4], strict=False)
    return Synset(
        int(fields[0]),
        int(fields[1]),
        tuple((word, int(number, 16)) for word, number in zip(text[0::2], text[1::2], strict=True)),
        tuple((symbol, int(offset)) for symbol, offset, part in pointers if part == "n"),
    )


def read_ranks(folder: Path) -> dict[tuple[str, int], int]:
    """Rank of each sense from `index.noun`: (lemma, offset) to 0 for the most frequent."""
    ranks = {}
    for fields in _records(folder / "index.noun"):
        for rank, offset in enumerate(fields[-int(fields[2]) :]):
            ranks[fields[0], int(offset)] = rank
    return ranks


def read_tag_counts(folder: Path) -> dict[str, int]:
    """How often each noun sense was tagged in SemCor, by sense key, from `cntlist.rev`."""
    rows = (fields for fields in _records(folder / "cntlist.rev") if "%1:" in fields[0])
    return {fields[0]: int(fields[2]) for fields in rows}


def read_license(folder: Path) -> str:
    """The licence text at the head of `data.noun`, without its line numbers."""
    with (folder / "data.noun").open(encoding="latin-1") as file:
        head = [line for line in file if line.startswith("  ")]
    return "\n".join(
        line.split(maxsplit=1)[1].rstrip() if len(line.split()) > 1 else "" for line in head
    )


def _edges(synsets: Sequence[Synset]) -> tuple[npt.NDArray[np.int64], ...]:
    """Counts per synset, and the targets, hypernyms first, as differences from their synset's index."""
    index = {synset.offset: number for number, synset in enumerate(synsets)}
    targets = [
        [index[offset] for wanted in PARENTS for kind, offset in synset.pointers if kind == wanted]
        for synset in synsets
    ]
    counts = np.array([len(row) for row in targets])
    flat = np.array([target for row in targets for target in row])
    return counts, flat - np.repeat(np.arange(len(synsets)), counts)


def _small(values: npt.NDArray[np.int64]) -> Column:
    """Return the values in the smallest type that holds them all."""
    types = (np.uint8, np.uint16, np.int16, np.int32)
    return next(small for kind in types if ((small := values.astype(kind)) == values).all())


def _text(parts: Iterable[str], separator: str = " ") -> Column:
    return np.frombuffer(separator.join(parts).encode("utf-8"), dtype=np.uint8)


def count_hyponyms(synsets: Sequence[Synset]) -> npt.NDArray[np.int64]:
    """Count the distinct kinds below each synset, through hypernyms alone, without individuals."""
    up = {
        synset.offset: [offset for kind, offset in synset.pointers if kind == HYPERNYM]
        for synset in synsets
    }
    counts = dict.fromkeys(up, 0)
    for synset in synsets:
        ancestors: set[int] = set()
        waiting = list(up[synset.offset])
        while waiting:
            offset = waiting.pop()
            if offset not in ancestors:
                ancestors.add(offset)
                waiting += up[offset]
        for offset in ancestors:
            counts[offset] += 1
    return np.array(list(counts.values()))


def core_columns(synsets: Sequence[Synset]) -> dict[str, Column]:
    """What `CORE_COLUMNS` lists."""
    offsets = np.array([synset.offset for synset in synsets])
    individual = [INSTANCE_HYPERNYM in dict(synset.pointers) for synset in synsets]
    counts, targets = _edges(synsets)
    return {
        "offset": _small(np.diff(offsets, prepend=0)),
        "lexicographer": _small(np.array([synset.lexicographer for synset in synsets])),
        "hyponyms": _small(count_hyponyms(synsets)),
        "individual": _small(np.array(individual, dtype=np.int64)),
        "parent_count": _small(counts),
        "parent_target": _small(targets),
    }


def lexicon_columns(synsets: Sequence[Synset], folder: Path) -> dict[str, Column]:
    """Words in synset order, with each word's sense rank and tag count, and irregular plurals."""
    ranks, counts = read_ranks(folder), read_tag_counts(folder)
    rank_column, count_column = [], []
    for synset in synsets:
        for word, number in synset.words:
            lemma = word.lower()
            rank_column.append(ranks[lemma, synset.offset])
            key = f"{lemma}%1:{synset.lexicographer:02d}:{number:02d}::"
            count_column.append(counts.get(key, 0))
    return {
        "words": _text(word for synset in synsets for word, _ in synset.words),
        "word_count": _small(np.array([len(synset.words) for synset in synsets])),
        "rank": _small(np.array(rank_column)),
        "tag_count": _small(np.array(count_column)),
        "plurals": _text(_irregular_plurals(folder), "\n"),
    }


def _irregular_plurals(folder: Path) -> Iterable[str]:
    return (" ".join(fields) for fields in _records(folder / "noun.exc"))


def build(source: Path) -> bytes:
    """The whole data file as bytes."""
    synsets = read_synsets(source)
    return pack(core_columns(synsets) | lexicon_columns(synsets, source))


def pack(columns: Mapping[str, Column]) -> bytes:
    """Columns as an .npz without times."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, column in columns.items():
            member = io.BytesIO()
            np.save(member, column)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), member.getvalue(), zipfile.ZIP_LZMA)
    return data.getvalue()


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the data file and the licence notice; return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "source", type=Path, help="folder with data.noun, index.noun, noun.exc, cntlist.rev"
    )
    parser.add_argument(
        "target", type=Path, help="folder that receives the data file and the licence"
    )
    options = parser.parse_args(arguments)
    if not (options.source / "data.noun").is_file():
        print(f"no data.noun in {options.source}; install Debian's wordnet-base", file=sys.stderr)
        return 1
    write_atomic(options.target / FILE_NAME, build(options.source))
    write_atomic(
        options.target / LICENSE_NAME, (read_license(options.source) + "\n").encode("utf-8")
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
