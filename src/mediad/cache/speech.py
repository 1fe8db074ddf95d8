"""Spoken texts in the cache, for another loop than the cache's own: the one that moves audio.

Nothing here holds that loop up. A question that is not answered within `WAIT_S`, or comes while
`MAX_QUESTIONS` are out, is a miss; what comes while `MAX_STORING` are being stored is not stored.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from prometheus_client import Counter

from mediad.cache.cache import Cache
from mediad.metrics import Metrics

__all__ = ["MAX_QUESTIONS", "MAX_STORING", "WAIT_S", "SpeechCache"]

logger = logging.getLogger(__name__)

WAIT_S = 0.03
"""How long an answer is waited for, in seconds; a caller would hear more."""

MAX_QUESTIONS = 500
"""Questions without an answer."""

MAX_STORING = 16
"""Values on their way into the cache; each may take a few megabytes until it is there."""


class SpeechCache:
    """The way to spoken texts. `open` and `close` it on the cache's loop; `fetch` and `keep` are
    called on the other.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._cache: Cache | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()  # on the cache's loop
        self._questions = 0
        self._storing = 0
        self._given_up = Counter(
            "mediad_speech_cache_given_up",
            "Questions and values for which the cache was too slow",
            ("operation", "reason"),
            registry=metrics.registry,
        )
        self._stored = Counter(
            "mediad_speech_cache_stored_bytes", "Speech stored", registry=metrics.registry
        )

    def open(self, cache: Cache) -> None:
        """Use this cache, which lives on the running loop. Before, everything is a miss."""
        self._loop = asyncio.get_running_loop()
        self._cache = cache

    async def close(self) -> None:
        """Use it no more."""
        self._cache = None
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def fetch(self, digest: str, on_value: Callable[[bytes | None], None]) -> None:
        """Look a text up. ``on_value`` is called once, on the running loop but not from within,
        with the value, or None if there is none or it does not come in time.
        """
        question = _Question(on_value)
        if self._questions >= MAX_QUESTIONS:
            self._given_up.labels("read", "busy").inc()
            question.loop.call_soon(question.answer, None)
            return
        self._questions += 1

        def answer(value: bytes | None, is_late: bool = False) -> None:
            if question.answer(value):
                self._questions -= 1
                if is_late:
                    self._given_up.labels("read", "late").inc()

        async def read(cache: Cache) -> None:
            value = None
            try:
                value = await cache.get(cache.keys.speech(digest))
            finally:
                _call(question.loop, answer, value)

        question.loop.call_later(WAIT_S, answer, None, True)
        if not self._run(read):
            question.loop.call_soon(answer, None)

    def keep(self, digest: str, make: Callable[[], bytes | None]) -> None:
        """Store what ``make``, which is called in a thread, returns; None is not stored."""
        if self._storing >= MAX_STORING:
            self._given_up.labels("write", "busy").inc()
            return
        self._storing += 1
        loop = asyncio.get_running_loop()

        def end() -> None:
            self._storing -= 1

        async def write(cache: Cache) -> None:
            try:
                value = await asyncio.to_thread(make)
                if value is not None and await cache.set(cache.keys.speech(digest), value):
                    self._stored.inc(len(value))
            except Exception:  # a task's top
                logger.exception("speech cannot be stored")
            finally:
                _call(loop, end)

        if not self._run(write):
            end()

    def _run(self, work: Callable[[Cache], Coroutine[Any, Any, None]]) -> bool:
        """Have something done on the cache's loop; False when there is none."""
        cache, loop = self._cache, self._loop
        if cache is None or loop is None:
            return False

        def start() -> None:
            task = loop.create_task(work(cache))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        return _call(loop, start)


class _Question:
    """One question, and who waits for the answer."""

    def __init__(self, on_value: Callable[[bytes | None], None]) -> None:
        self.loop = asyncio.get_running_loop()
        self._on_value: Callable[[bytes | None], None] | None = on_value

    def answer(self, value: bytes | None) -> bool:
        """Pass the answer on; False when there was one before."""
        on_value, self._on_value = self._on_value, None
        if on_value is not None:
            on_value(value)
        return on_value is not None


def _call(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *args: object) -> bool:
    """Call something on a loop, perhaps of another thread; False when that has ended."""
    try:
        loop.call_soon_threadsafe(function, *args)
    except RuntimeError:
        return False
    return True
