"""The connection: durable when a write returns, one writer at a time, the schema kept up to date."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event, inspect, select
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session

import nbdt

from .place import StoreError, check_driver, store_url
from .schema import AboutRow, Table

MIGRATIONS = Path(__file__).parent / "migrations"
VERSION_TABLE = "nbdt_schema"
PATIENCE = 30.0  # seconds that a writer waits for its turn
_WRITERS = 0x6E626474  # PostgreSQL's name of the lock that writers hold: "nbdt"
_READS = {"nbdt_reads": True}


def open_engine(text: str) -> Engine:
    """Connect to a store; make it, or bring its schema up to date, under a lock.

    Raises:
        StoreError: it cannot be reached, is something else, or a newer release wrote it.
    """
    url = store_url(text)
    name = url.render_as_string(hide_password=True)
    if url.drivername == "sqlite":
        _own_file(Path(str(url.database)))
        engine = create_engine(url, connect_args={"timeout": PATIENCE})
    else:
        check_driver(url)
        engine = create_engine(url, pool_pre_ping=True)
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin)
    try:
        with engine.begin() as connection:
            _upgrade(connection, name)
    except SQLAlchemyError as error:
        engine.dispose()
        raise StoreError(f"The store {name!r} cannot be opened: {_reason(error)}") from None
    except StoreError:
        engine.dispose()
        raise
    return engine


@contextmanager
def writing(engine: Engine) -> Iterator[Session]:
    """A session that has committed, durably, when the block ends, or changed nothing.

    Raises:
        StoreError: the database refused; nothing was stored.
    """
    try:
        with Session(engine, expire_on_commit=False) as session, session.begin():
            yield session
    except SQLAlchemyError as error:
        raise StoreError(f"Nothing was stored: {_reason(error)} Try again.") from None


@contextmanager
def reading(engine: Engine) -> Iterator[Session]:
    """A session that sees one state of the database, and keeps no writer waiting."""
    try:
        with Session(engine.execution_options(**_READS), expire_on_commit=False) as session:
            yield session
    except SQLAlchemyError as error:
        raise StoreError(f"The store cannot be read: {_reason(error)}") from None


def _own_file(path: Path) -> None:
    """Made for its owner's eyes: it may hold people's photographs."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise StoreError(
            f"Corrections cannot be kept in {str(path)!r}: {error.strerror}. Name another place "
            "with --store."
        ) from None


def _prepare(connection: Any, _record: object) -> None:
    """A new connection. SQLite: `_begin` starts transactions, and a commit waits for the disk."""
    cursor = connection.cursor()
    if hasattr(connection, "pgconn"):
        cursor.execute("SET synchronous_commit = on")
        connection.commit()
    else:
        connection.isolation_level = None
        _write_ahead(cursor)
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute("PRAGMA secure_delete = ON")  # a deleted photograph is overwritten
    cursor.close()


def _write_ahead(cursor: Any) -> None:
    """Readers and a writer side by side. The change needs the file alone, and does not wait."""
    import sqlite3

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


def _begin(connection: Connection) -> None:
    """Writers queue from their first statement on, so that none has to be turned back later."""
    reads = connection.get_execution_options().get("nbdt_reads")
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")
    elif not reads:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITERS})")


def migration_config(connection: Connection | None = None) -> Config:
    """Alembic's configuration, without a file; `migrations/env.py` takes the connection from it."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes |= {
        "connection": connection, "metadata": Table.metadata, "version_table": VERSION_TABLE,
    }  # fmt: skip
    return config


def _upgrade(connection: Connection, name: str) -> None:
    config = migration_config(connection)
    scripts = ScriptDirectory.from_config(config)
    known = {script.revision for script in scripts.walk_revisions()}
    options = {"version_table": VERSION_TABLE}
    found = MigrationContext.configure(connection, opts=options).get_current_revision()
    if found is not None and found not in known:
        raise StoreError(
            f"The store {name!r} was written by nbdt-vision {_release(connection)}, whose schema "
            f"{found!r} this release, {nbdt.__version__}, does not know; upgrade nbdt-vision."
        )
    if found is None and (tables := inspect(connection).get_table_names()):
        raise StoreError(
            f"The database {name!r} holds other tables ({', '.join(sorted(tables)[:3])}); name "
            "one for corrections alone."
        )
    if found != scripts.get_current_head():
        command.upgrade(config, "head")
        with Session(connection, join_transaction_mode="create_savepoint") as session:
            session.merge(AboutRow(key="release", value=nbdt.__version__))
            session.commit()


def _release(connection: Connection) -> str:
    """The release that last changed the schema, as far as it says so."""
    if not inspect(connection).has_table(AboutRow.__tablename__):
        return "of a later time"
    found = connection.scalar(select(AboutRow.value).where(AboutRow.key == "release"))
    return found or "of a later time"


def _reason(error: SQLAlchemyError) -> str:
    """The database's own words, on one line, without statement, values or addresses of helpers."""
    text = str(error.orig) if isinstance(error, DBAPIError) else str(error)
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())[:300]
    busy = isinstance(error, OperationalError) and "locked" in plain
    return f"{plain}; another program holds it." if busy else f"{plain.rstrip('.')}."
