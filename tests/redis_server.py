"""A Redis of the tests' own, on a free port, that can be killed, started again and frozen."""

import asyncio
import contextlib
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import redis

from tests.missing import skip_or_fail
from tests.servers import MissingProgramError, Program, find_program

__all__ = ["RedisServer", "redis_server"]

_START_S = 10.0


class RedisServer:
    """A Redis that keeps nothing on disk. It has the same port each time it is started.

    Args:
        directory: Where its log is.
        options: As on redis-server's command line: "--maxmemory", "2mb".
        scheme: "rediss" if the options make it speak TLS; its port is 0 for plain Redis then.
    """

    def __init__(self, directory: Path, *options: str, scheme: str = "redis") -> None:
        self._program = _find_redis()
        self._directory = directory
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        self.scheme = scheme

    @property
    def url(self) -> str:
        """Its address, for who needs no password."""
        return f"{self.scheme}://127.0.0.1:{self.port}/0"

    def url_for(self, password: str) -> str:
        """Its address with a password."""
        return f"{self.scheme}://:{password}@127.0.0.1:{self.port}/0"

    def client(self, password: str | None = None) -> "redis.Redis":
        """Return a client that speaks past the cache. Close it."""
        return redis.Redis(port=self.port, password=password, socket_timeout=5)

    def start(self) -> None:
        """Start it and wait until it listens."""
        port = "--tls-port" if self.scheme == "rediss" else "--port"
        command = [str(self._program.path), port, str(self.port), "--bind", "127.0.0.1"]
        command += ["--save", "", "--appendonly", "no", "--dir", str(self._directory)]
        with (self._directory / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, *self._options],
                env=self._program.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + _START_S
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            assert self._process.poll() is None, (self._directory / "redis.log").read_text()
            assert time.monotonic() < deadline, "redis-server does not listen"
            time.sleep(0.005)

    def kill(self) -> None:
        """End it as a crash does (SIGKILL), frozen or not. It may be started again."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Let it accept connections and answer nothing while the block runs."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)


def _find_redis() -> Program:
    try:
        return find_program("redis-server", "redis-server")
    except MissingProgramError as exc:
        skip_or_fail(exc)


@asynccontextmanager
async def redis_server(
    directory: Path, *options: str, scheme: str = "redis"
) -> AsyncIterator[RedisServer]:
    """Run a Redis while the block runs; see `RedisServer`."""
    server = RedisServer(directory, *options, scheme=scheme)
    await asyncio.to_thread(server.start)
    try:
        yield server
    finally:
        await asyncio.to_thread(server.kill)
