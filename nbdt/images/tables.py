"""A CSV or Parquet file of paths and labels."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from ..errors import NBDTError, listed
from .image import open_image
from .sources import ImageSource

TABLES = (".csv", ".tsv", ".parquet")
PATH_COLUMNS = ("path", "file", "filename", "image", "file_name", "image_path")
LABEL_COLUMNS = ("label", "class", "class_name", "category")
SPLIT_COLUMNS = ("split", "subset", "fold")

Row = tuple[str, str]


def table_splits(path: Path, spellings: Mapping[str, str]) -> dict[str, list[Row]]:
    """(path, label) of each row, by split; all "train" without a column that says the split.

    Raises:
        NBDTError: the file cannot be read, has no columns of known names, or an unknown split.
    """
    rows = _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_csv(path)
    if not rows:
        raise NBDTError(f"{str(path)!r} has no rows.")
    names = {str(name).strip().lower(): name for name in rows[0]}
    file = _column(path, names, PATH_COLUMNS, "paths")
    label = _column(path, names, LABEL_COLUMNS, "labels")
    split = next((names[key] for key in SPLIT_COLUMNS if key in names), None)
    found: dict[str, list[Row]] = {}
    for number, row in enumerate(rows, start=2):
        if not row[file] or row[label] in (None, ""):
            raise NBDTError(f"{str(path)!r}, row {number}: a path and a label, got {dict(row)}.")
        said = str(row[split]).strip().lower() if split else "train"
        if said not in spellings:
            raise NBDTError(
                f"{str(path)!r}, row {number}: unknown split {said!r}; it may be "
                f"{', '.join(spellings)}."
            )
        found.setdefault(spellings[said], []).append(
            (str(row[file]).strip(), str(row[label]).strip())
        )
    if "train" not in found:
        raise NBDTError(f"{str(path)!r} has no row of the split 'train', only {listed(found)}.")
    return found


def iter_table(path: Path, rows: Sequence[Row]) -> Iterator[ImageSource]:
    """The images of some rows; relative paths start at the table's folder."""
    for file, label in rows:
        full = os.path.join(path.parent, file)
        yield ImageSource(full, label, partial(open_image, full))


def _column(path: Path, names: Mapping[str, Any], known: Sequence[str], what: str) -> Any:
    for key in known:
        if key in names:
            return names[key]
    raise NBDTError(
        f"{str(path)!r} has no column of {what}; one of {', '.join(known)} is expected, got "
        f"{listed(names)}."
    )


def _read_csv(path: Path) -> list[dict[str, Any]]:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return list(csv.DictReader(file, delimiter=delimiter))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise NBDTError(f"{str(path)!r} cannot be read as CSV: {error}.") from None


def _read_parquet(path: Path) -> list[dict[str, Any]]:
    module = "pyarrow.parquet"  # no dependency of the package: few need it, and it is large
    try:
        table: Any = import_module(module).read_table(path)
    except ModuleNotFoundError:
        raise NBDTError(
            f"Reading {str(path)!r} needs pyarrow: pip install pyarrow. A CSV file with the same "
            "columns works without."
        ) from None
    except (OSError, ValueError, NotImplementedError) as error:  # pyarrow's own are these
        raise NBDTError(f"{str(path)!r} cannot be read as Parquet: {error}.") from None
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows
