"""A private MariaDB for tests: a server of our own on a free port of 127.0.0.1, its data in a
temporary directory. As a production server would not do us the favour, its character set is latin1
by default.
"""

import asyncio
import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from asyncmy import connect
from asyncmy.errors import Error

from tests.servers import MissingProgramError, Program, find_program

__all__ = ["MariaDb", "running_mariadb"]

USER = "mediad"
PASSWORD = "pass word/:@"  # what an URL must escape
_ESCAPED = "pass%20word%2F%3A%40"

_START_S = 30.0
_STOP_S = 20.0

# Quick and small: nothing here has to survive a power cut.
_OPTIONS = (
    "--skip-log-bin",
    "--skip-name-resolve",
    "--performance-schema=OFF",
    "--innodb-flush-log-at-trx-commit=2",
    "--innodb-doublewrite=0",
    "--innodb-buffer-pool-size=128M",
    "--innodb-log-file-size=48M",
    "--innodb-stats-persistent=1",
    "--max-connections=250",
    "--table-open-cache=200",
)

_ACCOUNTS = f"""
CREATE USER '{USER}'@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';
GRANT ALL ON `mediad%`.* TO '{USER}'@'127.0.0.1';
CREATE USER 'admin'@'127.0.0.1' IDENTIFIED BY 'admin';
GRANT ALL ON *.* TO 'admin'@'127.0.0.1' WITH GRANT OPTION;
"""


class MariaDb:
    """A server, and databases in it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._program = find_program("mariadbd", "mariadb-server-core")
        self._names = count(1)
        self._process: subprocess.Popen[bytes] | None = None
        self.port = _free_port()
        self._install()

    def start(self) -> None:
        """Start it, on the same port and data each time; return when it answers."""
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *self._command(),
                    f"--port={self.port}",
                    "--bind-address=127.0.0.1",
                    *_OPTIONS,
                ],
                env=self._program.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + _START_S
        while True:
            try:
                self.execute("SELECT 1")
                return
            except Error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"mariadbd does not start:\n{self.log()}") from None
                time.sleep(0.05)

    def stop(self) -> None:
        """Stop it in order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it, as a crash would."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Let it hang: it takes connections, and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """End `pause`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def new_database(self) -> str:
        """Make an empty database; return its address, as in the settings."""
        name = f"mediad_{os.getpid()}_{next(self._names)}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def url(self, name: str, user: str = USER, password: str = _ESCAPED) -> str:
        """Return the address of a database."""
        return f"mysql://{user}:{password}@127.0.0.1:{self.port}/{name}"

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement with all rights; return its rows. Waits, also on an event loop."""
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(asyncio.run, self._execute(statement)).result()

    def log(self) -> str:
        """Return what it wrote."""
        return (self._directory / "log").read_text(errors="replace")

    def _execute(self, statement: str) -> Coroutine[Any, Any, list[tuple[Any, ...]]]:
        async def execute() -> list[tuple[Any, ...]]:
            async with connect(
                host="127.0.0.1", port=self.port, user="admin", password="admin", autocommit=True
            ) as connection:
                async with connection.cursor() as cursor:
                    await cursor.execute(statement)
                    return list(await cursor.fetchall()) if cursor.description else []

        return execute()

    def _command(self) -> list[str]:
        usr = self._program.path.parents[1]
        return [
            str(self._program.path),
            "--no-defaults",  # nor anybody's files; must come first
            f"--basedir={usr}",
            f"--lc-messages-dir={_share(self._program)}",
            f"--datadir={self._directory / 'data'}",
            f"--socket={self._directory / 'socket'}",
            f"--pid-file={self._directory / 'pid'}",
            f"--tmpdir={self._directory}",
            f"--user={getpass.getuser()}",
        ]

    def _install(self) -> None:
        """Make the server's own tables: what mariadb-install-db does, which is not everywhere."""
        (self._directory / "data").mkdir()
        share = _share(self._program)
        names = ("mysql_system_tables.sql", "mysql_system_tables_data.sql")
        tables = "".join((share / name).read_text() for name in names)
        parts = ("CREATE DATABASE mysql;", "USE mysql;", tables, "FLUSH PRIVILEGES;", _ACCOUNTS)
        done = subprocess.run(
            [*self._command(), "--bootstrap", *_OPTIONS],
            env=self._program.environment,
            input="\n".join(parts),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"MariaDB's tables cannot be made:\n{done.stderr}")

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def running_mariadb() -> Iterator[MariaDb]:
    """Run a server while the block lasts.

    Raises:
        MissingProgramError: If there is no MariaDB, and none can be had.
    """
    directory = Path(tempfile.mkdtemp(prefix="mediad-mariadb-"))
    try:
        server = MariaDb(directory)
        try:
            server.start()
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _share(program: Program) -> Path:
    for name in ("mysql", "mariadb"):
        directory = program.path.parents[1] / "share" / name
        if (directory / "mysql_system_tables.sql").exists():
            return directory
    raise MissingProgramError(f"the files that belong to {program.path} are not beside it")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
