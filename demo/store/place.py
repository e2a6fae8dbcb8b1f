"""Where a store is: the user's own file by default, or a database; and the disk under a file."""

import os
import shutil
import sqlite3
from contextlib import suppress
from pathlib import Path

import sqlalchemy as sa
from platformdirs import user_data_path
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from nbdt.errors import NBDTError
from nbdt.tree.nodes import short

FILE = "corrections.sqlite"
STORE_HELP = (
    "Where corrections are kept: a SQLite file, or a URL such as postgresql://user@host/database. "
    "By default a file of yours."
)
_POSTGRESQL = ("postgresql", "postgresql+psycopg", "postgres")

RESERVE = 4 << 20  # bytes that SQLite may use to delete rows when the disk is full
EMPTY_LOG = "PRAGMA wal_checkpoint(TRUNCATE)"  # moves it into the file, which frees its space
NO_OVERWRITING = "PRAGMA secure_delete = FAST"
_ZEROS = (  # at most a quarter of the reserve
    "INSERT INTO nbdt_zeros SELECT zeroblob(min(freelist_count * page_size, 1048576)) "
    "FROM pragma_freelist_count, pragma_page_size"
)


class StoreError(NBDTError):
    """Something cannot be stored or found. The message says why and what to do; nothing changed."""


class FullError(StoreError):
    """The disk of a store is full."""


def default_url() -> str:
    """Return the SQLite file in the user's data folder, ``~/.local/share/nbdt`` on Linux."""
    return str(user_data_path("nbdt", appauthor=False) / FILE)


def store_url(text: str) -> URL:
    """Return SQLAlchemy's URL for a URL or the path of a SQLite file.

    Raises StoreError: another kind of database, a store in memory, or no valid URL.
    """
    if "://" not in text:
        return URL.create("sqlite", database=os.fspath(Path(text).expanduser().absolute()))
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        scheme = text.partition("://")[0]  # what follows may hold a password
        raise StoreError(
            f"Expected a path or a URL of a store; {short(scheme)}://… cannot be read."
        ) from None
    if url.drivername == "sqlite":
        if url.database in (None, "", ":memory:"):
            raise StoreError("A store in memory keeps nothing; name a file: sqlite:///FILE.")
        return url.set(database=os.fspath(Path(str(url.database)).absolute()))
    if url.drivername in _POSTGRESQL:
        return url.set(drivername="postgresql+psycopg")
    raise StoreError(
        f"Corrections are kept in SQLite or PostgreSQL, not in {short(url.drivername)}; "
        "write sqlite:///FILE or postgresql://user@host/database."
    )


# ---- the disk under a SQLite store: whether the file is there, and space to delete when it is full


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
