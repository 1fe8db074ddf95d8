"""The cache in the process, for an installation without Redis: bounded in bytes, the least recently
used goes first. Speech has room of its own: however many calls end, a prompt is there for the next.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

from prometheus_client import Counter

from mediad.cache.cache import Cache
from mediad.cache.keys import SPEECH, Key, Keys
from mediad.metrics import Metrics

__all__ = ["ENTRY_BYTES", "MemoryCache"]

ENTRY_BYTES = 300
"""What an entry takes beside its key and value, in bytes: their objects, its place in the dict."""


class _Entry(NamedTuple):
    value: bytes
    expires_at: float  # on the clock
    size: int  # all of the entry, in bytes


class _Room:
    """Entries that share a bound."""

    def __init__(self, max_bytes: int) -> None:
        self.size_bytes = 0
        self._max_bytes = max_bytes
        self._entries: OrderedDict[str, _Entry] = OrderedDict()  # least recently used first

    def get(self, text: str, now: float) -> bytes | None:
        entry = self._entries.get(text)
        if entry is None:
            return None
        if entry.expires_at <= now:
            self.drop(text)
            return None
        self._entries.move_to_end(text)
        return entry.value

    def put(self, text: str, value: bytes, expires_at: float) -> int:
        """Store a value; return how many were given up for it."""
        self.drop(text)
        entry = _Entry(value, expires_at, len(text) + len(value) + ENTRY_BYTES)
        self._entries[text] = entry
        self.size_bytes += entry.size
        given_up = 0
        while self.size_bytes > self._max_bytes:
            self.drop(next(iter(self._entries)))
            given_up += 1
        return given_up

    def drop(self, text: str) -> None:
        entry = self._entries.pop(text, None)
        if entry is not None:
            self.size_bytes -= entry.size


class MemoryCache(Cache):
    """A dict with an end to every entry.

    Args:
        keys: As for every cache.
        metrics: As for every cache.
        max_bytes: All that it may take beside speech, in bytes.
        max_speech_bytes: All that speech may take, in bytes.
        clock: As for every cache.
    """

    def __init__(
        self,
        keys: Keys,
        metrics: Metrics,
        max_bytes: int,
        max_speech_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(keys, metrics, clock)
        self._room = _Room(max_bytes)
        self._speech_room = _Room(max_speech_bytes)
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
        return self._room.size_bytes + self._speech_room.size_bytes

    async def _read(self, keys: Sequence[Key]) -> list[bytes | None]:
        now = self._clock()
        return [self._room_of(key).get(key.text, now) for key in keys]

    async def _write(
        self, values: Mapping[Key, bytes], gone: Collection[Key], *, are_copies: bool
    ) -> bool:
        now = self._clock()
        for key in gone:
            self._room_of(key).drop(key.text)
        for key, value in values.items():
            self._evicted.inc(self._room_of(key).put(key.text, value, now + key.ttl_s))
        return True

    def _room_of(self, key: Key) -> _Room:
        return self._speech_room if key.kind == SPEECH else self._room
