"""How late this very process wakes up: what it hears late was not sent late."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["OwnStalls", "watch_own_loop"]

_WATCH_S = 0.005


class OwnStalls:
    """What was seen so far."""

    def __init__(self) -> None:
        self._late: list[tuple[float, float]] = []

    def worst_s(self, since: float = 0.0) -> float:
        """Return the longest that the loop was held up since then, in monotonic seconds."""
        return max((late for at, late in self._late if at >= since), default=0.0)

    async def watch(self) -> None:
        """Watch until cancelled."""
        while True:
            due = time.monotonic() + _WATCH_S
            await asyncio.sleep(_WATCH_S)
            now = time.monotonic()
            if now - due > 2 * _WATCH_S:
                self._late.append((now, now - due))


@asynccontextmanager
async def watch_own_loop() -> AsyncIterator[OwnStalls]:
    """Watch the running loop while the block lasts."""
    stalls = OwnStalls()
    watching = asyncio.create_task(stalls.watch())
    try:
        yield stalls
    finally:
        watching.cancel()
