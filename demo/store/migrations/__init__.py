"""Alembic's environment: it brings older stores to the present schema when they are opened."""
