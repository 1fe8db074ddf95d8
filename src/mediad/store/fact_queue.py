"""The queue in memory between the media loop, which never waits, and the journal's thread."""

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from mediad.bus.events import Event

__all__ = ["MAX_QUEUED", "MAX_QUEUED_BYTES", "FactQueue"]

MAX_QUEUED = 20_000
"""Facts that wait in memory; more are refused."""

MAX_QUEUED_BYTES = 16 << 20
"""Their size, about; what comes beyond is refused."""

_FACT_BYTES = 600  # about what a fact takes in memory, beside the texts in its data


class FactQueue:
    """Bounded. One thread offers, another one takes; a number is only ever written by one of them.

    Args:
        wake: Called when facts wait, once until `begin`.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self.refused = 0
        self._wake = wake
        self._is_waking = False
        self._queue: deque[tuple[Event, int]] = deque()
        self._offered = 0
        self._offered_bytes = 0
        self._taken = 0
        self._taken_bytes = 0
        self._settled = 0
        self._settled_bytes = 0

    def __len__(self) -> int:
        """Facts that are not settled: those taken stay in memory until they are."""
        return self._offered - self._settled

    def offer(self, event: Event) -> bool:
        """Queue a fact, or refuse it when there is no room."""
        size_bytes = _FACT_BYTES + _text_size(event.data)
        # Every call has one end, and without it would seem to go on: ends have room of their own.
        rooms = 2 if event.type == "call_hungup" else 1
        if (
            self._offered - self._settled >= rooms * MAX_QUEUED
            or self._offered_bytes - self._settled_bytes + size_bytes > rooms * MAX_QUEUED_BYTES
        ):
            self.refused += 1
            return False
        # Counted first: the queue must not seem empty when it is not.
        self._offered += 1
        self._offered_bytes += size_bytes
        self._queue.append((event, size_bytes))
        if not self._is_waking:
            self._is_waking = True
            self._wake()
        return True

    def begin(self) -> None:
        """Ask to be woken for what is offered from now on."""
        self._is_waking = False

    def take(self) -> Event | None:
        """Return the oldest fact, None when there is none."""
        if not self._queue:
            return None
        event, size_bytes = self._queue.popleft()
        self._taken += 1
        self._taken_bytes += size_bytes
        return event

    def settle(self) -> None:
        """Forget what was taken: it is safe, or refused."""
        self._settled = self._taken
        self._settled_bytes = self._taken_bytes


def _text_size(data: Mapping[str, Any]) -> int:
    size = 0
    for value in data.values():
        if isinstance(value, str):
            size += len(value)
        elif isinstance(value, dict):
            size += 100 + _text_size(value)
    return size
