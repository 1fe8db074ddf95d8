"""A mediad whose /metrics also have how many asyncio tasks it has, on all its loops, and its
resident memory. Settings come from the environment; the log goes to standard error.
"""

import asyncio
import ctypes
from pathlib import Path

import uvloop

from mediad.app import App, serve
from mediad.config import Settings, load_settings
from mediad.log import logging_to

_libc = ctypes.CDLL(None)
_new_loop = uvloop.new_event_loop
_loops: list[asyncio.AbstractEventLoop] = []


def remembered_loop() -> uvloop.Loop:
    """Make a loop, in the place of uvloop's function."""
    _loops.append(loop := _new_loop())
    return loop


def tasks() -> int:
    """Return how many tasks there are that have not ended."""
    return sum(len(asyncio.all_tasks(loop)) for loop in _loops if not loop.is_closed())


def resident_kib() -> int:
    """Return how much memory it has, in KiB, without what is free: glibc keeps several MiB of that
    for the next time, by chance more or less.
    """
    _libc.malloc_trim(0)
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


class WatchedApp(App):
    """A mediad with two metrics more."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._metrics.watch("test_tasks", "Tasks that have not ended", tasks)
        self._metrics.watch("test_resident_kib", "Memory that is not free", resident_kib)


async def main() -> None:
    """Run mediad."""
    _loops.append(asyncio.get_running_loop())
    await serve(WatchedApp(load_settings()), load_settings)


if __name__ == "__main__":
    uvloop.new_event_loop = remembered_loop
    with logging_to("info"):
        uvloop.run(main())
