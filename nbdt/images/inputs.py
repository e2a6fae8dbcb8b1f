"""What a batch is given: folders, patterns, lists, archives and tables, as one stream of images."""

from __future__ import annotations

import codecs
import csv
import glob
import hashlib
import io
import os
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, cast

from ..errors import NBDTError, listed, nearest
from ..storage import is_uri
from .image import ImageError, read_file, refusal, refuse, regular_file
from .remote import file_state, is_folder, open_remote, read_remote, walk
from .sources import iter_files, iter_tar

ZSTD = (".tar.zst", ".tzst")
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", *ZSTD)
LISTS = (".txt", ".lst")
TABLES = (".parquet", ".pq")
TEXTS = (".csv", ".tsv")
COLUMNS = ("path", "file", "filename", "file_name", "image", "image_path")  # looked for, in order
LONGEST_LINE = 32_768  # bytes; no system has longer paths
ROWS_AT_ONCE = 4096
SMALL = 64 << 10  # bytes of an archive's member that is kept in memory
SPOOL = 256 << 20  # bytes of members that are dropped together
START = "batch.json"  # what a batch's folder is known by
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True)
class Input:
    """One image of a batch: what it is called, its bytes, and the file whose date is its own.

    `read` raises `ImageError`; it may be called in any thread or process, and again later.
    """

    reference: str
    read: Callable[[], bytes]
    file: str

    def state(self) -> tuple[int | None, int | None]:
        """Bytes, and when its file was last changed, in nanoseconds since 1970.

        None if there is none; the bytes too if unknown without reading: a member of an archive.
        """
        try:
            size, modified_ns = file_state(self.file)
        except (OSError, ValueError, NBDTError):
            return None, None
        return size if self.file == self.reference else None, modified_ns

    def sha256(self) -> str:
        """Of its bytes, in hexadecimal; raises as `read` does."""
        return hashlib.sha256(self.read()).hexdigest()


def is_collection(text: str) -> bool:
    """Whether an argument stands for any number of images and not for one file."""
    many = (*ARCHIVES, *LISTS, *TABLES, *TEXTS)
    return is_uri(text) or os.path.isdir(text) or text.lower().endswith(many) or _is_pattern(text)


def iter_inputs(arguments: Iterable[str], column: str | None = None) -> Iterator[Input]:
    """Every image, in an order that is the same whenever nothing has changed.

    Memory stays flat: a folder's names, or a pattern's matches, are the most that is held.

    Args:
        arguments: image files; folders (walked in sorted order, but for those that a batch made);
            glob patterns (``**`` too, which follows no links to folders); lists (.txt: a path a
            line, from the current folder); tar archives; tables (.parquet, .csv, .tsv) with a
            column of paths. Each may be a URI (s3://…), and so may the paths in lists and tables;
            patterns may not.
        column: the tables' column; by default one named path, file, filename or image.

    Raises:
        NBDTError: while iterating: a pattern without match, a list or table that cannot be read.
            An unreadable image, folder or archive is an `Input` whose `read` raises.
    """
    for text in arguments:
        if _is_pattern(text):
            yield from iter_inputs(_matches(text), column)
        elif os.path.isdir(text):
            for source in iter_files([text], without=START):
                yield Input(source.reference, source.read or _none, source.reference)
        elif is_uri(text) and is_folder(text):
            yield from _from_folder(text)
        else:
            yield from _read_named(text, column)


def count_inputs(arguments: Sequence[str], column: str | None = None) -> int | None:
    """How many there are; None with an archive, which would have to be read whole to know."""
    texts = [match for text in arguments for match in _expanded(text)]
    if any(text.lower().endswith(ARCHIVES) and not os.path.isdir(text) for text in texts):
        return None
    return sum(1 for _ in iter_inputs(texts, column))


def parts_of(inputs: Iterator[Input], size: int) -> Iterator[list[Input]]:
    """Runs of `size` inputs, the last one shorter."""
    while part := list(islice(inputs, size)):
        yield part


def _expanded(text: str) -> list[str]:
    return _matches(text) if _is_pattern(text) else [text]


def _is_pattern(text: str) -> bool:
    return glob.has_magic(text) and not is_uri(text) and not os.path.lexists(text)


def _matches(pattern: str) -> list[str]:
    """Sorted, since a file system's own order is nobody's; a matched name is no pattern again.

    What lies below a matched folder is left to that folder, and what a batch made is left out.
    """
    path = Path(pattern)
    if "**" in path.parts:  # glob's own would follow links to folders, in circles too
        fixed = next(i for i, part in enumerate(path.parts) if glob.has_magic(part))
        found = Path(path.anchor).glob(str(path.relative_to(path.anchor)))
        names = [str(p) for p in found if not any(q.startswith(".") for q in p.parts[fixed:])]
    else:
        names = glob.glob(pattern)
    folders = {name.rstrip(os.sep) for name in names if os.path.isdir(name)}
    made: dict[str, bool] = {}
    kept = [
        name
        for name in sorted(set(names))
        if folders.isdisjoint(_above(name)) and not any(_is_batch(f, made) for f in _above(name))
    ]
    if not kept:
        raise NBDTError(f"No file matches {pattern!r}; check the pattern and the current folder.")
    return kept


def _above(name: str) -> Iterator[str]:
    """The folders that a path names above its last part."""
    while (name := os.path.dirname(name.rstrip(os.sep))) not in ("", os.sep):
        yield name


def _is_batch(folder: str, known: dict[str, bool]) -> bool:
    """Whether a batch wrote the folder: what it drew there is no photograph."""
    if folder not in known:
        known[folder] = os.path.exists(os.path.join(folder, START))
    return known[folder]


def _read_named(text: str, column: str | None) -> Iterator[Input]:
    name = text.lower()
    if name.endswith(ARCHIVES):
        return _from_archive(text)
    if name.endswith(LISTS):
        return _from_list(text)
    if name.endswith(TABLES):
        return _from_table(text, column)
    if name.endswith(TEXTS):
        return _from_text(text, column)
    return iter([_file(text)])


def _file(path: str) -> Input:
    return Input(path, partial(read_remote if is_uri(path) else read_file, path), path)


def _none() -> bytes:
    raise ImageError("There is nothing to read.")


def _from_folder(uri: str) -> Iterator[Input]:
    empty = True
    for file in walk(uri):
        empty = False
        yield _file(file)
    if empty:
        error = refusal(uri, "image files", "a folder without any", "name another folder")
        yield Input(uri, partial(refuse, error), uri)


def _from_archive(path: str) -> Iterator[Input]:
    try:
        spool = _Spool()
        for source in iter_tar(path, open_archive=_opener(path)):
            spool = spool if spool.size < SPOOL else _Spool()
            yield Input(source.reference, spool.kept(source.read or _none), path)
    except ImageError as error:  # the members before the damage are good
        yield Input(path, partial(refuse, error), path)


def _opener(archive: str) -> Callable[[str], BinaryIO] | None:
    """How an archive is opened that `iter_tar` cannot open by itself."""
    if archive.lower().endswith(ZSTD):
        return _open_zstd
    return open_remote if is_uri(archive) else None


def _open_zstd(path: str) -> BinaryIO:
    import pyarrow as pa

    file = open_remote(path) if is_uri(path) else regular_file(path, path)
    return cast(BinaryIO, pa.CompressedInputStream(file, "zstd"))


class _Spool:
    """Members of an archive on the disk, until nobody needs them: a part of them fills a memory."""

    def __init__(self) -> None:
        self.file = tempfile.TemporaryFile()  # noqa: SIM115  closed with the last member
        weakref.finalize(self, self.file.close)
        self.lock = Lock()
        self.size = 0

    def kept(self, read: Callable[[], bytes]) -> Callable[[], bytes]:
        """What `read` reads, once; small ones stay in memory."""
        try:
            data = read()
        except ImageError as error:
            return partial(refuse, error)
        if len(data) <= SMALL:
            return partial(bytes, data)
        with self.lock:
            self.file.seek(0, os.SEEK_END)
            at = self.file.tell()
            self.file.write(data)
            self.size = at + len(data)
        return _Spooled(self, at, len(data))


@dataclass(frozen=True, eq=False)
class _Spooled:
    """Reads a member again, in any thread; another process is sent its bytes."""

    spool: _Spool
    at: int
    size: int

    def __call__(self) -> bytes:
        with self.spool.lock:
            self.spool.file.seek(self.at)
            return self.spool.file.read(self.size)

    def __reduce__(self) -> tuple[Any, ...]:
        return partial, (bytes, self())


def _from_list(path: str) -> Iterator[Input]:
    with _reading(path) as file:
        start = file.read(3)
        if start[:2] in UTF16:
            raise NBDTError(f"{path!r} is a list in UTF-16; write it again in UTF-8.")
        rest = b"" if start == codecs.BOM_UTF8 else start
        while line := rest + file.readline(LONGEST_LINE - len(rest)):
            rest = b""
            if len(line) == LONGEST_LINE:
                raise NBDTError(
                    f"{path!r}: expected a path a line, got a line of {LONGEST_LINE:,} bytes or "
                    "more; is it a list of paths?"
                )
            if (text := os.fsdecode(line.strip(b"\r\n"))).strip():
                yield _file(text)


def _from_text(path: str, column: str | None) -> Iterator[Input]:
    delimiter = "\t" if path.lower().endswith(".tsv") else ","
    with _reading(path) as file:
        text = io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline="")
        rows = csv.DictReader(text, delimiter=delimiter)
        wanted = _column(path, list(rows.fieldnames or []), column)
        for row in rows:
            yield _cell(path, rows.line_num, row[wanted])


def _from_table(path: str, column: str | None) -> Iterator[Input]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with _reading(path) as file, pq.ParquetFile(file) as table:
        wanted = _column(path, table.schema_arrow.names, column)
        kind = table.schema_arrow.field(wanted).type
        if pa.types.is_nested(kind):
            raise NBDTError(
                f"{path!r}: expected paths in column {wanted!r}, got {kind}; see --column."
            )
        row = 0
        for batch in table.iter_batches(ROWS_AT_ONCE, columns=[wanted]):
            for value in batch.column(0).to_pylist():
                row += 1
                yield _cell(path, row, value)


def _cell(table: str, row: int, value: object) -> Input:
    if isinstance(value, str) and value:
        return _file(value)
    where = f"{table}, row {row}"
    error = refusal(where, "a path", repr(value), "mend the table, or name another --column")
    return Input(where, partial(refuse, error), table)


def _column(path: str, names: Sequence[str], column: str | None) -> str:
    if column is None:
        column = next((name for name in COLUMNS if name in names), None)
    if column is None:
        raise NBDTError(
            f"{path!r} has no column {listed(COLUMNS, 3)} …, but {listed(names) or 'none at all'}; "
            "say which holds the paths: --column NAME."
        )
    if column not in names:
        raise NBDTError(
            f"{path!r} has no column {column!r}, but {listed(names) or 'none at all'}."
            f"{nearest(column, names)}"
        )
    return column


@contextmanager
def _reading(path: str) -> Iterator[BinaryIO]:
    """A list or table, open; what its reader raises, in words."""
    if not is_uri(path) and not os.path.isfile(path):  # nothing that blocks, such as a pipe
        raise NBDTError(f"There is no file {path!r} to read paths from.")
    try:
        with open_remote(path) if is_uri(path) else open(path, "rb") as file:
            yield file
    except NBDTError:
        raise
    except Exception as error:  # readers of hostile bytes raise nearly everything there is
        raise NBDTError(
            f"{path!r} cannot be read as paths ({type(error).__name__}: {error})."
        ) from error
