"""The database: connections to read and to write with, and what is wrong with it now."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext

from prometheus_client import Counter, Histogram
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.pool import QueuePool

from mediad import config
from mediad.errors import ConfigError, DatabaseUnavailable, SchemaError
from mediad.metrics import Metrics
from mediad.store import schema
from mediad.store.engine import LOCK_WAIT_S, make_directory, make_engine
from mediad.store.failures import misconfigured, unavailable

__all__ = ["Database"]

logger = logging.getLogger(__name__)

_READ_S = 15.0  # a read waits for no lock
_WRITE_S = LOCK_WAIT_S + 10.0
_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 30.0)


class Database:
    """Gives connections. Lives on one event loop.

    The embedded SQLite makes its tables by itself; those of a server are made by a person.
    """

    def __init__(self, settings: config.Database, metrics: Metrics) -> None:
        self._engine = make_engine(settings)
        self._is_sqlite = self._engine.dialect.name == "sqlite"
        self._begin = "BEGIN IMMEDIATE" if self._is_sqlite else "BEGIN"
        # SQLite has one writer at a time. In line here they come in order; its own way to wait is
        # to sleep and to try again.
        self._line = asyncio.Lock() if self._is_sqlite else None
        self._directory = settings.state_directory if settings.url is None else None
        self._is_checked = False
        self._is_closed = False
        self.problem: str | None = None
        """What is wrong now, for people; None if nothing is known to be."""
        self._seconds = Histogram(
            "mediad_database_seconds",
            "From asking for a connection to giving it back",
            ["kind"],
            buckets=_BUCKETS,
            registry=metrics.registry,
        )
        self._failures = Counter(
            "mediad_database_failures",
            "Reads and writes that the database did not do: not reached, lost, too slow",
            registry=metrics.registry,
        )
        pool = self._engine.pool
        assert isinstance(pool, QueuePool)
        metrics.watch("database_connections_used", "Connections in use", pool.checkedout)
        metrics.watch("database_connections_idle", "Connections not in use", pool.checkedin)

    async def open(self) -> None:
        """Connect, and make sure that the tables are those of this version.

        Raises:
            ConfigError: If the server does not know us or the database, or the file is none.
            SchemaError: If the tables are missing, older or newer.
            DatabaseUnavailable: If the server does not answer. It may later: use the database all
                the same.
        """
        if self._directory is not None:
            make_directory(self._directory)
        try:
            async with self._connect(_READ_S):
                pass
        except DatabaseUnavailable as exc:
            cause = exc.__cause__
            if isinstance(cause, SchemaError):
                raise cause from None
            if cause is not None and (problem := misconfigured(cause)):
                raise ConfigError(f"[database] url: {problem}") from cause
            raise

    async def close(self) -> None:
        """Close all connections; one that is in use, as soon as it is no longer."""
        self._is_closed = True
        await self._engine.dispose()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """Give a connection on which each statement sees what is committed.

        Raises:
            DatabaseUnavailable: If the database is not reached, lost or too slow.
        """
        with self._seconds.labels("read").time():
            async with self._connect(_READ_S) as connection:
                yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """Give a connection in a transaction: all that the block does, or nothing.

        Raises:
            DatabaseUnavailable: If the database is not reached, lost or too slow, or took another
                transaction's side in a deadlock. Whether a lost connection's COMMIT came through
                is not known.
        """
        with self._seconds.labels("write").time():
            async with (
                self._connect(_WRITE_S, self._line) as connection,
                _transaction(connection, self._begin),
            ):
                yield connection

    async def check(self) -> None:
        """Ask the database whether it answers; `problem` says so then."""
        try:
            async with self.read() as connection:
                await connection.execute(text("SELECT 1"))
        except DatabaseUnavailable as exc:
            logger.debug("the database does not answer: %s", exc)

    @asynccontextmanager
    async def _connect(
        self, timeout_s: float, line: AbstractAsyncContextManager[None] | None = None
    ) -> AsyncIterator[AsyncConnection]:
        if self._is_closed:
            raise DatabaseUnavailable("the database is closed")
        with self._translating():
            async with (
                asyncio.timeout(timeout_s) as deadline,
                line or nullcontext(),
                self._engine.connect() as connection,
            ):
                try:
                    if not self._is_checked:
                        await self._check_schema(connection, deadline)
                    yield connection
                finally:
                    if self._is_closed and not connection.invalidated:
                        await connection.invalidate()  # its pool is gone, nobody would close it

    async def _check_schema(self, connection: AsyncConnection, deadline: asyncio.Timeout) -> None:
        if self._directory is None:
            await connection.run_sync(schema.check)
        else:
            deadline.reschedule(None)  # to change a large table takes its time
            await connection.run_sync(schema.upgrade)
            deadline.reschedule(asyncio.get_running_loop().time() + _READ_S)
        self._is_checked = True

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except (SchemaError, DBAPIError, PoolTimeout, TimeoutError) as exc:
            problem = str(exc) if isinstance(exc, SchemaError) else unavailable(exc)
            if problem is None:
                raise
            self.problem = problem
            self._failures.inc()
            raise DatabaseUnavailable(problem) from exc
        self.problem = None


@asynccontextmanager
async def _transaction(connection: AsyncConnection, begin: str) -> AsyncIterator[None]:
    await connection.exec_driver_sql(begin)
    try:
        yield
        await connection.exec_driver_sql("COMMIT")
    except BaseException as exc:
        await _roll_back(connection, exc)
        raise


async def _roll_back(connection: AsyncConnection, exc: BaseException) -> None:
    """Undo the transaction; a connection that was left in the middle of something is closed."""
    if connection.invalidated:
        return
    if isinstance(exc, Exception):
        try:
            await connection.exec_driver_sql("ROLLBACK")
            return
        except DBAPIError:
            pass  # the connection is lost, or SQLite has rolled back by itself
    await connection.invalidate()
