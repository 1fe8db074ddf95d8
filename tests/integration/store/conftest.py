"""One suite, both engines: `settings` and `database` come with SQLite and with MariaDB, each with
the tables made and nothing in them but the default customer.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import delete, update
from sqlalchemy.ext.asyncio import AsyncConnection

from mediad import config
from mediad.metrics import Metrics
from mediad.store import schema
from mediad.store.database import Database
from mediad.store.engine import make_engine
from mediad.store.tables import TABLES, customers
from tests.mariadb import MariaDb


@pytest.fixture(scope="session")
def mariadb_url(mariadb: MariaDb) -> str:
    """The session's database in it, migrated."""
    url = mariadb.new_database()
    migrate(config.Database.model_validate({"url": url}))
    return url


@pytest.fixture(scope="session")
def sqlite_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with tables, to copy."""
    directory = tmp_path_factory.mktemp("sqlite")
    migrate(config.Database(directory=directory))
    return directory / "mediad.db"


@pytest.fixture(params=["sqlite", "mariadb"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> config.Database:
    """A database with empty tables."""
    if request.param == "sqlite":
        file: Path = request.getfixturevalue("sqlite_file")
        shutil.copy(file, tmp_path)
        return config.Database(directory=tmp_path)
    url: str = request.getfixturevalue("mariadb_url")
    settings = config.Database.model_validate({"directory": tmp_path, "url": url})
    clear(settings)
    return settings


@pytest.fixture
async def database(settings: config.Database) -> AsyncIterator[Database]:
    """The same, open. At the end no connection may still be in use."""
    metrics = Metrics()
    database = Database(settings, metrics)
    await database.open()
    try:
        yield database
        assert metrics.registry.get_sample_value("mediad_database_connections_used") == 0
    finally:
        await database.close()


def migrate(settings: config.Database) -> None:
    """Make the tables."""

    async def upgrade() -> None:
        engine = make_engine(settings)
        async with engine.connect() as connection:
            await connection.run_sync(schema.upgrade)
        await engine.dispose()

    _run(upgrade)


def clear(settings: config.Database) -> None:
    """Delete all rows that a test left."""

    async def clear() -> None:
        engine = make_engine(settings)
        async with engine.connect() as connection:
            await _delete_rows(connection)
        await engine.dispose()

    _run(clear)


async def _delete_rows(connection: AsyncConnection) -> None:
    for table in TABLES:
        kept = [table.c.id != "default"] if table is customers else []
        await connection.execute(delete(table).where(*kept))
    await connection.execute(update(customers).values(total_calls=0))


def _run(work: object) -> None:
    """Run a coroutine function to its end in a thread: a fixture must not touch the test's loop."""
    assert callable(work)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, work()).result()
