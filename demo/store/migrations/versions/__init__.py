"""The steps. New: `alembic revision --autogenerate`, then read what it wrote."""
