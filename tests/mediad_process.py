"""Run mediad as a program for a test, on free ports of 127.0.0.1."""

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["MediadProcess", "run_mediad"]

_WAIT_S = 20.0
_STOP_S = 10.0


class MediadProcess:
    """A running mediad, and what it writes to standard error.

    The log is printed too, so that pytest shows it of a failed test.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._changed = asyncio.Condition()
        self.log: list[str] = []
        self.audiosocket: tuple[str, int] = ("", 0)
        self.http: tuple[str, int] = ("", 0)

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    async def read_log(self) -> None:
        """Take lines until mediad ends."""
        assert self._process.stderr is not None
        while line := await self._process.stderr.readline():
            print(line.decode(), end="")
            async with self._changed:
                self.log.append(line.decode())
                self._changed.notify_all()

    async def wait_for_log(self, words: str) -> str:
        """Return the first line that has these words."""
        async with asyncio.timeout(_WAIT_S), self._changed:
            await self._changed.wait_for(lambda: any(words in line for line in self.log))
        return next(line for line in self.log if words in line)

    async def wait_until_ready(self) -> None:
        """Return once calls are taken; the addresses are known then."""
        line = await self.wait_for_log("mediad takes calls on")
        found = re.search(r"takes calls on ([^:]+):(\d+), HTTP on ([^:]+):(\d+)", line)
        assert found is not None, line
        self.audiosocket = (found[1], int(found[2]))
        self.http = (found[3], int(found[4]))

    async def stop(self) -> int:
        """Ask it to stop, and return its exit status."""
        if self._process.returncode is None:
            self._process.terminate()
        async with asyncio.timeout(_STOP_S):
            return await self._process.wait()


@asynccontextmanager
async def run_mediad(agent_url: str, **settings: str) -> AsyncIterator[MediadProcess]:
    """Run mediad while the block lasts.

    Args:
        agent_url: Where its agent is; empty when agents dial in.
        settings: More of them, as ``audiosocket__codec="slin"``.
    """
    environment = {
        "MEDIAD_AUDIOSOCKET__PORT": "0",
        "MEDIAD_HTTP__PORT": "0",
        "MEDIAD_AI__LISTEN_PORT": "0",
        "MEDIAD_AI__AGENT_URL": agent_url,
    } | {f"MEDIAD_{name.upper()}": value for name, value in settings.items()}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mediad", "serve"),
        env=os.environ | environment,
        stderr=asyncio.subprocess.PIPE,
    )
    mediad = MediadProcess(process)
    reading = asyncio.create_task(mediad.read_log())
    try:
        await mediad.wait_until_ready()
        yield mediad
    finally:
        await mediad.stop()
        await reading
