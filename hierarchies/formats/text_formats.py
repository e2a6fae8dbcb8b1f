"""Readers of hierarchies as lines of text: a path for each class, or CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence

from nbdt.tree.building import nodes_from_paths
from nbdt.tree.nodes import WNID

from .class_order import FormatError
from .json_formats import Nodes

MAX_PARTS = 2_000_000  # names in a file of paths; 100,000 classes at depth 20


def read_paths(text: str, classes: Sequence[str] | None) -> Nodes:
    """Read one path a line, ``animal/mammal/cat``; blank lines are ignored.

    The order of the lines is the class order, unless `classes` gives another.
    """
    lines = [line.strip() for line in text.split("\n")]
    if lines and all(WNID.fullmatch(line) for line in lines if line) and any(lines):
        raise FormatError(
            "This is a list of WordNet ids, which contains no hierarchy. Pass it as wnids=…, with "
            "the graph-….json that it belongs to."
        )
    if text.count("/") + len(lines) > MAX_PARTS:
        raise FormatError(
            f"The paths have more than {MAX_PARTS:,} names in all; expected a hierarchy."
        )
    return _from_rows(
        [[part.strip() for part in line.split("/")] for line in lines if line], classes
    )


def read_csv(text: str, classes: Sequence[str] | None) -> Nodes:
    """Read one class a row, from the outermost group to the class, without a header.

    The separator is the tab if there is any, else the comma or semicolon, whichever more lines
    contain. Rows may differ in length. Their order is the class order, unless `classes` gives
    another.
    """
    delimiter = _delimiter(text)
    if text.count(delimiter) + text.count("\n") > MAX_PARTS:
        raise FormatError(f"The table has more than {MAX_PARTS:,} cells; expected a hierarchy.")
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True
    )
    rows = []
    try:
        for row in reader:
            while row and not row[-1].strip():
                row.pop()
            if row:
                rows.append(row)
    except csv.Error as error:
        raise FormatError(f"Line {reader.line_num} is no CSV: {error}.") from None
    return _from_rows(rows, classes)


def _from_rows(rows: Sequence[Sequence[str]], classes: Sequence[str] | None) -> Nodes:
    if not rows:
        raise FormatError("The file is empty; expected a line for each class.")
    nodes, order = nodes_from_paths(rows)
    return nodes, order if classes is None else list(classes)


def _delimiter(text: str) -> str:
    if "\t" in text:  # no name may contain a tab
        return "\t"
    lines = re.sub(r'"[^"]*"', "", text).split("\n")
    return max(",;", key=lambda mark: sum(mark in line for line in lines))
