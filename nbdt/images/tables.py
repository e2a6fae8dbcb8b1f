"""Lists of paths (.txt) and tables of paths and labels (CSV, Parquet), read row by row."""

from __future__ import annotations

import codecs
import csv
import io
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, BinaryIO, NamedTuple, TypeAlias

from ..errors import NBDTError, listed, nearest
from ..storage import is_uri
from .image import open_image, refusal
from .sources import ImageSource, Reader, file_source, open_stream, refused_source

LISTS = (".txt", ".lst")
PARQUET = (".parquet", ".pq")
TABLES = (".csv", ".tsv", *PARQUET)
PATH_COLUMNS = ("path", "file", "filename", "file_name", "image", "image_path")  # in this order
LABEL_COLUMNS = ("label", "class", "class_name", "category")
SPLIT_COLUMNS = ("split", "subset", "fold")
MAX_LINE = 32_768  # bytes; no system has longer paths
ROWS_AT_ONCE = 4096
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

_Rows: TypeAlias = Callable[[Sequence[str]], Iterator[tuple[int, Sequence[Any]]]]


class Row(NamedTuple):
    """A row of a table."""

    number: int  # the line of a CSV file, or the row of a Parquet file, from 1
    path: Any  # the cell of the path; anything, if the table is wrong
    label: str = ""  # the cell of the label; empty if there is none
    split: str | None = None  # the name of the split in lower case; None without such a column


def is_table(name: str) -> bool:
    """Return whether a file is named like a table."""
    return name.lower().endswith(TABLES)


def iter_rows(path: str, column: str | None = None, *, labelled: bool = False) -> Iterator[Row]:
    """Yield the rows of a CSV or Parquet file at a path or URI.

    The column of paths is by default the first of `PATH_COLUMNS`, in any case. `labelled` reads the
    columns of labels (required) and splits too.

    Raises NBDTError: while iterating: the file cannot be read, or lacks a column.
    """
    with _reading(path) as file:
        names, rows = (_parquet if path.lower().endswith(PARQUET) else _csv)(path, file)
        columns = [_column(path, names, PATH_COLUMNS, "paths", column)]
        if labelled:
            columns.append(_column(path, names, LABEL_COLUMNS, "labels"))
            columns += [split for split in [_known(names, SPLIT_COLUMNS)] if split]
        for number, (file_name, *others) in rows(columns):
            label, *split = ["" if cell is None else str(cell).strip() for cell in others or [""]]
            label.encode()  # raises for what is not UTF-8
            yield Row(number, file_name, label, split[0].lower() if split else None)


def iter_table(
    path: str, column: str | None = None, reader: Reader = open_image
) -> Iterator[ImageSource]:
    """Yield the images of a table, relative paths from the current folder, without labels.

    A cell that is no path is a source that raises `ImageError`.
    """
    for row in iter_rows(path, column):
        if isinstance(row.path, str) and row.path:
            yield file_source(row.path, reader=reader)
            continue
        where, remedy = f"{path}, row {row.number}", "fix the table, or name another --column"
        yield refused_source(where, refusal(where, "a path", repr(row.path), remedy), path)


def iter_labelled_table(
    path: str, split: str | None = None, **limits: Any
) -> Iterator[ImageSource]:
    """Yield the labelled images of a table, relative paths from the table's own folder.

    Only rows with this split, in any case; `limits` are `max_pixels` and `max_side` of `open_image`.

    Raises NBDTError: while iterating: as `iter_rows`, or a row without path or label, or no row.
    """
    reader, empty = partial(open_image, **limits), True
    for row in iter_rows(path, labelled=True):
        if split is None or row.split == split.lower():
            empty = False
            yield row_source(path, row, reader)
    if empty:
        raise NBDTError(f"{path!r} has no rows{f' of the split {split!r}' if split else ''}.")


def row_source(path: str, row: Row, reader: Reader = open_image) -> ImageSource:
    """Return the labelled image of a row, relative paths from the table's own folder.

    Raises NBDTError: the row lacks the path or the label.
    """
    if not isinstance(row.path, str) or not row.path.strip() or not row.label:
        got = f"{row.path!r} and {row.label!r}"
        raise NBDTError(f"{path!r}, row {row.number}: expected a path and a label, got {got}.")
    return file_source(os.path.join(os.path.dirname(path), row.path.strip()), row.label, reader)


def iter_list(path: str, reader: Reader = open_image) -> Iterator[ImageSource]:
    """Yield the images of a list: a path or URI a line, relative ones from the current folder.

    Raises NBDTError: while iterating: the list cannot be read, or is no list.
    """
    with _reading(path) as file:
        start = file.read(3)
        if start[:2] in UTF16:
            raise NBDTError(f"{path!r} is a list in UTF-16; write it again in UTF-8.")
        rest = b"" if start == codecs.BOM_UTF8 else start
        while line := rest + file.readline(MAX_LINE - len(rest)):
            rest = b""
            if len(line) == MAX_LINE:
                raise NBDTError(
                    f"{path!r}: expected a path a line, got a line of {MAX_LINE:,} bytes or more; "
                    "is it a list of paths?"
                )
            if (text := os.fsdecode(line.strip(b"\r\n"))).strip():
                yield file_source(text, reader=reader)


def _csv(path: str, file: BinaryIO) -> tuple[Sequence[str], _Rows]:
    delimiter = "\t" if path.lower().endswith(".tsv") else ","
    text = io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline="")
    reader = csv.DictReader(text, delimiter=delimiter)

    def rows(columns: Sequence[str]) -> Iterator[tuple[int, Sequence[Any]]]:
        for row in reader:
            yield reader.line_num, [row[name] for name in columns]

    return list(reader.fieldnames or []), rows


def _parquet(path: str, file: BinaryIO) -> tuple[Sequence[str], _Rows]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.ParquetFile(file)
    schema = table.schema_arrow

    def rows(columns: Sequence[str]) -> Iterator[tuple[int, Sequence[Any]]]:
        kind = schema.field(columns[0]).type
        if pa.types.is_nested(kind):
            raise NBDTError(
                f"{path!r}: expected paths in column {columns[0]!r}, got {kind}; see --column."
            )
        number = 0
        for batch in table.iter_batches(ROWS_AT_ONCE, columns=list(columns)):
            cells = [batch.column(name).to_pylist() for name in columns]
            for row in zip(*cells, strict=True):
                number += 1
                yield number, row

    return schema.names, rows


def _known(names: Sequence[str], usual: Sequence[str]) -> str | None:
    """Return the column with the first of the usual names, in any case."""
    given = {str(name).strip().lower(): name for name in reversed(names)}
    return next((given[name] for name in usual if name in given), None)


def _column(
    path: str, names: Sequence[str], usual: Sequence[str], what: str, column: str | None = None
) -> str:
    got = listed(names) or "no columns at all"
    if column is None and (column := _known(names, usual)) is None:
        remedy = "; name the column of paths with --column" if what == "paths" else ""
        raise NBDTError(
            f"{path!r} has no column of {what}: expected one of {', '.join(usual)}, got {got}{remedy}."
        )
    if column not in names:
        raise NBDTError(f"{path!r} has no column {column!r}, got {got}.{nearest(column, names)}")
    return column


@contextmanager
def _reading(path: str) -> Iterator[BinaryIO]:
    """Open a list or table; errors of its reader become one clear line."""
    if not is_uri(path) and not os.path.isfile(path):
        raise NBDTError(f"There is no file {path!r} to read paths from.")
    try:
        with open_stream(path) as file:
            yield file
    except NBDTError:
        raise
    except Exception as error:  # readers of hostile bytes raise nearly everything there is
        raise NBDTError(
            f"{path!r} cannot be read as paths ({type(error).__name__}: {error})."
        ) from error
