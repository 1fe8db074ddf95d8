"""Runs the turns of a call on the media loop: in their order, and without waiting for a tick."""

import asyncio
import time
from collections import deque
from collections.abc import Callable

from mediad.call.ticker import TICK_S
from mediad.call.turn.actions import Action
from mediad.call.turn.machine import Turns
from mediad.call.turn.options import TurnOptions

__all__ = ["TurnLoop"]

_EARLY_S = 0.001  # the loop's timers have a resolution of 1 ms


class TurnLoop:
    """One call's.

    Args:
        options: How turns are taken.
        do_one: Does what is asked for. What happens by that may be told from within.
    """

    def __init__(self, options: TurnOptions, do_one: Callable[[Action, float], None]) -> None:
        self.turns = Turns(options, time.monotonic())
        self._do_one = do_one
        self._to_do: deque[Action] = deque()
        self._is_doing = False
        self._is_closed = False
        self._timer: asyncio.TimerHandle | None = None  # for what is due before the next tick

    def do(self, actions: list[Action], now: float) -> None:
        """Do what the turns have asked for."""
        # What is done may make something happen at once: that comes after what is left to do.
        self._to_do.extend(actions)
        if self._is_doing:
            return
        self._is_doing = True
        try:
            while self._to_do:
                self._do_one(self._to_do.popleft(), now)
        finally:
            self._is_doing = False
        self._arm(now)

    def tick(self, now: float) -> None:
        """Let time pass."""
        self.do(self.turns.tick(now), now)

    def close(self) -> None:
        """Let nothing more happen by itself."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, now: float) -> None:
        """Leave nothing to the next tick that is due before it: the answer begins at a tick, too,
        and the caller would wait for both.
        """
        wait_s = self.turns.due - now
        if wait_s < TICK_S and self._timer is None and not self._is_closed:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(wait_s, 0.0), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        now = time.monotonic()
        if self.turns.due <= now + _EARLY_S:
            self.tick(max(now, self.turns.due))
