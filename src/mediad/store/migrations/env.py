"""Alembic's entry: `mediad.store.schema` runs it, with a connection or for SQL alone."""

from alembic import context
from alembic.runtime.migration import MigrationInfo

from mediad.store.tables import metadata


def _report(ctx: object, step: MigrationInfo, heads: object, run_args: object) -> None:
    context.config.attributes["done"](step.up_revision_id)


def _run() -> None:
    attributes = context.config.attributes
    if context.is_offline_mode():
        context.configure(
            dialect_name=attributes["dialect"], target_metadata=metadata, literal_binds=True
        )
    else:
        context.configure(
            attributes["connection"], target_metadata=metadata, on_version_apply=_report
        )
    with context.begin_transaction():
        context.run_migrations()


_run()
