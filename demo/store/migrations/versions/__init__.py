"""Schema changes, one file each. Add one with `alembic revision --autogenerate` and review it."""
