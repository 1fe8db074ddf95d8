"""Connections: how they are set up, what is told when the database is not there, and that no
request ever gets another's rows.
"""

import asyncio
import random
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import JSON, bindparam, insert, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, StatementError
from sqlalchemy.ext.asyncio import AsyncConnection

from mediad import config
from mediad.errors import ConfigError, DatabaseUnavailable
from mediad.metrics import Metrics
from mediad.store import database as database_module
from mediad.store import engine
from mediad.store.database import Database
from mediad.store.tables import event_sequences
from tests.integration.store.conftest import migrate
from tests.mariadb import MariaDb, running_mariadb
from tests.own_stalls import no_longer_than

REQUESTS = 200


def for_mariadb(url: str, **others: Any) -> config.Database:
    return config.Database.model_validate({"url": url, **others})


@asynccontextmanager
async def opened(
    settings: config.Database, metrics: Metrics | None = None
) -> AsyncIterator[Database]:
    database = Database(settings, metrics or Metrics())
    try:
        await database.open()
        yield database
    finally:
        await database.close()


async def value(connection: AsyncConnection, expression: str) -> Any:
    return (await connection.execute(text(f"SELECT {expression}"))).scalar_one()


async def add_row(connection: AsyncConnection, customer_id: str) -> None:
    await connection.execute(insert(event_sequences), [{"customer_id": customer_id, "last": 1}])


async def read_rows(database: Database) -> list[str]:
    async with database.read() as connection:
        query = select(event_sequences.c.customer_id).order_by(event_sequences.c.customer_id)
        return list((await connection.execute(query)).scalars())


# How connections are set up


async def test_a_connection_to_mariadb(mariadb_url: str) -> None:
    async with opened(for_mariadb(mariadb_url)) as database, database.read() as connection:
        expected = {
            "@@tx_isolation": "READ-COMMITTED",
            "@@time_zone": "+00:00",
            "@@innodb_lock_wait_timeout": 30,
            "@@lock_wait_timeout": 30,
            "@@autocommit": 1,
            "@@character_set_connection": "utf8mb4",
            "@@sql_mode": "STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION",
        }
        assert {name: await value(connection, name) for name in expected} == expected


async def test_a_connection_to_sqlite(tmp_path: Path) -> None:
    settings = config.Database(directory=tmp_path / "new" / "directory")
    async with opened(settings) as database, database.read() as connection:
        for name, expected in (
            ("journal_mode", "wal"),
            ("busy_timeout", 30_000),
            ("synchronous", 2),
        ):
            assert (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar_one() == expected
    assert (tmp_path / "new" / "directory" / "mediad.db").exists()


async def write_and_fail(database: Database) -> None:
    async with database.write() as connection:
        await add_row(connection, "a")
        raise KeyError


async def write_twice(database: Database) -> None:
    async with database.write() as connection:
        await add_row(connection, "a")
        await add_row(connection, "a")


async def test_a_failing_block_writes_nothing(database: Database) -> None:
    with pytest.raises(KeyError):
        await write_and_fail(database)
    assert await read_rows(database) == []


async def test_a_failing_statement_writes_nothing(database: Database) -> None:
    with pytest.raises(IntegrityError):
        await write_twice(database)
    assert await read_rows(database) == []
    async with database.write() as connection:
        await add_row(connection, "b")
    assert await read_rows(database) == ["b"]


async def test_a_reader_does_not_see_what_is_not_committed(database: Database) -> None:
    async with database.write() as connection:
        await add_row(connection, "a")
        assert await read_rows(database) == []
    assert await read_rows(database) == ["a"]


async def test_text_that_is_too_long_is_an_error_in_mariadb(mariadb_url: str) -> None:
    async with opened(for_mariadb(mariadb_url)) as database:
        with pytest.raises(DBAPIError, match="Data too long"):
            async with database.write() as connection:
                await add_row(connection, "a" * 37)


async def test_nan_is_refused_before_it_is_json(database: Database) -> None:
    with pytest.raises(StatementError, match="not JSON compliant"):
        async with database.write() as connection:
            await connection.execute(select(bindparam("value", {"a": float("nan")}, type_=JSON())))


# Cancelled requests


async def test_cancelled_requests_never_give_their_rows_to_another(database: Database) -> None:
    """200 requests are cancelled while their query is in flight; others go on beside them."""
    chance = random.Random(21)
    cancelled = 0

    async def ask(number: int, side: int) -> None:
        async with database.read() as connection:
            result = await connection.execute(text(_square(side)), {"number": number})
            assert [row[0] for row in result] == [number] * side**2
            again = await connection.execute(text("SELECT :number"), {"number": -number})
            assert str(again.scalar_one()) == str(-number)

    async def ask_and_cancel(number: int) -> None:
        nonlocal cancelled
        task = asyncio.create_task(ask(number, 60))
        await asyncio.sleep(chance.uniform(0, 0.006))
        if task.cancel():
            cancelled += 1
        await asyncio.gather(task, return_exceptions=True)
        if not task.cancelled():
            task.result()
        await ask(number + 1_000_000, 2)

    numbers = iter(range(10_000))
    while cancelled < REQUESTS:
        await asyncio.gather(*(ask_and_cancel(next(numbers)) for _ in range(8)))


def _square(side: int) -> str:
    """Return a query whose answer has many rows."""
    return (
        "WITH RECURSIVE counter (n) AS "
        f"(SELECT 1 UNION ALL SELECT n + 1 FROM counter WHERE n < {side}) "
        "SELECT :number FROM counter a, counter b"
    )


async def test_cancelled_writes_are_whole_or_nothing(database: Database) -> None:
    chance = random.Random(22)

    async def write(name: str) -> None:
        async with database.write() as connection:
            for part in ("a", "b", "c"):
                await add_row(connection, f"{name}-{part}")

    async def write_and_cancel(name: str) -> None:
        task = asyncio.create_task(write(name))
        await asyncio.sleep(chance.uniform(0, 0.008))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    for batch in range(REQUESTS // 8):
        await asyncio.gather(*(write_and_cancel(f"{batch}-{n}") for n in range(8)))
    await write("last")
    rows = await read_rows(database)
    names = {row.rpartition("-")[0] for row in rows}
    assert "last" in names
    assert sorted(rows) == sorted(f"{name}-{part}" for name in names for part in "abc")


# When the database is not there


async def test_a_server_that_refuses_connections(unused_tcp_port: int) -> None:
    settings = for_mariadb(f"mysql://a:b@127.0.0.1:{unused_tcp_port}/mediad")
    database = Database(settings, Metrics())
    with pytest.raises(DatabaseUnavailable, match="Can't connect"):
        await database.open()
    assert database.problem is not None
    assert "Can't connect" in database.problem


@pytest.fixture
def black_hole() -> Iterator[int]:
    """The port of a server that accepts and then says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


async def test_a_server_that_says_nothing(black_hole: int) -> None:
    settings = for_mariadb(f"mysql://a:b@127.0.0.1:{black_hole}/mediad", connect_timeout_s=0.2)
    database = Database(settings, Metrics())
    async with no_longer_than(2):
        with pytest.raises(DatabaseUnavailable, match="within 0.2 s"):
            await database.open()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda url: url.replace("pass%20word", "wrong"), "Access denied for user 'mediad'"),
        (lambda url: url.replace("mediad:", "nobody:"), "Access denied for user 'nobody'"),
        (lambda url: url + "_not", r"Unknown database 'mediad\w+_not'"),
        (lambda url: url.replace("/mediad_", "/other_"), "Access denied for user .* to database"),
    ],
)
async def test_what_the_server_does_not_know_is_a_wrong_setting(
    mariadb_url: str, change: Callable[[str], str], message: str
) -> None:
    with pytest.raises(ConfigError, match=rf"\[database\] url: {message}") as caught:
        async with opened(for_mariadb(change(mariadb_url))):
            pass
    assert "wrong" not in str(caught.value)


async def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "mediad.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(ConfigError, match="file is not a database"):
        async with opened(config.Database(directory=tmp_path)):
            pass


async def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"\[database\] directory: .* cannot be made"):
        async with opened(config.Database(directory=tmp_path / "file" / "below")):
            pass


async def test_a_directory_that_cannot_be_written() -> None:
    with pytest.raises(ConfigError, match="unable to open database file"):
        async with opened(config.Database(directory=Path("/proc/self"))):  # not even by root
            pass


async def test_no_thread_outlives_a_failed_connection() -> None:
    """It would tell its failure to an event loop that is closed by then."""
    before = set(threading.enumerate())
    for _ in range(50):
        with pytest.raises(ConfigError):
            async with opened(config.Database(directory=Path("/proc/self"))):
                pass
        assert set(threading.enumerate()) <= before


async def test_no_thread_outlives_a_cancelled_request(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    async with opened(config.Database(directory=tmp_path)) as database:
        for _ in range(5):
            task = asyncio.create_task(read_rows(database))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    assert set(threading.enumerate()) <= before


async def test_a_server_that_comes_late_is_checked_then() -> None:
    with running_mariadb() as server:
        url = server.new_database()
        server.stop()
        database = Database(for_mariadb(url), Metrics())
        with pytest.raises(DatabaseUnavailable):
            await database.open()
        server.start()
        with pytest.raises(DatabaseUnavailable, match="run `mediad migrate`"):
            await read_rows(database)
        await asyncio.to_thread(migrate, for_mariadb(url))
        await database.check()
        assert database.problem is None
        assert await read_rows(database) == []
        await database.close()


async def test_a_server_that_restarts(monkeypatch: pytest.MonkeyPatch) -> None:
    """One failure tells it; after the restart all connections are new."""
    with running_mariadb() as server:
        settings = for_mariadb(server.new_database())
        await asyncio.to_thread(migrate, settings)
        async with opened(settings) as database:
            await asyncio.gather(*(read_rows(database) for _ in range(5)))
            server.kill()
            await database.check()
            assert database.problem is not None
            with pytest.raises(DatabaseUnavailable):
                await read_rows(database)
            server.start()
            for _ in range(10):
                assert await read_rows(database) == []
            assert database.problem is None


async def test_a_connection_that_was_killed_while_idle_is_not_given_out(
    mariadb: MariaDb, mariadb_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_CHECK_AFTER_S", 0.0)
    async with opened(for_mariadb(mariadb_url)) as database:
        async with database.read() as connection:
            first = await value(connection, "CONNECTION_ID()")
        mariadb.execute(f"KILL {first}")
        async with database.read() as connection:
            assert await value(connection, "CONNECTION_ID()") != first


async def test_a_connection_that_is_killed_in_use_is_lost(
    mariadb: MariaDb, mariadb_url: str
) -> None:
    async def write(database: Database) -> None:
        async with database.write() as connection:
            await add_row(connection, "killed")
            mariadb.execute(f"KILL {await value(connection, 'CONNECTION_ID()')}")
            await value(connection, "1")

    async with opened(for_mariadb(mariadb_url)) as database:
        with pytest.raises(DatabaseUnavailable):
            await write(database)
        assert "killed" not in await read_rows(database)


async def test_a_server_that_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(database_module, "_READ_S", 0.3)
    with running_mariadb() as server:
        settings = for_mariadb(server.new_database(), connect_timeout_s=0.2)
        await asyncio.to_thread(migrate, settings)
        async with opened(settings) as database:
            server.pause()
            for _ in range(2):  # on an open connection, and on a new one
                async with no_longer_than(2):
                    with pytest.raises(DatabaseUnavailable, match="no answer"):
                        await read_rows(database)
            server.resume()
            assert await read_rows(database) == []


# How long connections are kept


async def test_idle_connections_are_replaced(
    mariadb_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(for_mariadb(mariadb_url)) as database:
        ids = []
        for max_idle_s in (300.0, 300.0, 0.0):
            monkeypatch.setattr(engine, "_MAX_IDLE_S", max_idle_s)
            async with database.read() as connection:
                ids.append(await value(connection, "CONNECTION_ID()"))
    assert ids[0] == ids[1] != ids[2]


async def test_old_connections_are_replaced(
    mariadb_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_MAX_LIFETIME_S", 0)
    async with opened(for_mariadb(mariadb_url)) as database:
        ids = set()
        for _ in range(3):
            async with database.read() as connection:
                ids.add(await value(connection, "CONNECTION_ID()"))
    assert len(ids) == 3


async def test_no_more_connections_than_the_pool_has(
    mariadb: MariaDb, mariadb_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_POOL_WAIT_S", 0.1)
    settings = for_mariadb(mariadb_url, pool_min=2, pool_max=3)
    metrics = Metrics()
    value_of = metrics.registry.get_sample_value
    async with opened(settings, metrics) as database:
        async with database.read(), database.read(), database.read():
            with pytest.raises(DatabaseUnavailable, match="all connections are in use"):
                await read_rows(database)
            assert value_of("mediad_database_connections_used") == 3
        assert value_of("mediad_database_failures_total") == 1
        name = mariadb_url.rpartition("/")[2]
        open_now = f"SELECT COUNT(*) FROM information_schema.processlist WHERE db = '{name}'"
        async with asyncio.timeout(10):
            # The one above pool_min is closed.
            while mariadb.execute(open_now) != [(2,)]:  # noqa: ASYNC110 (it has no event)
                await asyncio.sleep(0.02)


async def test_two_that_wait_for_each_other(mariadb_url: str) -> None:
    """One of them loses the deadlock, and is told to try again."""
    async with opened(for_mariadb(mariadb_url)) as database:
        async with database.write() as connection:
            await add_row(connection, "deadlock-1")
            await add_row(connection, "deadlock-2")
        both = asyncio.Barrier(2)

        async def touch(*names: str) -> None:
            async with database.write() as connection:
                for name in names:
                    await connection.execute(
                        text("UPDATE event_sequences SET last = last + 1 WHERE customer_id = :n"),
                        {"n": name},
                    )
                    if name == names[0]:
                        await both.wait()

        results = await asyncio.gather(
            touch("deadlock-1", "deadlock-2"),
            touch("deadlock-2", "deadlock-1"),
            return_exceptions=True,
        )
    assert [type(result) for result in results if result is not None] == [DatabaseUnavailable]
    assert "Deadlock" in str([result for result in results if result is not None][0])


async def test_a_connection_in_use_is_closed_after_the_database(
    mariadb: MariaDb, mariadb_url: str
) -> None:
    async with opened(for_mariadb(mariadb_url)) as database, database.read() as connection:
        connection_id = await value(connection, "CONNECTION_ID()")
        await database.close()
        assert await value(connection, "1") == 1
    is_open = f"SELECT COUNT(*) FROM information_schema.processlist WHERE id = {connection_id}"
    async with asyncio.timeout(10):
        while mariadb.execute(is_open) != [(0,)]:  # noqa: ASYNC110 (it has no event)
            await asyncio.sleep(0.02)
    with pytest.raises(DatabaseUnavailable, match="closed"):
        await read_rows(database)
