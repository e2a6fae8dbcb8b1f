"""The disk under a SQLite store: whether the file is there, and space to delete when it is full."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import suppress
from pathlib import Path

import sqlalchemy as sa

from .url import FullError

RESERVE = 4 << 20  # bytes that SQLite may use to delete rows when the disk is full
EMPTY_LOG = "PRAGMA wal_checkpoint(TRUNCATE)"  # moves it into the file, which frees its space
NO_OVERWRITING = "PRAGMA secure_delete = FAST"
_ZEROS = (  # at most a quarter of the reserve
    "INSERT INTO nbdt_zeros SELECT zeroblob(min(freelist_count * page_size, 1048576)) "
    "FROM pragma_freelist_count, pragma_page_size"
)


def check_disk(engine: sa.Engine, size: int) -> None:
    """Raise FullError unless a SQLite store can write `size` bytes to its log and then to its file."""
    if engine.dialect.name == "sqlite" and _free(engine) < 2 * size + RESERVE:
        raise FullError("Nothing was stored: the disk of the store is full. Free some of it.")


def reserve(engine: sa.Engine) -> Path:
    """Return the path of the file that reserves space; it may be missing."""
    return Path(f"{engine.url.database}-reserve")


def keep_reserve(engine: sa.Engine) -> None:
    """Reserve space beside a SQLite file, if there is some, in which rows can be deleted later."""
    if engine.dialect.name != "sqlite":
        return
    path = reserve(engine)
    with suppress(OSError):
        if not path.exists() and _free(engine) > 2 * RESERVE:
            path.write_bytes(os.urandom(RESERVE))  # zeros might take no space


def overwrite_free(engine: sa.Engine) -> None:
    """Fill SQLite's free pages with zeros, as far as there is space, and free them again."""
    if run(engine, "CREATE TABLE IF NOT EXISTS nbdt_zeros (zeros BLOB)") is not None:
        while run(engine, "PRAGMA freelist_count") and run(engine, _ZEROS) is not None:
            run(engine, EMPTY_LOG)
    run(engine, NO_OVERWRITING, "DROP TABLE IF EXISTS nbdt_zeros", EMPTY_LOG)


def run(engine: sa.Engine, *statements: str) -> int | None:
    """Run statements of SQLite, each by itself; return the first number of the last answer.

    Without an answer that is 0. None: the database refused one of them.
    """
    connection, row = engine.raw_connection(), None
    try:
        cursor = connection.cursor()
        for statement in statements:
            row = cursor.execute(statement).fetchone()
    except sqlite3.OperationalError:  # no space, or another program holds it
        return None
    finally:
        connection.close()
    return int(row[0]) if row else 0


def identity(engine: sa.Engine) -> tuple[int, int] | None:
    """Return what identifies the file of a SQLite store; None if it, or its log, is gone."""
    if engine.dialect.name != "sqlite":
        return 0, 0
    try:
        os.stat(f"{engine.url.database}-wal")
        found = os.stat(str(engine.url.database))
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _free(engine: sa.Engine) -> int:
    return shutil.disk_usage(reserve(engine).parent).free
