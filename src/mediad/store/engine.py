"""The connections: how each is opened and set up, and for how long it is kept."""

import asyncio
import json
import threading
import time
from pathlib import Path
from typing import Any, ClassVar
from weakref import WeakSet

import aiosqlite
from asyncmy.connection import Connection
from asyncmy.constants.CR import CR_CONN_HOST_ERROR
from asyncmy.errors import OperationalError
from sqlalchemy import URL, Engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection
from sqlalchemy.util import await_only

from mediad.config import Database
from mediad.errors import ConfigError

__all__ = ["LOCK_WAIT_S", "database_url", "make_directory", "make_engine"]

_CACHE_KIB = 256  # of SQLite for a connection; the kernel caches the file as well
LOCK_WAIT_S = 30
"""How long a statement waits for somebody else's lock, in seconds."""

_POOL_WAIT_S = 5.0  # for another request to give a connection back
_MAX_IDLE_S = 300.0  # then it is replaced: a firewall or the server may have forgotten it
_MAX_LIFETIME_S = 3600
_CHECK_AFTER_S = 1.0  # a connection that was idle for longer is asked whether it still is one
_CLOSE_S = 1.0
_PAUSE_S = 0.001
_SQLITE_CONNECTIONS = 5  # each is a thread

# Anything longer than its column is an error, not cut; the rest is as the server's defaults.
# Without NO_BACKSLASH_ESCAPES and ANSI_QUOTES, on which the driver's quoting would depend.
_MYSQL_SESSION = (
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
    f"SET time_zone = '+00:00', innodb_lock_wait_timeout = {LOCK_WAIT_S}, "
    f"lock_wait_timeout = {LOCK_WAIT_S}, "  # of tables, while they are migrated
    "sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'",
)

_SQLITE_SESSION = (
    f"PRAGMA busy_timeout = {LOCK_WAIT_S * 1000}",
    "PRAGMA journal_mode = WAL",
    f"PRAGMA cache_size = -{_CACHE_KIB}",
    # Not NORMAL: what is here is gone from the journal, and that may have been synced.
    "PRAGMA synchronous = FULL",
)


def database_url(settings: Database) -> URL:
    """Return where the database is, with the driver to use."""
    if settings.url is None:
        path = settings.state_directory / "mediad.db"
        return URL.create("sqlite+aiosqlite", database=str(path))
    url = make_url(settings.url.get_secret_value())
    drivers = {"mysql": "mysql+asyncmy", "sqlite": "sqlite+aiosqlite"}
    return url.set(drivername=drivers[url.drivername])


def make_directory(directory: Path) -> None:
    """Make the directory of the embedded database, if need be.

    Raises:
        ConfigError: If it cannot be made.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise ConfigError(
            f"[database] directory: {directory} cannot be made: {exc.strerror}"
        ) from exc


def make_engine(settings: Database) -> AsyncEngine:
    """Return an engine without a connection yet.

    Outside of an explicit BEGIN each statement is a transaction of its own, so that a read is one
    round trip.
    """
    url = database_url(settings)
    is_sqlite = url.get_backend_name() == "sqlite"
    threads = _Threads()
    options = _sqlite_options(threads) if is_sqlite else _mysql_options(settings)
    engine = create_async_engine(
        url,
        isolation_level="AUTOCOMMIT",
        skip_autocommit_rollback=True,
        pool_reset_on_return=None,  # `Database.write` ends what it begins
        pool_timeout=_POOL_WAIT_S,
        json_serializer=_to_json,
        hide_parameters=True,  # what people said does not belong into a log
        **options,
    )
    if is_sqlite:
        event.listen(engine.sync_engine, "connect", _set_up_sqlite)
        event.listen(engine.sync_engine, "engine_disposed", threads.wait_for_their_end)
    else:
        event.listen(engine.sync_engine, "engine_disposed", _wait_for_closing)
        _replace_idle_connections(engine)
    return engine


def _to_json(value: object) -> str:
    # NaN is no JSON: SQLite would take it and MariaDB not.
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _sqlite_options(threads: "_Threads") -> dict[str, Any]:
    return {
        "pool_size": _SQLITE_CONNECTIONS,
        "max_overflow": 0,
        "connect_args": {"async_creator_fn": threads.connect},
    }


def _mysql_options(settings: Database) -> dict[str, Any]:
    timeout_s = settings.connect_timeout_s

    async def connect(**arguments: Any) -> Connection:
        return await _connect(timeout_s, **arguments)

    return {
        "pool_size": settings.pool_min,
        "max_overflow": settings.pool_max - settings.pool_min,
        "pool_recycle": _MAX_LIFETIME_S,
        "connect_args": {"async_creator_fn": connect, "autocommit": True, "charset": "utf8mb4"},
    }


class _Threads:
    """Connections to SQLite, each with a thread.

    One that failed, or whose request was cancelled, is told to end and nobody waits: it may still
    have something to tell an event loop that is closed by then.
    """

    def __init__(self) -> None:
        self._threads: WeakSet[threading.Thread] = WeakSet()

    async def connect(self, *arguments: Any, **options: Any) -> aiosqlite.Connection:
        connection = aiosqlite.connect(*arguments, **options)
        thread = connection._thread  # noqa: SLF001  # there is no other way to it
        thread.daemon = True
        self._threads.add(thread)
        return await connection

    def wait_for_their_end(self, _: Engine) -> None:
        await_only(self._end())

    async def _end(self) -> None:
        deadline = time.monotonic() + _CLOSE_S
        while time.monotonic() < deadline and self._are_alive():  # noqa: ASYNC110
            await asyncio.sleep(_PAUSE_S)

    def _are_alive(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)


def _set_up_sqlite(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    try:
        cursor = connection.cursor()
        for statement in _SQLITE_SESSION:
            cursor.execute(statement)
        cursor.close()
    except BaseException:
        connection.close()  # nobody else would, and its thread may outlive the loop
        raise


class _BoundedClose(Connection):
    """A connection whose end does not wait for a server that reads no more."""

    # A connection whose request was cancelled is closed and nobody waits: an event loop must not be
    # closed meanwhile.
    closing: ClassVar[WeakSet["_BoundedClose"]] = WeakSet()

    async def ensure_closed(self) -> None:
        self.closing.add(self)
        try:
            async with asyncio.timeout(_CLOSE_S):
                await super().ensure_closed()
        except TimeoutError:
            self.close()
        finally:
            self.closing.discard(self)


def _wait_for_closing(_: Engine) -> None:
    await_only(_closed())


async def _closed() -> None:
    deadline = time.monotonic() + _CLOSE_S
    while _BoundedClose.closing and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(_PAUSE_S)
    await asyncio.sleep(_PAUSE_S)  # the transports close in the turn after


async def _connect(timeout_s: float, **arguments: Any) -> Connection:
    connection = _BoundedClose(**arguments)  # type: ignore[no-untyped-call]  # its stub
    try:
        # The driver's own limit is only for TCP: a server may accept and then say nothing.
        async with asyncio.timeout(timeout_s):
            await connection.connect()
            for statement in _MYSQL_SESSION:
                await connection.query(statement)  # type: ignore[no-untyped-call]  # its stub
    except TimeoutError as exc:
        connection.close()
        host = f"{arguments.get('host')}:{arguments.get('port') or 3306}"
        message = f"no answer from {host} within {timeout_s:g} s"
        raise OperationalError(CR_CONN_HOST_ERROR, message) from exc
    except BaseException:
        connection.close()
        raise
    return connection


def _replace_idle_connections(engine: AsyncEngine) -> None:
    """Give out no connection that was idle for too long, or that the server has closed."""

    @event.listens_for(engine.sync_engine, "checkin")
    def remember(_: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        record.info["idle_since"] = time.monotonic()

    @event.listens_for(engine.sync_engine, "checkout")
    def check(
        connection: DBAPIConnection, record: ConnectionPoolEntry, _: PoolProxiedConnection
    ) -> None:
        idle_s = time.monotonic() - record.info.get("idle_since", time.monotonic())
        if idle_s > _MAX_IDLE_S:
            raise DisconnectionError(f"idle for {idle_s:.0f} s")
        if idle_s > _CHECK_AFTER_S:
            try:
                engine.dialect.do_ping(connection)
            except engine.dialect.loaded_dbapi.Error as exc:
                raise DisconnectionError(str(exc)) from exc
