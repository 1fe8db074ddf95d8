"""Which version the database's tables have, which this mediad needs, and the way there."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from mediad.errors import SchemaError

__all__ = ["Migration", "State", "check", "read_state", "upgrade", "write_sql"]

_DIRECTORY = Path(__file__).parent / "migrations"


class Migration(NamedTuple):
    """One step from a version to the next."""

    version: str
    what: str


class State(NamedTuple):
    """Where a database is."""

    version: str | None
    """Of the database's tables; None when it has none."""
    needed: str
    """Of this mediad's."""
    missing: tuple[Migration, ...]
    """What leads from one to the other; empty if the database is newer."""

    @property
    def is_newer(self) -> bool:
        """Whether the database has a version that this mediad does not know."""
        return self.version != self.needed and not self.missing

    @property
    def problem(self) -> str | None:
        """What is wrong, and what to do; None if nothing is."""
        if self.version == self.needed:
            return None
        if self.version is None:
            return "the database has no tables of mediad; run `mediad migrate`"
        if self.is_newer:
            return (
                f"the database's tables are of version {self.version}, which is newer than this "
                f"mediad: it knows {self.needed}; take the mediad whose `mediad migrate` made them"
            )
        return (
            f"the database's tables are of version {self.version}, and this mediad needs "
            f"{self.needed}; run `mediad migrate`"
        )


def read_state(connection: Connection) -> State:
    """Return where the database is."""
    version = MigrationContext.configure(connection).get_current_revision()
    scripts = ScriptDirectory(str(_DIRECTORY))
    needed = scripts.get_current_head()
    assert needed is not None  # there is a migration
    migrations = tuple(
        Migration(script.revision, script.doc)
        for script in reversed(list(scripts.walk_revisions()))
    )
    known: list[str | None] = [None, *(migration.version for migration in migrations)]
    missing = migrations[known.index(version) :] if version in known else ()
    return State(version, needed, missing)


def check(connection: Connection) -> None:
    """Make sure that the tables are those of this mediad.

    Raises:
        SchemaError: If not; says what to do.
    """
    if problem := read_state(connection).problem:
        raise SchemaError(f"[database] url: {problem}")


def upgrade(connection: Connection, done: Callable[[str], None] = lambda _: None) -> None:
    """Bring the tables to this mediad's version.

    Args:
        connection: MySQL ends a transaction at each change of a table, so there an interrupted
            migration stays where it was; in SQLite all of them are one transaction.
        done: Told the version of each step when it is done.

    Raises:
        SchemaError: If the database is newer than this mediad, or another one is at it.
    """
    with _alone(connection):
        if read_state(connection).is_newer:
            check(connection)
        command.upgrade(_config(connection=connection, done=done), "head")


def write_sql(connection: Connection, output: TextIO) -> None:
    """Write the statements that `upgrade` would run."""
    state = read_state(connection)
    config = _config(dialect=connection.dialect.name)
    config.output_buffer = output
    command.upgrade(config, f"{state.version or 'base'}:head", sql=True)


def _alone(connection: Connection) -> AbstractContextManager[None]:
    """Keep others from doing the same at the same time."""
    return _transaction(connection) if connection.dialect.name == "sqlite" else _lock(connection)


@contextmanager
def _transaction(connection: Connection) -> Iterator[None]:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if not connection.invalidated:
            connection.exec_driver_sql("ROLLBACK")
        raise
    connection.exec_driver_sql("COMMIT")


@contextmanager
def _lock(connection: Connection) -> Iterator[None]:
    # Such a lock is the whole server's, and ends with the connection.
    name = connection.exec_driver_sql("SELECT CONCAT('mediad.', MD5(DATABASE()))").scalar_one()
    if not connection.execute(text("SELECT GET_LOCK(:name, 0)"), {"name": name}).scalar():
        raise SchemaError("[database] url: another `mediad migrate` is at work on this database")
    yield
    connection.execute(text("SELECT RELEASE_LOCK(:name)"), {"name": name})


def _config(**attributes: Any) -> Config:
    config = Config(attributes=attributes)
    config.set_main_option("script_location", str(_DIRECTORY).replace("%", "%%"))
    return config
