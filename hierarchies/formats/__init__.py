"""Hierarchies in files of several formats: `read` and `write`.

========== ========================================================= =====================
format     content                                                   class order
========== ========================================================= =====================
nbdt       what `Hierarchy.save` writes                              stated
node-link  networkx node-link JSON, with "links" or "edges"          stated, or `classes`
original   ``graph-*.json`` of the original NBDT; read only          its ``wnids/*.txt``
nested     ``{"animal": ["cat", "dog"]}``, or objects with "name"    stated, or as in file
           and "children"; read only
paths      text, one path a class: ``animal/cat``; read only         the lines
csv        a row a class, outermost group first, no header; read     the rows
           only
========== ========================================================= =====================
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from nbdt.errors import listed
from nbdt.files import write_atomic
from nbdt.tree.building import FORMAT, collapse_chains
from nbdt.tree.hierarchy import Hierarchy
from nbdt.tree.nodes import WNID, HierarchyError, short

from . import readers
from .class_order import FormatError

__all__ = ["FormatError", "read", "write"]

MAX_BYTES = 32 * 2**20  # 100,000 classes take about 20 MB

READERS: dict[str, Callable[[str, Sequence[str] | None], readers.Nodes]] = {
    "nbdt": readers.read_own,
    "original": readers.read_graph,
    "node-link": readers.read_graph,
    "nested": readers.read_nested,
    "paths": readers.read_paths,
    "csv": readers.read_csv,
}
WRITERS: dict[str, Callable[[Hierarchy], str]] = {
    "nbdt": Hierarchy.to_json,
    "node-link": readers.write_graph,
}


def read(
    path: str | os.PathLike[str],
    format: str | None = None,  # noqa: A002  the word that people type
    classes: Sequence[str] | None = None,
    wnids: str | os.PathLike[str] | Sequence[str] | None = None,
    *,
    collapse: bool = False,
) -> Hierarchy:
    """Read a hierarchy from a file in any of the formats above.

    A file whose class order contradicts `classes` is refused, since one of the two would mislabel
    the model, as happened to the original NBDT's TinyImageNet trees.

    Args:
        format: one of the formats; by default detected from the content.
        classes: the model's class names in order.
        wnids: for a graph, the ids of its leaves in class order, or the file that lists them. The
            class names are then `classes`, checked against the ids, or the leaves' labels.
        collapse: remove inner nodes with a single child, which are refused otherwise.

    Raises:
        FormatError: another or a damaged file, no hierarchy over the classes, or no class order or
            a contradictory one; the message names the file, the value and the remedy.
        OSError: the file cannot be read.
    """
    try:
        order = read_lines(wnids) if isinstance(wnids, str | os.PathLike) else wnids
        text, suffix = _read_text(path), Path(path).suffix
        return from_text(text, suffix, format, classes, order, collapse=collapse)
    except FormatError as error:
        raise FormatError(f"{os.fspath(path)!r}: {error}") from None


def from_text(
    text: str,
    suffix: str = "",
    format: str | None = None,  # noqa: A002
    classes: Sequence[str] | None = None,
    wnids: Sequence[str] | None = None,
    *,
    collapse: bool = False,
) -> Hierarchy:
    """Read a hierarchy from the text of a file with this suffix, as `read` does. Raises FormatError."""
    if "\0" in text:
        raise FormatError("This is not text: it contains zero bytes.")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    try:
        kind = _known(format, READERS, "read") if format else detect_format(text, suffix)
        if wnids is None:
            nodes, names = READERS[kind](text, classes)
        elif READERS[kind] is readers.read_graph:
            nodes, names = readers.read_graph(text, classes, wnids)
        else:
            raise FormatError(f"Ids of leaves need a graph; this file is read as {kind!r}.")
        hierarchy = Hierarchy(tuple(collapse_chains(nodes) if collapse else nodes), tuple(names))
    except HierarchyError as error:
        raise FormatError(str(error)) from None
    return readers.name_unnamed(hierarchy)


def write(
    hierarchy: Hierarchy,
    path: str | os.PathLike[str],
    format: str | None = None,  # noqa: A002  the word that people type
) -> None:
    """Write a hierarchy as "nbdt" (the default for .json) or "node-link" JSON, atomically.

    Both keep everything; an existing file is replaced.

    Raises:
        FormatError: an unknown format or suffix; nothing is written.
        OSError: the file cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if format is None and suffix != ".json":
        raise FormatError(
            f"{os.fspath(path)!r}: no format is written for the suffix {suffix!r}; write .json, or "
            f"name one of {listed(WRITERS)}."
        )
    write_atomic(path, WRITERS[_known(format or "nbdt", WRITERS, "written")](hierarchy))


def detect_format(text: str, suffix: str = "") -> str:
    """Return the format of a text. Raises FormatError for an unknown one."""
    start = text.lstrip()[:1]
    if not start:
        raise FormatError("The file is empty.")
    if start in "{[":
        return _detect_json(readers.parse(text))
    if start == "(":
        raise FormatError(
            "This looks like Newick, which has no class order; convert it to paths, one line a "
            "class."
        )
    if suffix.lower() in {".csv", ".tsv"} or "\t" in text:
        return "csv"
    return "csv" if "/" not in text and ("," in text or ";" in text) else "paths"


def _detect_json(data: object) -> str:
    if not isinstance(data, dict):
        raise FormatError(
            f"Expected a JSON object, got {short(data)}; a hierarchy is an object of groups, or a graph "
            'with "nodes" and "links".'
        )
    if data.get("format") == FORMAT:
        return "nbdt"
    nodes = data.get("nodes")
    if isinstance(nodes, list) and ("links" in data or "edges" in data):
        ids = [node.get("id") for node in nodes if isinstance(node, dict) and "name" not in node]
        return "original" if any(WNID.fullmatch(str(node)) for node in ids) else "node-link"
    return "nested"


def _known(kind: str, table: Mapping[str, object], action: str) -> str:
    if kind not in table:
        raise FormatError(
            f"The format {short(kind)} cannot be {action}; choose {listed(table, 9)}."
        )
    return kind


def _read_text(path: str | os.PathLike[str]) -> str:
    """Return the text of a regular file of bounded size. Raises FormatError, OSError."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise FormatError("This is not a regular file.")
    with open(path, "rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise FormatError(f"The file has more than {MAX_BYTES:,} bytes; expected a hierarchy.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError(
            f"This is not UTF-8 text (byte {data[error.start]:#04x} at {error.start:,}); save it "
            "as UTF-8."
        ) from None


def read_lines(path: str | os.PathLike[str]) -> list[str]:
    """Return the lines of a text file that are not blank. Raises FormatError, OSError."""
    try:
        lines = [line.strip() for line in _read_text(path).splitlines()]
    except FormatError as error:
        raise FormatError(f"{os.fspath(path)!r}: {error}") from None
    if not any(lines):
        raise FormatError(f"{os.fspath(path)!r} is empty; expected one class name or id a line.")
    return [line for line in lines if line]
