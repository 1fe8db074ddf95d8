"""A mediad whose /metrics also have how many asyncio tasks it has, on all its loops, and how many
blocks of memory Python has. Settings come from the environment; the log goes to standard error.
"""

import asyncio
import sys

import uvloop

from mediad.app import App, serve
from mediad.config import Settings, load_settings
from mediad.log import logging_to

_new_loop = uvloop.new_event_loop
_loops: list[asyncio.AbstractEventLoop] = []


def remembered_loop() -> uvloop.Loop:
    """Make a loop, in the place of uvloop's function."""
    _loops.append(loop := _new_loop())
    return loop


def tasks() -> int:
    """Return how many tasks there are that have not ended."""
    return sum(len(asyncio.all_tasks(loop)) for loop in _loops if not loop.is_closed())


class WatchedApp(App):
    """A mediad with two metrics more."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._metrics.watch("test_tasks", "Tasks that have not ended", tasks)
        self._metrics.watch("test_blocks", "Python's blocks of memory", sys.getallocatedblocks)


async def main() -> None:
    """Run mediad."""
    _loops.append(asyncio.get_running_loop())
    await serve(WatchedApp(load_settings()), load_settings)


if __name__ == "__main__":
    uvloop.new_event_loop = remembered_loop
    with logging_to("info"):
        uvloop.run(main())
