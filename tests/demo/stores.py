"""What tests look for in a store."""

from sqlalchemy import select

from nbdt.demo.store.database import reading
from nbdt.demo.store.schema import PhotographRow


def kept_photographs(store):
    """The columns of each kept photograph but its data, oldest first."""
    columns = [column for column in PhotographRow.__table__.columns if column.key != "data"]
    with reading(store._engine) as session:
        return session.execute(select(*columns).order_by(PhotographRow.id)).all()
