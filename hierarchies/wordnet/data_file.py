"""The data file of WordNet's nouns: one JSON line, then two xz streams of columns.

The JSON line names the format, its version, the byte size of each stream and of each column. The
first stream, *core*, holds numbers about synsets; the second, *lexicon*, their words. Numbers are
zigzag-coded 32-bit integers stored byte plane by byte plane; `tools/build_wordnet.py` writes them.
"""

import json
import lzma
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

FORMAT, VERSION = "nbdt-wordnet-nouns", 1
FILE_NAME, LICENSE_NAME = "wordnet-3.0-nouns.bin", "WORDNET-LICENSE.txt"
DATA_FOLDER = Path(__file__).resolve().parents[1] / "data"
SOURCE = "WordNet 3.0 noun database, from Debian's wordnet-base 1:3.0-37"
RELATIONS = ("hypernym", "instance")
CORE_COLUMNS = (
    "offset",
    "lexicographer",
    "hyponyms",
    *(f"{relation}_{part}" for relation in RELATIONS for part in ("count", "target")),
)
LEXICON_COLUMNS = ("words", "rank", "tag_count", "plurals")

IntArray = npt.NDArray[np.int32]


class WordNetDataError(RuntimeError):
    """The installed WordNet data file is missing, damaged or of another version."""


@dataclass(frozen=True, eq=False)
class Relation:
    """Directed edges between synsets in compressed rows.

    Attributes:
        start: (synsets + 1,) int32; the targets of synset `i` are `target[start[i]:start[i + 1]]`.
        target: (edges,) int32, synset indices.
    """

    start: IntArray
    target: IntArray

    def __getitem__(self, synset: int) -> IntArray:
        return self.target[self.start[synset] : self.start[synset + 1]]

    def counts(self) -> IntArray:
        """(synsets,) number of targets of each synset."""
        return np.diff(self.start)


def header(column_bytes: Mapping[str, int], section_bytes: Sequence[int]) -> bytes:
    """Return the JSON line at the head of the file."""
    fields = {
        "format": FORMAT,
        "version": VERSION,
        "source": SOURCE,
        "license": LICENSE_NAME,
        "sections": list(section_bytes),
        "columns": dict(column_bytes),
    }
    return json.dumps(fields).encode("ascii") + b"\n"


def unpack(data: bytes) -> IntArray:
    """Return integers from their zigzag-coded byte planes."""
    planes = np.frombuffer(data, dtype="u1").reshape(4, -1)
    zigzag = np.ascontiguousarray(planes.T).view("<u4").ravel()
    values: IntArray = (zigzag >> 1).astype("i4") ^ -(zigzag & 1).astype("i4")
    return values


def read_core(path: Path) -> dict[str, bytes]:
    """Return the core columns as bytes. Raises WordNetDataError."""
    return _read_section(path, 0, CORE_COLUMNS)


def read_lexicon(path: Path) -> dict[str, bytes]:
    """Return the lexicon columns as bytes. Raises WordNetDataError."""
    return _read_section(path, 1, LEXICON_COLUMNS)


def relation(columns: Mapping[str, bytes], name: str) -> Relation:
    """Return one of RELATIONS from the core columns."""
    counts = unpack(columns[f"{name}_count"])
    start = np.concatenate([[0], np.cumsum(counts)]).astype("i4")
    source = np.repeat(np.arange(len(counts), dtype="i4"), counts)
    return Relation(frozen(start), frozen(unpack(columns[f"{name}_target"]) + source))


def frozen(array: IntArray) -> IntArray:
    """Make an array read-only, since all users of WordNet share it; return it."""
    array.flags.writeable = False
    return array


def _read_section(path: Path, number: int, order: Sequence[str]) -> dict[str, bytes]:
    try:
        with path.open("rb") as file:
            fields = _checked_header(file.readline(), path)
            sizes: list[int] = fields["sections"]
            columns = {name: int(fields["columns"][name]) for name in order}
            file.seek(sum(sizes[:number]), 1)
            raw = lzma.decompress(file.read(sizes[number]))
    except (OSError, lzma.LZMAError, LookupError, TypeError, ValueError) as error:
        raise WordNetDataError(
            f"Cannot read {path}: it is missing or damaged ({error!r}); reinstall nbdt."
        ) from error
    return _split(raw, columns, path)


def _checked_header(line: bytes, path: Path) -> dict[str, Any]:
    try:
        fields = json.loads(line)
    except ValueError:
        fields = None
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        raise WordNetDataError(f"{path} is not a {FORMAT} file; reinstall nbdt.")
    if fields.get("version") != VERSION:
        raise WordNetDataError(
            f"{path} has format version {fields.get('version')!r}, this code reads {VERSION}; "
            "rebuild it with tools/build_wordnet.py."
        )
    return fields


def _split(raw: bytes, sizes: Mapping[str, int], path: Path) -> dict[str, bytes]:
    if len(raw) != sum(sizes.values()):
        raise WordNetDataError(
            f"{path} is damaged: expected {sum(sizes.values())} bytes, got {len(raw)}; "
            "reinstall nbdt."
        )
    columns, position = {}, 0
    for name, size in sizes.items():
        columns[name] = raw[position : position + size]
        position += size
    return columns
