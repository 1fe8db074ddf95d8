"""The cache in the process, for an installation without Redis: bounded in bytes, the least recently
used goes first.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

from prometheus_client import Counter

from mediad.cache.cache import Cache
from mediad.cache.keys import Key, Keys
from mediad.metrics import Metrics

__all__ = ["ENTRY_BYTES", "MemoryCache"]

ENTRY_BYTES = 300
"""What an entry takes beside its key and value, in bytes: their objects, its place in the dict."""


class _Entry(NamedTuple):
    value: bytes
    expires_at: float  # on the clock
    size: int  # all of the entry, in bytes


class MemoryCache(Cache):
    """A dict with an end to every entry.

    Args:
        keys: As for every cache.
        metrics: As for every cache.
        max_bytes: All that it may take, in bytes.
        clock: Tells the time, in seconds.
    """

    def __init__(
        self,
        keys: Keys,
        metrics: Metrics,
        max_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(keys, metrics)
        self._max_bytes = max_bytes
        self._clock = clock
        self._entries: OrderedDict[str, _Entry] = OrderedDict()  # least recently used first
        self._bytes = 0
        self._evicted = Counter(
            "mediad_cache_evicted",
            "Values that the cache in the process gave up for newer ones",
            registry=metrics.registry,
        )
        metrics.watch(
            "cache_size_bytes", "Memory of the cache in the process", lambda: self.size_bytes
        )

    @property
    def size_bytes(self) -> int:
        """What it takes now, in bytes."""
        return self._bytes

    async def _read(self, keys: Sequence[Key]) -> list[bytes | None]:
        now = self._clock()
        return [self._get(key.text, now) for key in keys]

    async def _write(
        self, values: Mapping[Key, bytes], gone: Collection[Key], *, are_copies: bool
    ) -> bool:
        now = self._clock()
        for key in gone:
            self._drop(key.text)
        for key, value in values.items():
            self._put(key.text, value, now + key.ttl_s)
        return True

    def _get(self, text: str, now: float) -> bytes | None:
        entry = self._entries.get(text)
        if entry is None:
            return None
        if entry.expires_at <= now:
            self._drop(text)
            return None
        self._entries.move_to_end(text)
        return entry.value

    def _put(self, text: str, value: bytes, expires_at: float) -> None:
        self._drop(text)
        entry = _Entry(value, expires_at, len(text) + len(value) + ENTRY_BYTES)
        self._entries[text] = entry
        self._bytes += entry.size
        while self._bytes > self._max_bytes:
            self._drop(next(iter(self._entries)))
            self._evicted.inc()

    def _drop(self, text: str) -> None:
        entry = self._entries.pop(text, None)
        if entry is not None:
            self._bytes -= entry.size
