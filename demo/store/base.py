"""A store's connection, which its parts share."""

from __future__ import annotations

from typing import Self

from sqlalchemy import Engine

from .engine import open_engine
from .limits import Limits
from .place import default_url


class Base:
    """One database, and what it may be filled with."""

    def __init__(self, engine: Engine, limits: Limits) -> None:
        self._engine = engine
        self.limits = limits

    @classmethod
    def open(cls, url: str | None = None, *, limits: Limits | None = None) -> Self:
        """A SQLite file (by default this person's own) or a PostgreSQL database, made if need be.

        Raises:
            StoreError: it cannot be reached, is something else, or a newer release wrote it.
        """
        return cls(open_engine(url or default_url()), limits or Limits())

    @property
    def place(self) -> str:
        """Where it is, without a password."""
        url = self._engine.url
        return str(url.database) if url.drivername == "sqlite" else url.render_as_string()

    @property
    def url(self) -> str:
        """For another process that is to open it, with the password if there is one."""
        return self._engine.url.render_as_string(hide_password=False)

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()
