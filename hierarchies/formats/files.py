"""Hierarchies in other people's files: `read` and `write`.

========== ======================================================= ======================
format     what it is                                              order of the classes
========== ======================================================= ======================
nbdt       what `Hierarchy.save` writes                            stated
original   ``graph-*.json`` of the original NBDT; read only        of its ``wnids/*.txt``
node-link  networkx' node-link JSON, with "links" or "edges"       stated, or of `classes`
nested     ``{"animal": ["cat", "dog"]}``, or objects with "name"  stated, or as met
           and "children"
paths      text, ``animal/cat``, a line a class                    of the lines
csv        a row a class, the outermost group first, no header     of the rows
newick     ``(('cat','dog')'animal');``; written only              lost
========== ======================================================= ======================
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

from .class_order import FormatError
from .json_formats import (
    Nodes,
    name_unnamed,
    parse,
    read_graph,
    read_nested,
    read_own,
    write_graph,
    write_nested,
)
from .text_formats import read_csv, read_paths, write_csv, write_newick, write_paths

__all__ = ["READERS", "WRITERS", "FormatError", "read", "sniff", "write"]

MAX_BYTES = 32 * 2**20  # 100,000 classes take about 20 MB

READERS: dict[str, Callable[[str, Sequence[str] | None], Nodes]] = {
    "nbdt": read_own,
    "original": read_graph,
    "node-link": read_graph,
    "nested": read_nested,
    "paths": read_paths,
    "csv": read_csv,
}
WRITERS: dict[str, Callable[[Hierarchy], str]] = {
    "nbdt": Hierarchy.to_json,
    "node-link": write_graph,
    "nested": write_nested,
    "paths": write_paths,
    "csv": write_csv,
    "newick": write_newick,
}
_SUFFIXES = {
    ".json": "nbdt",
    ".txt": "paths",
    ".csv": "csv",
    ".nwk": "newick",
    ".newick": "newick",
}


def read(
    path: str | os.PathLike[str],
    format: str | None = None,  # noqa: A002  the word that people will type
    classes: Sequence[str] | None = None,
    wnids: str | os.PathLike[str] | Sequence[str] | None = None,
    *,
    collapse: bool = False,
) -> Hierarchy:
    """A hierarchy from a file in any of the formats above.

    Where the file states an order of classes and `classes` another, the file is refused: one of
    the two would mislabel the model. The original NBDT took the order of its id file for the
    data's; its TinyImageNet trees are mislabelled.

    Args:
        path: the file.
        format: one of the formats; told from the content by default.
        classes: the model's class names in order.
        wnids: for a graph, the ids of its leaves in class order, or the file that lists them. The
            class names are then `classes`, which are checked against the ids, or the labels.
        collapse: remove inner nodes that have a single child; a chain is refused otherwise.

    Raises:
        FormatError: not such a file, damaged, no tree over the classes, or no or a contradictory
            class order; the message names the file, what was found and the remedy.
        OSError: the file cannot be read.
    """
    shown = os.fspath(path)
    try:
        text = _read_text(path)
        order = _read_wnids(wnids) if isinstance(wnids, str | os.PathLike) else wnids
        kind = _known(format, READERS, "read") if format else sniff(text, Path(path).suffix)
        _check_names(classes, "classes is a list of names")
        _check_names(order, "wnids is a file or a list of ids")
        if order is not None and kind not in {"original", "node-link"}:
            raise FormatError(f"Ids of leaves go with a graph; this file is read as {kind!r}.")
        if order is not None:
            nodes, names = read_graph(text, classes, order)
        else:
            nodes, names = READERS[kind](text, classes)
        found = Hierarchy(tuple(collapse_chains(nodes) if collapse else nodes), tuple(names))
    except (FormatError, HierarchyError) as error:
        raise FormatError(f"{shown!r}: {error}") from None
    return name_unnamed(found)


def write(
    hierarchy: Hierarchy,
    path: str | os.PathLike[str],
    format: str | None = None,  # noqa: A002  the word that people will type
) -> None:
    """Write a hierarchy in one of the formats above, atomically.

    "nbdt" and "node-link" keep everything. The others keep names, but neither the ids of inner
    nodes nor WordNet ids; "newick" loses the class order, too.

    Args:
        hierarchy: the tree.
        path: the file; one that is there is replaced.
        format: by default that of the suffix: .json is nbdt, .txt paths, .csv csv, .nwk newick.

    Raises:
        FormatError: an unknown format, or a tree that it cannot hold; nothing is written.
        OSError: the file cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if format is None and suffix not in _SUFFIXES:
        raise FormatError(
            f"{os.fspath(path)!r}: no format goes with the suffix {suffix!r}; name one of "
            f"{listed(WRITERS, 9)}."
        )
    kind = _known(format, WRITERS, "written") if format else _SUFFIXES[suffix]
    try:
        text = WRITERS[kind](hierarchy)
    except FormatError as error:
        raise FormatError(f"{os.fspath(path)!r}: {error}") from None
    write_atomic(path, text)


def sniff(text: str, suffix: str = "") -> str:
    """The format of a text. Raises FormatError for one that is none."""
    start = text.lstrip()[:1]
    if not start:
        raise FormatError("The file is empty.")
    if start in "{[":
        return _sniff_json(parse(text))
    if start == "(":
        raise FormatError(
            "This looks like Newick, which says nothing of the class order and is only written "
            "here; convert it to paths, one line a class."
        )
    if suffix.lower() in {".csv", ".tsv"} or "\t" in text:
        return "csv"
    return "csv" if "/" not in text and ("," in text or ";" in text) else "paths"


def _sniff_json(data: object) -> str:
    if not isinstance(data, dict):
        raise FormatError(
            f"Expected a JSON object, got {short(data)}; a tree is an object of groups, or a graph "
            'with "nodes" and "links".'
        )
    if data.get("format") == FORMAT:
        return "nbdt"
    nodes = data.get("nodes")
    if isinstance(nodes, list) and ("links" in data or "edges" in data):
        ids = [node.get("id") for node in nodes if isinstance(node, dict) and "name" not in node]
        return "original" if any(WNID.fullmatch(str(one)) for one in ids) else "node-link"
    return "nested"


def _check_names(names: Sequence[str] | None, wanted: str) -> None:
    if names is None:
        return
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise FormatError(f"{wanted}, got {short(names)}.")
    wrong = [name for name in names if not isinstance(name, str)]
    if wrong:
        raise FormatError(f"{wanted}, but {short(wrong[0])} is no text.")


def _known(kind: str, table: Mapping[str, object], done: str) -> str:
    if kind not in table:
        raise FormatError(f"The format {short(kind)} cannot be {done}; choose {listed(table, 9)}.")
    return kind


def _read_text(path: str | os.PathLike[str]) -> str:
    """The text of a regular file of bounded size. Raises FormatError, OSError."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise FormatError("This is no regular file.")
    with open(path, "rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise FormatError(f"The file has more than {MAX_BYTES:,} bytes; a hierarchy has not.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError(
            f"This is no UTF-8 text (byte {data[error.start]:#04x} at {error.start:,}); save it "
            "as UTF-8."
        ) from None
    if "\0" in text:
        raise FormatError("This is no text: it holds zero bytes.")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _read_wnids(path: str | os.PathLike[str]) -> list[str]:
    """The ids in an id file, one a line. Raises FormatError, OSError."""
    lines = [line.strip() for line in _read_text(path).split("\n")]
    ids = [line for line in lines if line]
    if not ids or any(len(line.split()) > 1 for line in ids):
        raise FormatError(f"{os.fspath(path)!r} is no id file: expected one id a line.")
    return ids
