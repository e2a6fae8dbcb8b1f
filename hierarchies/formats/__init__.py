r"""Hierarchies in files of several formats.

========== ========================================================= =====================
format     content                                                   class order
========== ========================================================= =====================
nbdt       what `Hierarchy.save` writes                              stated
graph      networkx node-link JSON, with "links" or "edges"; the     stated, `classes`, or
           original NBDT's ``graph-*.json``                           its ``wnids/*.txt``
nested     JSON: groups within groups, "name" and "children",        stated, or as in file
           OpenImages, a list of paths
yaml       a name a line, ``group:``, ``group: [a, b]``              the lines
paths      one path a line, ``animal/cat``; ``>`` or ``\\`` separate  the lines
csv        a row a class, outermost group first; a header of ranks   the rows
           or levels is recognised, and a rank may be missing
outline    one name a line, indented below its group                 the lines
========== ========================================================= =====================
"""

import codecs
import os
import re
import stat
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from nbdt.tree.building import FORMAT, collapse_chains, composed
from nbdt.tree.hierarchy import Hierarchy
from nbdt.tree.nodes import HierarchyError

from . import graphs, groups, tables
from .class_order import FormatError
from .tables import Nodes

__all__ = ["FormatError", "read"]

ALL_MARKS = ("/", ",", ">", ";", "|", "\\", "\t")  # of equals the first counts
_YAML_LINE = re.compile(r"\s*($|#|---|- |[^\s:/>|][^:]*:(\s|$))")
MAX_BYTES = 32 * 2**20  # 100,000 classes take about 20 MB

LINES: dict[str, Callable[[str, list[str]], Nodes]] = {
    "paths": partial(tables.read_table, marks=tables.PATHS),
    "csv": partial(tables.read_table, marks=tables.CELLS),
    "outline": tables.read_outline,
    "yaml": tables.read_yaml,
}
FOREIGN = (  # how texts begin that hold no hierarchy that can be read, and what to do
    ("<", "XML or HTML; export it as CSV, one path a line"),
    ("#NEXUS", "NEXUS; write one path a line"),
    ("(", "Newick; write one path a line"),
    ("digraph", "Graphviz; write one path a line"),
    ("graph", "Graphviz; write one path a line"),
    ("format-version:", "OBO; write one path a line"),
    ("PK\x03\x04", "a spreadsheet or archive; save it as CSV"),
)


def read(
    path: str | os.PathLike[str],
    classes: Sequence[str] | None = None,
    wnids: str | os.PathLike[str] | Sequence[str] | None = None,
    *,
    collapse: bool = False,
    notes: list[str] | None = None,
) -> Hierarchy:
    """Read a hierarchy from a file in any of the formats above; names are in Unicode's form NFC.

    A file whose class order contradicts `classes` is refused, since one of the two would mislabel
    the model, as happened to the original NBDT's TinyImageNet trees.

    Args:
        classes: the model's class names in order.
        wnids: for a graph, the ids of its leaves in class order, or the file that lists them. The
            class names are then `classes`, checked against the ids, or the leaves' labels.
        collapse: remove inner nodes with a single child. Formats in which they are common, such as
            tables of ranks, lose them anyway; in the others they are refused.
        notes: gets a line for each thing that was left out or understood in one of several ways.

    Raises:
        FormatError: another or a damaged file, no hierarchy over the classes, or no class order or
            a contradictory one; the message names the file, the value and the remedy.
        OSError: the file cannot be read.
    """
    try:
        order = read_lines(wnids) if isinstance(wnids, str | os.PathLike) else wnids
        text, suffix = _read_text(path), Path(path).suffix
        return from_text(text, suffix, classes, order, collapse=collapse, notes=notes)
    except FormatError as error:
        raise FormatError(f"{os.fspath(path)!r}: {error}") from None


def from_text(
    text: str,
    suffix: str = "",
    classes: Sequence[str] | None = None,
    wnids: Sequence[str] | None = None,
    *,
    collapse: bool = False,
    notes: list[str] | None = None,
) -> Hierarchy:
    """Read a hierarchy from the text of a file with this suffix, as `read` does. Raises FormatError."""
    foreign = next((what for start, what in FOREIGN if text.lstrip().startswith(start)), None)
    if foreign or "\0" in text:
        raise FormatError(f"This is {foreign or 'not text: it contains zero bytes'}.")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    notes = [] if notes is None else notes
    try:
        kind = detect_format(text, suffix)
        if wnids is not None and kind != "graph":
            raise FormatError(f"Ids of leaves need a graph; this file is read as {kind!r}.")
        if kind == "nbdt":
            nodes, names = graphs.read_own(text, classes)
        elif kind == "graph":
            nodes, names = graphs.read_graph(text, classes, wnids)
        elif kind == "nested":
            nodes, names = groups.read_groups(groups.parse(text), classes, notes)
        else:
            nodes, names = LINES[kind](text, notes)
        if kind != "nbdt":  # which is kept as it is: its hash counts
            nodes, names = composed(nodes, names if classes is None else classes)
        hierarchy = Hierarchy(tuple(collapse_chains(nodes) if collapse else nodes), tuple(names))
    except HierarchyError as error:
        doubt = [f" Note that {note}." for note in notes if note.endswith(tables.IF_HEADER)]
        raise FormatError(f"{error}{''.join(doubt)}") from None
    return graphs.name_unnamed(hierarchy)


def detect_format(text: str, suffix: str = "") -> str:
    """Return the format of a text. Raises FormatError for an unknown one."""
    start = text.lstrip()[:1]
    if not start:
        raise FormatError("The file is empty.")
    if suffix.lower() == ".toml":
        raise FormatError("This is TOML; write it as YAML or JSON.")
    if suffix.lower() in {".yaml", ".yml"}:
        return "yaml"
    return _detect_json(groups.parse(text)) if start in "{[" else _detect_lines(text, suffix)


def _detect_lines(text: str, suffix: str) -> str:
    if suffix.lower() in {".csv", ".tsv"} and tables.separator(text, tables.CELLS):
        return "csv"
    if ":" in text and all(map(_YAML_LINE.match, text.split("\n"))):
        return "yaml"
    if tables.is_outline(text):
        return "outline"
    return "csv" if tables.separator(text, ALL_MARKS) in tables.CELLS else "paths"


def _detect_json(data: object) -> str:
    if not isinstance(data, dict):
        return "nested"
    if data.get("format") == FORMAT:
        return "nbdt"
    edges = "links" in data or "edges" in data
    return "graph" if edges and isinstance(data.get("nodes"), list) else "nested"


def _read_text(path: str | os.PathLike[str]) -> str:
    """Return the text of a regular file of bounded size. Raises FormatError, OSError."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise FormatError("This is not a regular file.")
    with open(path, "rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise FormatError(f"The file has more than {MAX_BYTES:,} bytes; expected a hierarchy.")
    marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # as Excel writes text
    try:
        return data.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError(
            f"This is not UTF-8 text (byte {data[error.start]:#04x} at {error.start:,}); save it "
            "as UTF-8."
        ) from None


def read_names(path: str | os.PathLike[str]) -> list[str]:
    """Return the class names in a JSON file that holds nothing else, such as an ``id2label``; else none.

    Raises FormatError, OSError: the file cannot be read.
    """
    return groups.class_names_in(groups.parse(_read_text(path)))


def read_lines(path: str | os.PathLike[str]) -> list[str]:
    """Return the lines of a text file that are not blank. Raises FormatError, OSError."""
    try:
        lines = [line.strip() for line in _read_text(path).splitlines()]
    except FormatError as error:
        raise FormatError(f"{os.fspath(path)!r}: {error}") from None
    if not any(lines):
        raise FormatError(f"{os.fspath(path)!r} is empty; expected one class name or id a line.")
    return [line for line in lines if line]
