"""Peers that are programs of their own, to be stopped (SIGSTOP) and killed."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["AWAY_S", "STOP_S", "listening", "program", "stop_for_a_while"]

STOP_S = 5.0
AWAY_S = 2.0
"""From a kill to the next start."""


@asynccontextmanager
async def program(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run Python with these arguments while the block lasts."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@asynccontextmanager
async def listening(
    module: str, *arguments: str, port: int = 0
) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """Run a module that takes its port as the last argument and prints it; return both."""
    async with program("-m", module, *arguments, str(port)) as process:
        assert process.stdout is not None
        yield process, int(await process.stdout.readline())


async def stop_for_a_while(process: asyncio.subprocess.Process) -> None:
    """Let it stand still for `STOP_S`."""
    process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(STOP_S)
    process.send_signal(signal.SIGCONT)
