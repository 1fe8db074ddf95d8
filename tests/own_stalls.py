"""How late this very process wakes up: what it hears late was not sent late, and what it was to do
meanwhile was not done. On a virtual machine everything stands still for a second or two at times.
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from math import inf

__all__ = ["OwnStalls", "no_longer_than", "watch_own_loop", "watch_own_thread"]

_WATCH_S = 0.005
_ANYWAY_S = 20.0  # for what never ends


class OwnStalls:
    """What was seen so far."""

    def __init__(self) -> None:
        self._late: list[tuple[float, float]] = []
        self._due = inf  # the next look; none, before and after the watch

    def worst_s(self, since: float = 0.0) -> float:
        """Return the longest that the loop was held up since then, in monotonic seconds."""
        self.look()  # who asks may be awake before the watch is
        return max((late for at, late in self._late if at >= since), default=0.0)

    def total_s(self, since: float = 0.0) -> float:
        """Return how long it was held up altogether since then."""
        self.look()
        return sum(late for at, late in self._late if at >= since)

    def start(self) -> None:
        """Begin to be watched."""
        self._due = time.monotonic() + _WATCH_S

    def look(self) -> None:
        """Take note of how late this is."""
        if self._due == inf:
            return
        now = time.monotonic()
        if now - self._due > 2 * _WATCH_S:
            self._late.append((now, now - self._due))
        self._due = now + _WATCH_S

    def stop(self) -> None:
        """Be watched no more."""
        self.look()
        self._due = inf

    async def watch(self) -> None:
        """Watch until cancelled."""
        while True:
            await asyncio.sleep(_WATCH_S)
            self.look()


@asynccontextmanager
async def watch_own_loop() -> AsyncIterator[OwnStalls]:
    """Watch the running loop while the block lasts."""
    stalls = OwnStalls()
    stalls.start()
    watching = asyncio.create_task(stalls.watch())
    try:
        yield stalls
    finally:
        watching.cancel()
        stalls.stop()


@contextmanager
def watch_own_thread() -> Iterator[OwnStalls]:
    """Watch this process while the block, which has no loop, lasts."""
    stalls, is_over = OwnStalls(), threading.Event()

    def watch() -> None:
        stalls.start()
        while not is_over.wait(_WATCH_S):
            stalls.look()

    thread = threading.Thread(target=watch, daemon=True)  # a wrong option ends pytest at once
    thread.start()
    try:
        yield stalls
    finally:
        is_over.set()
        thread.join()
        stalls.stop()


@asynccontextmanager
async def no_longer_than(limit_s: float) -> AsyncIterator[None]:
    """Check that the block takes no longer, but for what this process itself stood still."""
    async with watch_own_loop() as own, asyncio.timeout(limit_s + _ANYWAY_S):
        began = time.monotonic()
        yield
        took_s, stalls_s = time.monotonic() - began, own.total_s()
    assert took_s < limit_s + stalls_s, f"{took_s:.3f} s, of which {stalls_s:.3f} s stood still"
