"""The tables that migrations make, and what is said when they are not those of this version."""

import asyncio
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from click.testing import CliRunner, Result
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection

from mediad import config
from mediad.errors import ConfigError, SchemaError
from mediad.metrics import Metrics
from mediad.store import audit, schema
from mediad.store import database as database_module
from mediad.store.audit import MEDIAD, Change, EntryFilter
from mediad.store.audit_chain import verify
from mediad.store.database import Database
from mediad.store.engine import make_engine
from mediad.store.migrate_command import migrate
from mediad.store.tables import TABLES, metadata
from mediad.store.types import new_id
from tests.mariadb import MariaDb

SECOND = '''"""Give agents a colour."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("agents", sa.Column("colour", sa.String(20)))
'''


@asynccontextmanager
async def connected(settings: config.Database) -> AsyncIterator[AsyncConnection]:
    engine = make_engine(settings)
    try:
        async with engine.connect() as connection:
            yield connection
    finally:
        await engine.dispose()


async def execute(settings: config.Database, statement: str) -> list[tuple[object, ...]]:
    async with connected(settings) as connection:
        result = await connection.execute(text(statement))
        return [tuple(row) for row in result] if result.returns_rows else []


async def open_and_close(settings: config.Database) -> None:
    database = Database(settings, Metrics())
    try:
        await database.open()
    finally:
        await database.close()


@pytest.fixture
def newer_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A mediad that has a second migration."""
    directory = tmp_path / "migrations"
    shutil.copytree(schema._DIRECTORY, directory)
    (directory / "versions" / "0005_colour.py").write_text(SECOND)
    monkeypatch.setattr(schema, "_DIRECTORY", directory)


@pytest.fixture(params=["sqlite", "mariadb"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> config.Database:
    """A database without any tables."""
    if request.param == "sqlite":
        return config.Database.model_validate({"url": f"sqlite:///{tmp_path}/other.db"})
    server: MariaDb = request.getfixturevalue("mariadb")
    return config.Database.model_validate({"url": server.new_database()})


async def test_migrations_make_the_tables_that_the_code_knows(settings: config.Database) -> None:
    def compare(connection: Connection) -> list[object]:
        options = {"compare_type": True, "compare_server_default": True}
        return list(
            compare_metadata(MigrationContext.configure(connection, opts=options), metadata)
        )

    async with connected(settings) as connection:
        assert await connection.run_sync(compare) == []


async def test_tables_of_mariadb_are_innodb_and_hold_emoji(mariadb_url: str) -> None:
    settings = config.Database.model_validate({"url": mariadb_url})
    rows = await execute(
        settings,
        "SELECT table_name, engine, table_collation FROM information_schema.tables "
        "WHERE table_schema = DATABASE() AND table_name <> 'alembic_version'",
    )
    assert sorted(rows) == sorted((table.name, "InnoDB", "utf8mb4_bin") for table in TABLES)


async def test_the_default_customer_is_there(settings: config.Database) -> None:
    rows = await execute(settings, "SELECT id, status, total_calls FROM customers")
    assert rows == [("default", "active", 0)]


# Other versions


async def test_a_database_without_tables(empty: config.Database) -> None:
    with pytest.raises(SchemaError, match=r"no tables of mediad; run `mediad migrate`"):
        await open_and_close(empty)


async def test_a_database_that_is_newer(settings: config.Database) -> None:
    await execute(settings, "UPDATE alembic_version SET version_num = '9999'")
    try:
        with pytest.raises(SchemaError, match=r"version 9999, which is newer .* `mediad migrate`"):
            await open_and_close(settings)
    finally:
        await execute(settings, "UPDATE alembic_version SET version_num = '0004'")


@pytest.mark.usefixtures("newer_code")
async def test_a_server_that_is_older(mariadb_url: str) -> None:
    settings = config.Database.model_validate({"url": mariadb_url})
    with pytest.raises(SchemaError, match=r"version 0004, .* needs 0005; run `mediad migrate`"):
        await open_and_close(settings)


async def test_the_embedded_database_migrates_itself(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    settings = config.Database(directory=tmp_path)
    await open_and_close(settings)
    assert await execute(settings, "SELECT version_num FROM alembic_version") == [("0004",)]
    request.getfixturevalue("newer_code")
    await open_and_close(settings)
    assert await execute(settings, "SELECT version_num FROM alembic_version") == [("0005",)]
    assert await execute(settings, "SELECT colour FROM agents") == []


async def test_an_embedded_migration_may_take_longer_than_a_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upgrade = schema.upgrade

    def slow_upgrade(connection: Connection) -> None:
        upgrade(connection)
        time.sleep(0.5)
        connection.exec_driver_sql("SELECT 1")  # here its time would be over

    monkeypatch.setattr(schema, "upgrade", slow_upgrade)
    monkeypatch.setattr(database_module, "_READ_S", 0.4)
    settings = config.Database(directory=tmp_path)
    await open_and_close(settings)
    assert await execute(settings, "SELECT version_num FROM alembic_version") == [("0004",)]


async def test_an_embedded_migration_that_fails_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, newer_code: None
) -> None:
    (schema._DIRECTORY / "versions" / "0006.py").write_text(
        SECOND.replace("0005", "0006").replace("0004", "0005")  # the same column again
    )
    settings = config.Database(directory=tmp_path)
    with pytest.raises(Exception, match="duplicate column name"):
        await open_and_close(settings)
    assert await execute(settings, "SELECT name FROM sqlite_master") == []


def test_processes_that_start_at_once_on_a_new_file(tmp_path: Path) -> None:
    code = (
        "import asyncio, sys; from pathlib import Path; from mediad import config;"
        "from mediad.metrics import Metrics; from mediad.store.database import Database;"
        "asyncio.run(Database(config.Database(directory=Path(sys.argv[1])), Metrics()).open())"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(3)]
    for process in processes:
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 0, errors.decode()


# What was there before


def upgrade_to(connection: Connection, version: str) -> None:
    """Make tables of an earlier version."""
    with schema._alone(connection):
        command.upgrade(schema._config(connection=connection, done=lambda _: None), version)


async def write_as_before(connection: AsyncConnection, count: int, customer_id: str) -> None:
    """Write entries of the audit log as a mediad did that knew no chain, some at one instant."""
    statement = text(
        "INSERT INTO audit_logs (id, customer_id, action, resource_type, resource_id, actor_id, "
        "before_state, tm_create) VALUES (:id, :of, 'update', 'agent', 'a', NULL, :state, :time)"
    )
    rows = [
        {
            "id": new_id(),
            "of": customer_id,
            "state": f'{{"name": "Zoë 🍣", "rate": 0.1, "n": {number}}}',
            "time": f"2026-01-02 03:04:{number // 30:02}.{number // 3:06}",
        }
        for number in range(count)
    ]
    await connection.execute(text("BEGIN"))
    await connection.execute(statement, rows)
    await connection.execute(text("COMMIT"))


async def test_an_older_audit_log_is_chained_in_its_order(empty: config.Database) -> None:
    async with connected(empty) as connection:
        await connection.run_sync(upgrade_to, "0003")
        await write_as_before(connection, 1_100, "c1")
        await write_as_before(connection, 1, "c2")
        await connection.run_sync(schema.upgrade)
        order = await connection.execute(
            text("SELECT sequence FROM audit_logs WHERE customer_id = 'c1' ORDER BY tm_create, id")
        )
        assert list(order.scalars()) == list(range(1, 1_101))
    database = Database(empty, Metrics())
    try:
        for customer_id, count in (("c1", 1_100), ("c2", 1)):
            verdict = await verify(database, customer_id)
            assert (verdict.good, verdict.broken) == (count, None)
        async with database.write() as connection:
            change = Change("c1", "test", "webhook", "w")
            await audit.record(connection, MEDIAD, [change])
        assert (await verify(database, "c1")).good == 1_101
        async with connected(empty) as connection:  # the mediad before still runs
            await write_as_before(connection, 1, "c1")
        async with database.read() as connection:
            first = EntryFilter(until=datetime(2026, 1, 2, 3, 4, 0, 1, tzinfo=UTC))
            entries = (await audit.list_entries(connection, "c1", first)).items
        assert sorted(entry.sequence or 0 for entry in entries) == [0, 1, 2, 3]
        assert all(entry.success and entry.before_state for entry in entries)
        broken = (await verify(database, "c1")).broken
        assert broken is not None
        assert broken.how == "added"
    finally:
        await database.close()


# mediad migrate


def run(settings: config.Database, *arguments: str) -> Result:
    assert settings.url is not None
    environment = {"MEDIAD_DATABASE__URL": settings.url.get_secret_value()}
    return CliRunner().invoke(migrate, arguments, env=environment)


def test_migrate_makes_the_tables_and_says_so(empty: config.Database) -> None:
    checked = run(empty, "--check")
    assert checked.exit_code == 1
    assert "no tables of mediad; run `mediad migrate`" in checked.output
    first = run(empty)
    assert first.exit_code == 0, first.output
    assert "version none, 0004 is needed\n0001 Make the first tables" in first.output
    assert first.output.endswith("s)\ndone\n")
    assert run(empty).output.endswith("version 0004, 0004 is needed\nnothing to do\n")
    checked = run(empty, "--check")
    assert (checked.exit_code, checked.output.endswith(": nothing to do\n")) == (0, True)
    assert "pass" not in first.output + checked.output


async def test_the_printed_statements_make_the_same_tables(empty: config.Database) -> None:
    printed = await asyncio.to_thread(run, empty, "--sql")
    assert printed.exit_code == 0, printed.output
    lines = [line for line in printed.output.splitlines() if not line.startswith("--")]
    async with connected(empty) as connection:
        for statement in "\n".join(lines).split(";"):
            if statement.strip():
                await connection.exec_driver_sql(statement)
    await test_migrations_make_the_tables_that_the_code_knows(empty)
    await test_the_default_customer_is_there(empty)
    printed = await asyncio.to_thread(run, empty, "--sql")
    assert "CREATE" not in printed.output


def test_who_must_stop_before_a_migration_is_said_where_it_is_run() -> None:
    readme = (Path(__file__).parents[3] / "README.md").read_text("utf-8")
    for words in (CliRunner().invoke(migrate, ["--help"]).output, readme):
        assert "stop it before the step to 0004" in " ".join(words.split())


def test_migrate_will_not_touch_a_newer_database(empty: config.Database) -> None:
    run(empty)
    asyncio.run(execute(empty, "UPDATE alembic_version SET version_num = '9999'"))
    result = run(empty)
    assert isinstance(result.exception, SchemaError)
    assert "newer" in str(result.exception)


@pytest.mark.usefixtures("newer_code")
def test_a_step_that_fails_is_named(empty: config.Database) -> None:
    (schema._DIRECTORY / "versions" / "0006.py").write_text(
        SECOND.replace("0005", "0006").replace("0004", "0005")
    )
    result = run(empty)
    assert result.exit_code == 1
    assert "0005 Give agents a colour" in result.output
    assert "stopped: " in result.output
    assert "uplicate column name" in result.output


def test_two_migrations_at_once(mariadb: MariaDb) -> None:
    settings = config.Database.model_validate({"url": mariadb.new_database()})
    name = str(settings.url and settings.url.get_secret_value()).rpartition("/")[2]
    lock = f"CONCAT('mediad.', MD5('{name}'))"

    async def hold_and_migrate() -> Result:
        async with connected(settings) as connection:
            await connection.execute(text(f"SELECT GET_LOCK({lock}, 0)"))
            return await asyncio.to_thread(run, settings)

    result = asyncio.run(hold_and_migrate())
    assert isinstance(result.exception, SchemaError)
    assert "another `mediad migrate` is at work" in str(result.exception)


def test_migrate_without_a_server(unused_tcp_port: int) -> None:
    url = f"mysql://mediad:secret@127.0.0.1:{unused_tcp_port}/mediad"
    result = run(config.Database.model_validate({"url": url}))
    assert result.exit_code == 1
    assert f"mediad on 127.0.0.1:{unused_tcp_port}: Can't connect" in result.output
    assert "secret" not in result.output


def test_migrate_with_a_wrong_password(mariadb: MariaDb) -> None:
    settings = config.Database.model_validate({"url": mariadb.url("mediad_x", password="wrong")})
    result = run(settings)
    assert isinstance(result.exception, ConfigError)
    assert "[database] url: Access denied for user 'mediad'" in str(result.exception)
