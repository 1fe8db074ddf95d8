"""For the person who watches a soak: how it stands, and a Ctrl-C that leaves no program behind."""

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
    redirect_stdout,
)
from pathlib import Path
from typing import TypeVar

__all__ = ["Tell", "out_of_reach", "printing_to", "resident_kib", "telling_progress"]

Tell = Callable[[str], None]
T = TypeVar("T")

_EVERY_S = 30.0


@contextmanager
def printing_to(path: Path) -> Iterator[Tell]:
    """Print to a file what is printed in the block, mediad's log above all; return what prints to
    where it went before.
    """
    before = sys.stdout
    with path.open("w", encoding="utf-8") as file, redirect_stdout(file):
        yield lambda line: print(line, file=before, flush=True)


@asynccontextmanager
async def out_of_reach(program: AbstractAsyncContextManager[T]) -> AsyncIterator[T]:
    """Start a program that a terminal's Ctrl-C does not reach: it is ours to end."""
    async with AsyncExitStack() as stack:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # a new program inherits it
        try:
            started = await stack.enter_async_context(program)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        yield started


def resident_kib(pid: int) -> int:
    """Return how much memory a process has, in KiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


@asynccontextmanager
async def telling_progress(
    tell: Tell, minutes: float, pid: int, calls: Callable[[], int]
) -> AsyncIterator[None]:
    """Tell every now and then, while the block lasts, how far it is with its calls and its memory.

    Args:
        pid: Of the process whose memory it is.
        calls: Returns how many calls there have been.
    """
    began = time.monotonic()

    async def tell_often() -> None:
        while True:
            await asyncio.sleep(_EVERY_S)
            passed = (time.monotonic() - began) / 60
            resident_mib = resident_kib(pid) / 1024
            tell(f"{passed:.1f} of {minutes:g} min: {calls()} calls, {resident_mib:.1f} MiB")

    telling = asyncio.create_task(tell_often())
    try:
        yield
    finally:
        telling.cancel()
