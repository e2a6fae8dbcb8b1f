"""The first schema. A new store gets its tables from `schema.Table.metadata`, not from steps."""

from collections.abc import Sequence

revision: str = "1"
down_revision: str | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Do nothing: see `nbdt.demo.store.database`."""


def downgrade() -> None:
    """Refuse: nothing precedes this schema, and corrections must not be lost."""
    raise NotImplementedError("The first schema cannot be undone; remove the database instead.")
