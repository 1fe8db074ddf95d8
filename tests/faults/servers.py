"""The database and the cache of the faults: one of each for all cases that only touch the way
there, one of its own for a case that stops the server itself.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from pydantic import SecretStr

from mediad.config import Database as DatabaseSettings
from tests.books import made_ready
from tests.mariadb import MariaDb, running_mariadb
from tests.redis_server import RedisServer, redis_server

__all__ = ["Servers", "new_database", "own_mariadb", "running_servers"]


class Servers:
    """Those that all share."""

    def __init__(self, mariadb: MariaDb, redis: RedisServer) -> None:
        self.mariadb = mariadb
        self.redis = redis


@asynccontextmanager
async def own_mariadb() -> AsyncIterator[MariaDb]:
    """Run a MariaDB while the block lasts."""
    running = running_mariadb()
    server = await asyncio.to_thread(running.__enter__)
    try:
        yield server
    finally:
        await asyncio.to_thread(running.__exit__, None, None, None)


@asynccontextmanager
async def running_servers() -> AsyncIterator[Servers]:
    """Run those that all share while the block lasts."""
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mediad-redis-")))
        mariadb = await stack.enter_async_context(own_mariadb())
        yield Servers(mariadb, await stack.enter_async_context(redis_server(directory)))


@asynccontextmanager
async def new_database(
    server: MariaDb, proxy_port: int | None = None
) -> AsyncIterator[DatabaseSettings]:
    """Have an empty database with mediad's tables, by way of a proxy if there is one."""
    with tempfile.TemporaryDirectory(prefix="mediad-tests-") as directory:
        url = await asyncio.to_thread(server.new_database)
        settings = await made_ready(url, Path(directory))
        if proxy_port is not None:
            url = url.replace(f":{server.port}/", f":{proxy_port}/")
        yield settings.model_copy(update={"url": SecretStr(url)})
