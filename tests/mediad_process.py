"""Run mediad as a program for a test, on free ports of 127.0.0.1."""

import asyncio
import json
import os
import re
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

__all__ = ["MediadProcess", "run_mediad", "run_mediad_as", "run_telling_mediad"]

_ROOT = Path(__file__).parents[1]
_WAIT_S = 60.0
_STOP_S = 10.0


class MediadProcess:
    """A running mediad, and what it writes to standard error.

    The log is printed too, so that pytest shows it of a failed test.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._changed = asyncio.Condition()
        self.log: list[str] = []
        self.told: list[dict[str, Any]] = []
        """Its events, as `tests.integration.telling_mediad` prints them."""
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

    async def read_events(self) -> None:
        """Take what it tells until it ends."""
        while self._process.stdout is not None and (line := await self._process.stdout.readline()):
            if line.endswith(b"\n"):  # else it was killed while it wrote
                self.told.append(json.loads(line))

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

    async def get(self, path: str) -> str:
        """Ask the HTTP port; return the answer, head and body."""
        reader, writer = await asyncio.open_connection(*self.http)
        request = f"GET {path} HTTP/1.1\r\nHost: mediad\r\nConnection: close\r\n\r\n"
        writer.write(request.encode())
        answer = (await reader.read()).decode()
        writer.close()
        await writer.wait_closed()
        return answer

    async def metric(self, name: str) -> float:
        """Return a metric without labels."""
        lines = (await self.get("/metrics")).splitlines()
        (line,) = [line for line in lines if line.startswith(f"{name} ")]
        return float(line.split(" ")[1])

    async def kill(self) -> None:
        """End it as a crash would: nothing it holds is written."""
        self._process.kill()
        await self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    async def stop(self) -> int:
        """Ask it to stop, and return its exit status."""
        if self._process.returncode is None:
            self._process.terminate()
        return await self.ended()

    async def ended(self) -> int:
        """Wait for its end, and return its exit status."""
        async with asyncio.timeout(_STOP_S):
            return await self._process.wait()


def run_mediad(agent_url: str, **settings: str) -> AbstractAsyncContextManager[MediadProcess]:
    """Run mediad while the block lasts.

    Args:
        agent_url: Where its agent is; empty when agents dial in.
        settings: More of them, as ``audiosocket__codec="slin"``.
    """
    return _run(("-m", "mediad", "serve"), agent_url, settings)


def run_mediad_as(
    module: str, agent_url: str, **settings: str
) -> AbstractAsyncContextManager[MediadProcess]:
    """Do the same with a module of the tests that runs mediad as its program."""
    return _run(("-m", module), agent_url, settings)


def run_telling_mediad(
    agent_url: str, *, preload: str = "", **settings: str
) -> AbstractAsyncContextManager[MediadProcess]:
    """Do the same with a mediad whose events stand in `MediadProcess.told`.

    ``preload`` is a library that it loads before all others.
    """
    return _run(("-m", "tests.integration.telling_mediad"), agent_url, settings, preload)


@asynccontextmanager
async def _run(
    command: Sequence[str], agent_url: str, settings: Mapping[str, str], preload: str = ""
) -> AsyncIterator[MediadProcess]:
    with tempfile.TemporaryDirectory(prefix="mediad-tests-") as directory:
        environment = {
            "MEDIAD_AUDIOSOCKET__PORT": "0",
            "MEDIAD_HTTP__PORT": "0",
            "MEDIAD_AI__LISTEN_PORT": "0",
            "MEDIAD_AI__AGENT_URL": agent_url,
            "MEDIAD_DATABASE__DIRECTORY": directory,
        }
        if "config" not in settings:  # else that says so, and may change it
            environment["MEDIAD_AUDIOSOCKET__DRAIN_TIMEOUT_S"] = "1"
        environment |= {f"MEDIAD_{name.upper()}": value for name, value in settings.items()}
        if preload:
            environment["LD_PRELOAD"] = preload
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, *command),
            cwd=_ROOT,
            env=os.environ | environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        mediad = MediadProcess(process)
        reading = asyncio.gather(mediad.read_log(), mediad.read_events())
        try:
            await mediad.wait_until_ready()
            yield mediad
        finally:
            await mediad.stop()
            await reading
