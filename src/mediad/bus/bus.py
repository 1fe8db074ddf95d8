"""The bus of one process: every subscriber gets every event, in order, through a bounded queue of
its own.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace

from mediad.bus.events import Event
from mediad.metrics import Metrics

__all__ = ["MAX_DURABLE", "MAX_LIVE", "Bus", "Subscription"]

MAX_LIVE = 1_000
"""Events waiting for one subscriber from which on live ones are dropped and counted."""

MAX_DURABLE = 10_000
"""Events waiting for one subscriber at which it is cut off: it would miss a fact without knowing.
"""


class Subscription:
    """One subscriber's events. Iterate over it; it ends when the subscriber was too slow
    (``cut_off``).
    """

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._wake = asyncio.Event()
        self.cut_off = False

    def offer(self, event: Event) -> bool:
        """Queue an event; False when it was dropped."""
        if self.cut_off or (not event.durable and len(self._events) >= MAX_LIVE):
            return False
        if len(self._events) >= MAX_DURABLE:
            self.cut_off = True
        else:
            self._events.append(event)
        self._wake.set()
        return not self.cut_off

    async def __aiter__(self) -> AsyncIterator[Event]:
        while self._events or not self.cut_off:
            while self._events:
                yield self._events.popleft()
            self._wake.clear()
            if not self.cut_off:
                await self._wake.wait()


class Bus:
    """Publishes without waiting: it is called on the media path."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._subscriptions: set[Subscription] = set()
        self._sequences: dict[str, int] = {}

    def publish(self, event: Event) -> Event:
        """Number the event if it is durable, hand it to all subscribers, and return it as they see
        it.
        """
        if event.durable:
            sequence = self._sequences.get(event.customer_id, 0) + 1
            self._sequences[event.customer_id] = sequence
            event = replace(event, sequence=sequence)
        self._metrics.events.labels(event.type).inc()
        for subscription in self._subscriptions:
            if not subscription.offer(event):
                self._metrics.events_dropped.inc()
        return event

    @contextmanager
    def subscribe(self) -> Iterator[Subscription]:
        """Receive all events published while the block runs."""
        subscription = Subscription()
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)
