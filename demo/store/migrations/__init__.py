"""The schema's history, one step a file, applied by Alembic when a store is opened."""
