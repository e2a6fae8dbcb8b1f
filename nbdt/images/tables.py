"""Lists of paths (.txt) and tables of paths and labels (CSV, Parquet), read row by row."""

import codecs
import csv
import io
import json
import os
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, TypeAlias

from ..errors import NBDTError, listed, nearest
from ..storage import is_uri
from .image import open_image, refusal
from .sources import ImageSource, Reader, bytes_source, file_source, open_stream, refused_source
from .spool import Spool

LISTS = (".txt", ".lst")
PARQUET = (".parquet", ".pq")
TABLES = (".csv", ".tsv", *PARQUET)
PATH_COLUMNS = (  # in this order
    "path", "file", "filename", "file_name", "image", "image_path", "filepath", "file_path", "img",
)  # fmt: skip
LABEL_COLUMNS = ("label", "class", "class_name", "category", "labels", "target", "species")
SPLIT_COLUMNS = ("split", "subset", "fold")
DELIMITERS = ",;\t|"
MAX_LINE = 32_768  # bytes; no system has longer paths
ROWS_AT_ONCE, FEW_ROWS = 4096, 16  # the second where the rows hold images
PIECE = 1 << 20
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

_Rows: TypeAlias = Callable[[Sequence[str]], Iterator[tuple[int, Sequence[Any]]]]


def is_table(name: str) -> bool:
    """Return whether a file is named like a table."""
    return name.lower().endswith(TABLES)


def is_list(name: str) -> bool:
    """Return whether a file is named like a list of paths."""
    return name.lower().endswith(LISTS)


def iter_table(
    path: str, column: str | None = None, reader: Reader = open_image, *, labelled: bool = False
) -> Iterator[ImageSource]:
    """Yield the images of a CSV or Parquet file at a path or URI.

    A cell is a path (see `located`) or, in Parquet, the bytes of an image. A cell that is neither is
    a source that raises `ImageError`.

    Args:
        path: of the table. A CSV file may be separated by any of `DELIMITERS`, in UTF-8, UTF-16 or
            Windows' cp1252.
        column: of the paths; by default the first of `PATH_COLUMNS`, in any case.
        labelled: read the columns of labels (required) and splits too.

    Raises NBDTError: while iterating: the file cannot be read, lacks a column, or a labelled row
        lacks the path or the label.
    """
    spool = Spool()
    with _reading(path) as file:
        names, rows = (_parquet if path.lower().endswith(PARQUET) else _csv)(file)
        columns = [_column(path, names, PATH_COLUMNS, "paths", column)]
        if labelled:
            columns.append(_column(path, names, LABEL_COLUMNS, "labels"))
            columns += [split for split in [_known(names, SPLIT_COLUMNS)] if split]
        for number, (cell, *others) in rows(columns):
            texts = ["" if text is None else str(text).strip() for text in others]
            label, split = ([*texts, ""][:2]) if labelled else (None, "")
            facts = {"label": label, "split": split.lower() or None}
            where, (data, name) = f"{path}, row {number}", _bytes_and_path(cell)
            if labelled and not (label and (data or name)):
                got = f"{cell!r:.60} and {label!r}"
                raise NBDTError(f"{path!r}, row {number}: expected a path and a label, got {got}.")
            if data is not None:
                read = spool.keep(data)
                yield bytes_source(where, read, path, reader, **facts)
            elif name:
                yield file_source(located(name, path), reader, **facts)
            else:
                remedy = "fix the table, or name another --column"
                yield refused_source(where, refusal(where, "a path", repr(cell), remedy), path)


def located(name: str, path: str) -> str:
    """Return where the image is that a table or list at `path` names.

    A relative path starts at the folder of the table or list, else at the current folder. Windows'
    backslashes and the other Unicode forms of a name are tried too. A path that leads to nothing is
    returned as it is.
    """
    if is_uri(name):
        return name
    folder = "" if is_uri(path) else os.path.dirname(path)
    turned = name.replace("\\", "/")
    for spelt in dict.fromkeys((name, name.strip(), turned, turned.strip())):
        for form in (spelt, *(unicodedata.normalize(form, spelt) for form in ("NFC", "NFD"))):
            for candidate in (os.path.join(folder, form), form):
                if os.path.lexists(candidate):
                    return candidate
    return name.strip() or name


def iter_list(path: str, reader: Reader = open_image) -> Iterator[ImageSource]:
    """Yield the images of a list: a path or URI a line, found as `located` does.

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
                yield file_source(located(text, path), reader)


def _csv(file: BinaryIO) -> tuple[Sequence[str], _Rows]:
    text = io.TextIOWrapper(file, _encoding(file), newline="")
    header = text.readline(MAX_LINE)
    text.seek(0)
    delimiter = max(DELIMITERS, key=header.count)
    reader = csv.DictReader(text, delimiter=delimiter, skipinitialspace=True)

    def rows(columns: Sequence[str]) -> Iterator[tuple[int, Sequence[Any]]]:
        for row in reader:
            yield reader.line_num, [row[name] for name in columns]

    return list(reader.fieldnames or []), rows


def _encoding(file: BinaryIO) -> str:
    """Return the encoding of a text file: by its mark, else UTF-8 if all of it is, else cp1252."""
    start = file.read(2)
    file.seek(0)
    if start in UTF16:
        return "utf-16"
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        while piece := file.read(PIECE):
            decoder.decode(piece)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return "cp1252"
    finally:
        file.seek(0)
    return "utf-8-sig"


def _parquet(file: BinaryIO) -> tuple[Sequence[str], _Rows]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.ParquetFile(file)
    names = _class_names(table.schema_arrow.metadata or {})

    def rows(columns: Sequence[str]) -> Iterator[tuple[int, Sequence[Any]]]:
        number = 0
        kind = table.schema_arrow.field(columns[0]).type
        at_once = FEW_ROWS if pa.types.is_nested(kind) or pa.types.is_binary(kind) else ROWS_AT_ONCE
        # A text that is stored once for many rows stays one: a kilobyte could ask for gigabytes.
        leaves = [table.schema.column(place) for place in range(len(table.schema))]
        texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
        coded = pq.ParquetFile(file, read_dictionary=texts)
        for batch in coded.iter_batches(at_once, columns=list(columns)):
            cells = [_bounded(batch.column(name)) for name in columns]
            for index in range(batch.num_rows):
                row = zip(columns, cells, strict=True)
                number += 1
                yield number, [_named(cell[index].as_py(), names.get(name)) for name, cell in row]

    return table.schema_arrow.names, rows


def _bounded(column: Any) -> Any:
    """Return a column. Raises ValueError if one of its texts is longer than any path."""
    import pyarrow as pa
    import pyarrow.compute as pc

    values = column.dictionary if pa.types.is_dictionary(column.type) else column
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        longest = pc.max(pc.binary_length(values)).as_py() or 0
        if longest > MAX_LINE:
            raise ValueError(f"expected at most {MAX_LINE:,} bytes in a cell, got {longest:,}")
    return column


def _class_names(metadata: dict[bytes, bytes]) -> dict[str, Sequence[str]]:
    """Return the class names of integer columns, as Hugging Face's datasets keep them."""
    with suppress(ValueError, KeyError, TypeError, AttributeError):
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return {name: one["names"] for name, one in features.items() if "names" in one}
    return {}


def _named(cell: Any, names: Sequence[str] | None) -> Any:
    if names is None or not isinstance(cell, int) or not 0 <= cell < len(names):
        return cell
    return names[cell]


def _bytes_and_path(cell: Any) -> tuple[bytes | None, str]:
    """Return an image's bytes or its path from a cell: text, bytes, or both in a struct."""
    if isinstance(cell, dict):
        data, name = cell.get("bytes"), cell.get("path")
        return data if isinstance(data, bytes) else None, name if isinstance(name, str) else ""
    return (cell, "") if isinstance(cell, bytes) else (None, cell if isinstance(cell, str) else "")


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
