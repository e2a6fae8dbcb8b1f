"""The connection, and its limits: durable writes, one writer at a time, the schema up to date."""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import func, select, true
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session

import nbdt
from nbdt.errors import listed

from . import place
from .place import FullError, StoreError, store_url
from .schema import AboutRow, Table

MIGRATIONS = Path(__file__).parent / "migrations"
VERSION_TABLE = "nbdt_schema"
PATIENCE = 30.0  # seconds that a writer waits for its turn
_WRITERS = 0x6E626474  # PostgreSQL's name of the lock that writers hold: "nbdt"
_READS = {"nbdt_reads": True}


@dataclass(frozen=True)
class Limits:
    """Limits of what visitors may fill a store with; a hierarchy's bytes are those of its JSON."""

    corrections_of_visitor: int = 1_000
    corrections: int = 1_000_000
    photograph_bytes: int = 24 << 20
    photograph_bytes_of_visitor: int = 500 << 20
    photograph_bytes_in_all: int = 20 << 30
    marks_of_visitor: int = 1_000
    hierarchies_of_visitor: int = 200
    hierarchies: int = 20_000
    hierarchy_bytes: int = 32 << 20
    hierarchy_text_in_all: int = 2 << 30  # characters, which all databases count alike
    text: int = 2_000  # characters of a note


def open_engine(text: str) -> sa.Engine:
    """Connect to a store; create it, or bring its schema up to date, under a lock.

    Raises StoreError: it cannot be reached, is something else, or a newer release wrote it.
    """
    url = store_url(text)
    name = url.render_as_string(hide_password=True)
    if url.drivername == "sqlite":
        _create_private(Path(str(url.database)))
        engine = sa.create_engine(url, connect_args={"timeout": PATIENCE})
    else:
        try:
            engine = sa.create_engine(url, pool_pre_ping=True)
        except ModuleNotFoundError:
            raise StoreError(
                "PostgreSQL needs its driver; install it with: pip install 'nbdt-vision[postgres]'"
            ) from None
    sa.event.listen(engine, "connect", _prepare)
    sa.event.listen(engine, "begin", _begin)
    try:
        with engine.begin() as connection:
            _upgrade(connection, name)
    except SQLAlchemyError as error:
        engine.dispose()
        raise StoreError(f"The store {name!r} cannot be opened: {_reason(error)}") from None
    except StoreError:
        engine.dispose()
        raise
    engine.update_execution_options(nbdt_identity=place.identity(engine))
    place.keep_reserve(engine)
    return engine


@contextmanager
def writing(engine: sa.Engine) -> Iterator[Session]:
    """Yield a session that commits durably when the block ends, or changes nothing.

    Raises StoreError: the database refused; nothing was stored.
    """
    try:
        with Session(engine, expire_on_commit=False) as session, session.begin():
            yield session
    except SQLAlchemyError as error:
        said = str(getattr(error, "orig", ""))  # the second, where a quota is used up
        kind = FullError if "full" in said or "disk I/O" in said else StoreError
        raise kind(f"Nothing was stored: {_reason(error)} Try again.") from None
    if place.identity(engine) != engine.get_execution_options()["nbdt_identity"]:
        raise StoreError("Nothing was stored: the store's file has vanished. Restart the program.")


def deleting(engine: sa.Engine, work: Callable[[Session], int]) -> int:
    """Return what `work`, which deletes rows in a session of `writing`, returns; also on a full disk.

    SQLite needs space to delete. On a full disk it gets that of the reserve, and overwrites what it
    deleted afterwards, in small steps.

    Raises StoreError: as `writing`.
    """
    try:
        with writing(engine) as session:
            return work(session)
    except FullError:
        if engine.dialect.name != "sqlite":
            raise
    place.reserve(engine).unlink(missing_ok=True)
    try:
        place.run(engine, place.EMPTY_LOG)
        with writing(engine) as session:
            session.execute(sa.text(place.NO_OVERWRITING))
            result = work(session)
        place.run(engine, place.EMPTY_LOG)
        place.overwrite_free(engine)
        return result
    finally:
        engine.dispose()  # closes connections that do not overwrite
        place.keep_reserve(engine)


@contextmanager
def reading(engine: sa.Engine) -> Iterator[Session]:
    """Yield a session that sees one state of the database and does not block writers."""
    try:
        with Session(engine.execution_options(**_READS), expire_on_commit=False) as session:
            yield session
    except SQLAlchemyError as error:
        raise StoreError(f"The store cannot be read: {_reason(error)}") from None


def _create_private(path: Path) -> None:
    """Create the file readable by its owner alone: it may hold people's photographs."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise StoreError(
            f"Corrections cannot be kept in {str(path)!r}: {error.strerror}. Name another file "
            "with --store."
        ) from None


def _prepare(connection: Any, _record: object) -> None:
    """Set up a new connection. In SQLite `_begin` starts transactions; commits wait for the disk."""
    cursor = connection.cursor()
    if hasattr(connection, "pgconn"):
        cursor.execute("SET synchronous_commit = on")
        connection.commit()
    else:
        connection.isolation_level = None
        _write_ahead(cursor)
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA wal_autocheckpoint = 256")  # pages: the log needs little space later
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute("PRAGMA secure_delete = ON")  # a deleted photograph is overwritten
    cursor.close()


def _write_ahead(cursor: Any) -> None:
    """Let readers and a writer work side by side; retry, since the change does not wait for locks."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            if cursor.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                cursor.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > end:
                raise
            time.sleep(0.02)
        else:
            return


def _begin(connection: sa.Connection) -> None:
    """Queue writers from their first statement on, so that none fails later."""
    reads = connection.get_execution_options().get("nbdt_reads")
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")
    elif not reads:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITERS})")


def migration_config(connection: sa.Connection | None = None) -> Config:
    """Return Alembic's configuration; `migrations/env.py` takes the connection from it."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    config.attributes |= {"metadata": Table.metadata, "version_table": VERSION_TABLE}
    return config


def _upgrade(connection: sa.Connection, name: str) -> None:
    """Create the tables of a new store from the metadata; take an older one through the steps."""
    config = migration_config(connection)
    scripts = ScriptDirectory.from_config(config)
    revisions = {script.revision for script in scripts.walk_revisions()}
    options = {"version_table": VERSION_TABLE}
    current = MigrationContext.configure(connection, opts=options).get_current_revision()
    if current is not None and current not in revisions:
        release = connection.scalar(select(AboutRow.value).where(AboutRow.key == "release"))
        raise StoreError(
            f"The store {name!r} was written by nbdt-vision {release}, whose schema "
            f"{current!r} this release, {nbdt.__version__}, does not know; upgrade nbdt-vision."
        )
    if current is None and (tables := sa.inspect(connection).get_table_names()):
        raise StoreError(
            f"The database {name!r} holds other tables ({', '.join(sorted(tables)[:3])}); name "
            "one for corrections alone."
        )
    if current != scripts.get_current_head():
        if current is None:  # a new store
            Table.metadata.create_all(connection)
            command.stamp(config, "head")
        else:
            command.upgrade(config, "head")
        with Session(connection, join_transaction_mode="create_savepoint") as session:
            session.merge(AboutRow(key="release", value=nbdt.__version__))
            session.commit()


def _reason(error: SQLAlchemyError) -> str:
    """Return the database's message on one line, without the statement and its values."""
    text = str(error.orig) if isinstance(error, DBAPIError) else str(error)
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())[:300]
    busy = isinstance(error, OperationalError) and "locked" in line
    return f"{line}; another program holds it." if busy else f"{line.rstrip('.')}."


def check_room(
    session: Session,
    table: Any,
    visitor: str,
    limits: tuple[int | None, int | None],
    what: str,
    *,
    size: Any = None,
    more: int = 1,
    instead: str = "Delete some first.",
) -> None:
    """Raise StoreError if there is no room for what a visitor adds to a table.

    Args:
        limits: that of one visitor, and that of all together; None for no limit.
        what: what is counted, for the message; `instead` is what the visitor can do.
        size: the column or expression that is added up; without one rows are counted.
    """
    used = func.count(table.id) if size is None else func.coalesce(func.sum(size), 0)
    whose = (f"{what} of one visitor", table.visitor == visitor), (f"{what} in this store", true())
    for limit, (of_what, rows) in zip(limits, whose, strict=True):
        if limit is not None:
            at_most((session.scalar(select(used).where(rows)) or 0) + more, limit, of_what, instead)


def at_most(number: int, limit: int, of_what: str, remedy: str = "") -> None:
    """Raise StoreError if `number` is more than `limit`."""
    if number > limit:
        raise StoreError(f"There is room for {limit:,} {of_what}, not {number:,}. {remedy}".strip())


def check_texts(*texts: str | None) -> None:
    """Raise StoreError for what databases refuse: null characters and lone surrogates."""
    for text in texts:
        if text is not None and ("\0" in text or any("\ud800" <= c <= "\udfff" for c in text)):
            raise StoreError(
                f"Text holds a character that cannot be stored: {listed([text[:80]])}. Leave out "
                "null characters and broken emoji."
            )


def owned_by(table: Any, visitor: str | None) -> sa.ColumnElement[bool]:
    """Return the condition that a row is this visitor's; None stands for all visitors."""
    return true() if visitor is None else table.visitor == visitor
