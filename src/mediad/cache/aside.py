"""Reading through the cache: what is not there is loaded once, however many ask for it.

What is stored is never older than the last `invalidate` of its key in this process. Another
process may still store what it loaded just before; that lasts as long as the key's time to live.
"""

import asyncio
from collections.abc import Awaitable, Callable

from mediad.cache.cache import Cache
from mediad.cache.keys import Key

__all__ = ["CacheAside"]


class _Flight:
    """One look-up that is under way, and those who wait for it."""

    def __init__(self) -> None:
        self.value: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self.is_stale = False  # what it loads may be older than an invalidation
        self.task: asyncio.Task[None] | None = None

    @property
    def is_storing(self) -> bool:
        """Whether the value is out, and on its way into the cache."""
        return self.value.done()


class CacheAside:
    """Values from the cache, else from where they come from."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._flights: dict[Key, _Flight] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def get(self, key: Key, load: Callable[[], Awaitable[bytes | None]]) -> bytes | None:
        """Return the value of a key, which ``load`` knows; None, which is not stored, if it has
        none.

        Raises:
            Exception: What ``load`` raises; everybody who waits for it gets that, and the next to
                ask loads again.
        """
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = _Flight()
            # A task, since it belongs to all who wait: whoever asked first may be cancelled. It
            # ends as soon as the cache and ``load`` do.
            flight.task = asyncio.create_task(self._fly(key, flight, load))
            self._tasks.add(flight.task)
            flight.task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(flight.value)

    async def invalidate(self, *keys: Key) -> None:
        """Forget values, after what they stand for has changed."""
        storing = []
        for key in keys:
            # Whoever asks from now on must not join a look-up that began before.
            flight = self._flights.pop(key, None)
            if flight is not None:
                flight.is_stale = True
                if flight.is_storing and flight.task is not None:
                    storing.append(flight.task)
        await self._cache.delete(*keys)
        if storing:  # each deletes again what it stored; it may have come after our delete
            await asyncio.wait(storing)

    async def _fly(
        self, key: Key, flight: _Flight, load: Callable[[], Awaitable[bytes | None]]
    ) -> None:
        try:
            value = await self._cache.get(key)
            is_loaded = value is None
            if is_loaded:
                value = await load()
            flight.value.set_result(value)
            if is_loaded and value is not None and not flight.is_stale:
                await self._store(key, value, flight)
        except Exception as exc:  # whatever it is, it is for those who wait
            flight.value.set_exception(exc)
            flight.value.exception()  # all of them may be gone; that is no reason for a log line
        finally:
            flight.value.cancel()  # does nothing but when this task is cancelled
            if self._flights.get(key) is flight:
                del self._flights[key]

    async def _store(self, key: Key, value: bytes, flight: _Flight) -> None:
        await self._cache.set(key, value)
        if flight.is_stale:  # invalidated meanwhile
            await self._cache.delete(key)
