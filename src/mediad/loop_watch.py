"""Watches the media loop from a thread: says what held it up, and tells systemd that it lives.

It costs the loop nothing: the loop's clock is due every few milliseconds, and the thread looks, 20
times a second, whether that time has passed without it.
"""

import logging
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import thread as thread_pool
from math import inf
from types import FrameType

from mediad.metrics import Metrics

__all__ = ["STALL_S", "LoopWatch"]

logger = logging.getLogger(__name__)

STALL_S = 0.050
"""A loop that is later than this was held up."""

_LOOK_AGAIN_S = 0.005  # for its end
_MAX_STALL_S = 1.0  # then it is told though it lasts
_MAX_FRAMES = 12
_MAX_THREADS = 8
_IDLE = (threading.__file__, thread_pool.__file__)


class LoopWatch:
    """Watches the loop of the thread that makes it, from `start` to `stop`.

    Args:
        due: When the loop's clock is due next, in monotonic seconds, far less than 50 ms after the
            last time; infinity while it stands. Called in the thread.
        feed: Tells systemd that we live; called in the thread.
        feed_every_s: How often, in seconds, as long as the loop gets on; None never.
    """

    def __init__(
        self,
        due: Callable[[], float],
        metrics: Metrics,
        feed: Callable[[], object],
        feed_every_s: float | None,
    ) -> None:
        self._due = due
        self._metrics = metrics
        self._feed = feed
        self._feed_every_s = inf if feed_every_s is None else feed_every_s
        self._fed_at = -inf
        self._fed_due = inf  # what was due then: the same now is no sign of life
        self._watched = threading.get_ident()
        self._stopped = threading.Lock()  # held while it runs; cheaper than an Event to wait for
        self._thread = threading.Thread(target=self._run, name="loop-watch", daemon=True)

    def start(self) -> None:
        """Watch from now on."""
        self._stopped.acquire()
        self._thread.start()

    def stop(self) -> None:
        """Watch no more; fine when it was not started."""
        if self._thread.is_alive():
            self._stopped.release()
            self._thread.join()

    def _run(self) -> None:
        is_over = False
        while not is_over:
            due = self._due()
            self._feed_if_alive(due)
            wake_at = max(due + STALL_S, time.monotonic() + _LOOK_AGAIN_S)
            if self._sleep(min(wake_at - time.monotonic(), STALL_S)):
                return
            now, due = time.monotonic(), self._due()
            if now - due >= STALL_S:
                is_over = self._tell(due, was_late=now - wake_at >= STALL_S)

    def _sleep(self, seconds: float) -> bool:
        """Wait; True when the watch is over."""
        return self._stopped.acquire(timeout=seconds)

    def _feed_if_alive(self, due: float) -> None:
        now = time.monotonic()
        if due != self._fed_due and now - self._fed_at >= self._feed_every_s:
            self._fed_at, self._fed_due = now, due
            self._feed()

    def _tell(self, due: float, was_late: bool) -> bool:
        """Log what holds the loop up, once it is over or has lasted long.

        Args:
            due: When the loop should have come.
            was_late: Whether this thread was held up, too: by the machine, or by compiled code that
                keeps the interpreter, of whatever thread.

        Returns:
            Whether the watch is over.
        """
        frames = sys._current_frames()
        stack = _stack(frames.pop(self._watched, None))
        if self._due() != due:
            stack = "it got on before its stack could be read"
        if was_late:  # then it may have waited for the interpreter, too, and another thread had it
            stack += f"; other threads: {_others(frames)}"
        self._metrics.loop_stalls.inc()
        is_over = False
        while not is_over and self._due() == due and time.monotonic() - due < _MAX_STALL_S:
            is_over = self._sleep(_LOOK_AGAIN_S)
        logger.warning(
            "the media loop was held up for %.0f ms%s: %s",
            (time.monotonic() - due) * 1000,
            ", with the whole process" if was_late else "",
            stack,
        )
        while not is_over and self._due() == due:  # one stall is told once
            is_over = self._sleep(STALL_S)
        return is_over


def _stack(frame: FrameType | None) -> str:
    """Return where a thread is, on one line, the innermost call last. No source is read for it."""
    calls: list[str] = []
    while frame is not None and len(calls) < _MAX_FRAMES:
        calls.append(_call(frame))
        frame = frame.f_back
    return " > ".join(reversed(calls))


def _others(frames: Mapping[int, FrameType]) -> str:
    """Return in which call each other thread is, but for those that wait for work."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    busy = [
        f"{names.get(thread, thread)} in {_call(frame)}"
        for thread, frame in frames.items()
        if frame.f_code.co_filename not in _IDLE and thread != threading.get_ident()
    ]
    return ", ".join(busy[:_MAX_THREADS]) or "none is busy"


def _call(frame: FrameType) -> str:
    code = frame.f_code
    return f"{code.co_qualname} ({code.co_filename}:{frame.f_lineno})"
