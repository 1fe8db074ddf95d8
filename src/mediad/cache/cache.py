"""What every cache does: bounded values under keys that end. Where they are is its subclass's part.

No operation raises because of the cache: what cannot be read is a miss, what cannot be written is
counted.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence

from prometheus_client import Counter

from mediad.cache.counts import Count, Counts
from mediad.cache.keys import Key, Keys
from mediad.metrics import Metrics

__all__ = ["MAX_VALUE_BYTES", "Cache"]

MAX_VALUE_BYTES = 1_000_000
"""The largest value that is taken; a larger one holds up all the others behind it."""


class Cache(ABC):
    """Values of bytes under `Key`s, for the loop it was made on.

    Args:
        keys: Makes the keys of what is in it; `Cache.keys`.
        metrics: Where this counts.
        clock: Tells the time, in seconds.
    """

    def __init__(
        self, keys: Keys, metrics: Metrics, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.keys = keys
        self._clock = clock
        self._counts = Counts()
        self._reads = Counter(
            "mediad_cache_reads",
            "Keys looked up in the cache, by whether they were there",
            ("kind", "outcome"),
            registry=metrics.registry,
        )
        self._too_large = Counter(
            "mediad_cache_too_large",
            f"Values over {MAX_VALUE_BYTES} bytes, which the cache does not take",
            ("kind",),
            registry=metrics.registry,
        )

    @property
    def problem(self) -> str | None:
        """What is wrong with it now, in words for the health page."""
        return None

    async def get(self, key: Key) -> bytes | None:
        """Return the value, None if there is none."""
        return (await self.get_many((key,)))[0]

    async def get_many(self, keys: Sequence[Key]) -> list[bytes | None]:
        """Return the values of all keys, in their order, by one question."""
        values = await self._read(keys) if keys else []
        for key, value in zip(keys, values, strict=True):
            self._reads.labels(key.kind, "miss" if value is None else "hit").inc()
        return values

    async def set(self, key: Key, value: bytes) -> bool:
        """Store a copy of what is kept elsewhere, for as long as its key says; see `update`.

        Where nobody knows whether it was stored, it is deleted before anything is read again: it
        might get there later than the `delete` that follows a change.
        """
        return await self._change({key: value}, (), are_copies=True)

    async def delete(self, *keys: Key) -> None:
        """Forget values. When this returns, nobody reads them here any more, even if they are
        still in a Redis that does not answer.
        """
        await self._change({}, keys, are_copies=False)

    async def update(self, values: Mapping[Key, bytes], gone: Collection[Key] = ()) -> bool:
        """Store values that are kept nowhere else, and forget others, at once.

        Returns:
            Whether the cache has what it should; it may have some of it if not. A value that is
            too large is not stored, and neither is what its key had before; that counts as done.
        """
        return await self._change(values, gone, are_copies=False)

    async def count(self, key: Key) -> Count:
        """Count one more under a key, whose time begins with the first; no value is kept there.

        All who share the cache count together. While it is away each goes on by itself, from what
        was last known here.
        """
        shared = await self._count(key)
        now = self._clock()
        if shared is None:
            return self._counts.add(key, now)
        self._counts.put(key, shared, now)
        return shared

    async def close(self) -> None:
        """End it; nothing may be asked of it from then on."""
        return

    async def _change(
        self, values: Mapping[Key, bytes], gone: Collection[Key], *, are_copies: bool
    ) -> bool:
        large = [key for key, value in values.items() if len(value) > MAX_VALUE_BYTES]
        if large:
            for key in large:
                self._too_large.labels(key.kind).inc()
            values = {key: value for key, value in values.items() if key not in large}
            gone = [*gone, *large]
        return not (values or gone) or await self._write(values, gone, are_copies=are_copies)

    async def _count(self, key: Key) -> Count | None:
        """Count one more with all others; None where there are none, or they cannot be reached."""
        return None

    @abstractmethod
    async def _read(self, keys: Sequence[Key]) -> list[bytes | None]:
        """Return what is there, in the order of the keys, of which there are some."""

    @abstractmethod
    async def _write(
        self, values: Mapping[Key, bytes], gone: Collection[Key], *, are_copies: bool
    ) -> bool:
        """Store and forget, of which there is something; return whether it was done."""
