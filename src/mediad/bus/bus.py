"""The bus of one process: every subscriber gets the events it asked for, in order, through a
bounded queue of its own, on its own loop.
"""

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

from mediad.bus.events import Event
from mediad.metrics import Metrics

__all__ = ["MAX_DURABLE", "MAX_LIVE", "Bus", "Subscription"]

MAX_LIVE = 1_000
"""Events waiting for one subscriber from which on live ones are dropped and counted."""

MAX_DURABLE = 10_000
"""Events waiting for one subscriber at which it is cut off: it would miss a number without knowing.
"""


class Subscription:
    """One subscriber's events. Iterate over it, on the loop that subscribed; it ends when the
    subscriber was too slow (``cut_off``).
    """

    def __init__(self, live: bool, durable: bool) -> None:
        self._live = live
        self._durable = durable
        self._events: deque[Event] = deque()
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._is_waking = False
        self.cut_off = False

    def offer(self, event: Event) -> bool:
        """Queue an event that was asked for, from any thread; False when it was dropped."""
        is_durable = event.is_durable
        if not (self._durable if is_durable else self._live):
            return True
        if self.cut_off or (not is_durable and len(self._events) >= MAX_LIVE):
            return False
        if len(self._events) >= MAX_DURABLE:
            self.cut_off = True
        else:
            self._events.append(event)
        if not self._is_waking:
            self._is_waking = True
            with contextlib.suppress(RuntimeError):  # its loop has just ended
                self._loop.call_soon_threadsafe(self._wake_up)
        return not self.cut_off

    def _wake_up(self) -> None:
        self._is_waking = False
        self._wake.set()

    async def wait(self) -> None:
        """Wait until there is something to `take`, or it is cut off."""
        while not self._events and not self.cut_off:
            self._wake.clear()
            await self._wake.wait()

    def take(self) -> list[Event]:
        """Return the events that wait."""
        events = list(self._events)
        for _ in events:
            self._events.popleft()  # not clear(): another thread may append
        return events

    async def __aiter__(self) -> AsyncIterator[Event]:
        while self._events or not self.cut_off:
            while self._events:
                yield self._events.popleft()
            self._wake.clear()
            if not self._events and not self.cut_off:
                await self._wake.wait()


class Bus:
    """Tells events without waiting: it is called on the media path.

    Args:
        metrics: Where events are counted.
        keep: Takes a fact, which is kept from then on; False when it could not.
    """

    def __init__(self, metrics: Metrics, keep: Callable[[Event], bool] = lambda _: True) -> None:
        self._metrics = metrics
        self._keep = keep
        # Replaced, never changed: another thread may be going through it.
        self._subscriptions: tuple[Subscription, ...] = ()
        self._replacing = threading.Lock()

    def publish(self, event: Event) -> None:
        """Tell an event as it happens, and give it to be kept if it is a fact."""
        self._metrics.events.labels(event.type).inc()
        if event.is_fact:
            self._keep(event)
        self._tell(event)

    def announce(self, event: Event) -> None:
        """Tell a fact again, now that the database has it under its number."""
        self._tell(event)

    def _tell(self, event: Event) -> None:
        for subscription in self._subscriptions:
            if not subscription.offer(event):
                self._metrics.events_dropped.inc()

    @contextmanager
    def subscribe(self, *, live: bool = True, durable: bool = False) -> Iterator[Subscription]:
        """Receive events on the running loop while the block runs.

        Args:
            live: What happens, as it happens.
            durable: Facts with their numbers, once the database has them.
        """
        subscription = Subscription(live, durable)
        with self._replacing:
            self._subscriptions = (*self._subscriptions, subscription)
        try:
            yield subscription
        finally:
            with self._replacing:
                self._subscriptions = tuple(
                    other for other in self._subscriptions if other is not subscription
                )
