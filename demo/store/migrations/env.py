"""Run the steps inside the transaction of the connection that Alembic was given."""

from alembic import context

settings = context.config.attributes
context.configure(
    connection=settings["connection"],
    target_metadata=settings["metadata"],
    version_table=settings["version_table"],
    transactional_ddl=True,  # SQLite's too: `_begin` opens the transaction itself
    render_as_batch=True,  # SQLite changes a column by making the table again
)
with context.begin_transaction():
    context.run_migrations()
