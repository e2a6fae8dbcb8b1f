"""A correction keeps what the network made of its photograph, so that it can act at once."""

import sqlalchemy as sa
from alembic import op

revision: str = "2"
down_revision: str | None = "1"


def upgrade() -> None:
    """Add the two columns; older corrections have neither."""
    op.add_column("correction", sa.Column("features", sa.LargeBinary))
    op.add_column("correction", sa.Column("network", sa.Text))
