"""The first schema. A new store gets its tables from `schema.Table.metadata`, not from steps."""

revision: str = "1"
down_revision: str | None = None


def upgrade() -> None:
    """Do nothing: see `nbdt.demo.store.database`."""
