"""The URL of a store: the user's own file by default, or a database."""

from __future__ import annotations

import os
from pathlib import Path

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
