"""The clock of all calls: one timer for the whole process, every call ticked once in 20 ms.

Deadlines are absolute, so one late wake-up does not move the frames after it. Calls are spread over
four slots of 5 ms: a thousand of them ticked in one go would hold up every read for milliseconds.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from math import inf
from typing import Protocol

from mediad.metrics import Metrics

__all__ = ["MAX_LATE_S", "SLOTS", "TICK_S", "Ticked", "Ticker"]

logger = logging.getLogger(__name__)

TICK_S = 0.020
SLOTS = 4
MAX_LATE_S = 0.060
"""A wake-up later than this skips what was missed: Asterisk would turn a burst into added delay."""


class Ticked(Protocol):
    """What is ticked: a call."""

    def tick(self, now: float) -> None: ...
    def fail(self) -> None:
        """A tick raised; end this one, the others go on."""
        ...


class Ticker:
    """Calls ``tick`` of everything added to it, every 20 ms.

    Args:
        metrics: Where lateness and skipped ticks are counted.
        clock: Monotonic seconds.
    """

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self._metrics = metrics
        self._clock = clock
        self._slots: list[dict[Ticked, None]] = [{} for _ in range(SLOTS)]
        self._at = 0
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to tick, on the running loop."""
        self._due = self._clock()
        self._arm()

    def stop(self) -> None:
        """Tick no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @property
    def due(self) -> float:
        """When the next wake-up is due, by the clock; infinity while there is none. Any thread may
        ask.
        """
        return self._due if self._timer is not None else inf

    def add(self, call: Ticked) -> None:
        """Tick a call from now on."""
        min(self._slots, key=len)[call] = None

    def remove(self, call: Ticked) -> None:
        """Tick a call no more; fine when it is not ticked."""
        for slot in self._slots:
            slot.pop(call, None)

    def _arm(self) -> None:
        delay = max(0.0, self._due - self._clock())
        self._timer = asyncio.get_running_loop().call_later(delay, self._wake)

    def _wake(self) -> None:
        now = self._clock()
        self._metrics.loop_lag.observe(max(0.0, now - self._due))
        if now - self._due > MAX_LATE_S:
            self._skip(now)
        # Timers of the loop have a resolution of 1 ms: what is due within half of it is due.
        while self._due <= now + 0.0005:
            self._run_slot(now)
            self._due += TICK_S / SLOTS
        self._arm()

    def _skip(self, now: float) -> None:
        # Whole turns, so that every call skips as many and its slot stays its slot.
        turns = int((now - self._due) / TICK_S)
        self._due += turns * TICK_S
        self._metrics.ticks_skipped.inc(turns * sum(map(len, self._slots)))

    def _run_slot(self, now: float) -> None:
        for call in list(self._slots[self._at]):
            try:
                call.tick(now)
            except Exception:
                logger.exception("a call's tick failed; that call ends")
                self.remove(call)
                call.fail()
        self._at = (self._at + 1) % SLOTS
