"""A text is spoken once for all who ask for it at the same time, and kept for those who ask later.

A `Flight` is one text on its way to its listeners, the calls that wait to play it:

state      leaves when
looking    the store has it: over; it has not, or not in time: missing
missing    a listener, its *owner*, has its own service speak it
speaking   that is done: over, and what came goes into the store; it fails: over
over       a little later it is forgotten: until then the store may not have it yet

Who comes while it is spoken gets what there is so far, and the rest as it comes. When the owner no
longer listens, the others do (`pass_on`); when nobody does, it is forgotten and not stored. Nobody
waits while somebody else's service speaks other texts: who would has it spoken *alone*, by his own,
and who comes next joins him.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import Protocol

from prometheus_client import Counter

from mediad.ai.services.events import Why
from mediad.ai.spoken import Item, SpeechKey, pack, unpack
from mediad.metrics import Metrics

__all__ = [
    "LINGER_S",
    "MAX_LINGERING_BYTES",
    "Flight",
    "Listener",
    "NoStore",
    "SpeechStore",
    "TtsCache",
]

logger = logging.getLogger(__name__)

LINGER_S = 2.0
"""How long a text that was spoken can be had from here, in seconds."""

MAX_LINGERING_BYTES = 16 << 20
"""What texts that were spoken may take here until then."""

_BATCH = 16  # listeners told in one turn of the loop: each of them plays what it is told of


class SpeechStore(Protocol):
    """Where speech is kept; `cache.speech.SpeechCache`. Neither raises nor holds the loop up."""

    def fetch(self, digest: str, on_value: Callable[[bytes | None], None]) -> None:
        """Call ``on_value`` once, soon but not from within, with the value or None."""
        ...

    def keep(self, digest: str, make: Callable[[], bytes | None]) -> None:
        """Store what ``make`` returns, when called from any thread, unless it is None."""
        ...


class NoStore:
    """Keeps nothing."""

    def fetch(self, digest: str, on_value: Callable[[bytes | None], None]) -> None:
        """There is nothing."""
        asyncio.get_running_loop().call_soon(on_value, None)

    def keep(self, digest: str, make: Callable[[], bytes | None]) -> None:
        """Forget it."""


class Listener(Protocol):
    """A text of one call. Neither method is called from within `TtsCache.join`."""

    @property
    def backlog(self) -> int:
        """How much the call's own service has to do before it."""
        ...

    @property
    def ahead(self) -> "Flight | None":
        """The text that the call's own service speaks right before it, if there is one."""
        ...

    def on_progress(self) -> None:
        """There is more to play, or it is over."""
        ...

    def on_missing(self) -> None:
        """Nobody has it: have it spoken. This is the owner now."""
        ...

    def on_unwanted(self) -> None:
        """Nobody listens any more to what this owner had spoken and listens to no longer itself."""
        ...


class Flight:
    """One text for all who play it. Made by `TtsCache.join`."""

    def __init__(
        self, cache: "TtsCache", key: SpeechKey, digest: str, instead_of: "Flight | None" = None
    ) -> None:
        self._cache = cache
        self._instead_of = instead_of  # until it is known to be sooner than that
        self.key = key
        self.digest = digest
        self.items: list[Item] = []
        """What there is so far; each listener keeps its own place in it."""
        self.size_bytes = 0
        self.is_over = False
        self.failure: tuple[Why, str] | None = None
        self.is_behind = False
        """Whether its owner's service has other things to do first."""
        self._ahead: Flight | None = None  # the last of them, if that is a text
        self.owner: Listener | None = None
        self.listeners: list[Listener] = []

    def is_joinable(self, before: "Collection[Flight]") -> bool:
        """Whether one more listener, who plays these before, gets it in time: as soon as if it were
        spoken anew, or with the text that its owner's service speaks first still to be played.
        """
        if self.failure is not None:
            return False
        if self.items or not self.is_behind:
            return True
        return self._ahead is not None and (self._ahead.is_over or self._ahead in before)

    def found(self, value: bytes | None) -> None:
        """Take the store's answer."""
        items = unpack(value) if value is not None else None
        if items is None:
            self._cache.count_read("miss")
            self.pass_on()
            return
        self._cache.count_read("hit")
        self.items = items
        self.size_bytes = len(value or b"")
        self._end()

    def add(self, item: Item) -> None:
        """Take a part, from the owner's service."""
        self.items.append(item)
        if isinstance(item, bytes):
            self.size_bytes += len(item)
        self._cache.wake(self.listeners)

    def finish(self, provider: str) -> None:
        """Take the end; ``provider`` has spoken, perhaps a stand-in, whose voice is not kept."""
        if provider == self.key.provider:
            self._cache.store.keep(self.digest, partial(pack, tuple(self.items), self.key.rate_hz))
        self._end()

    def fail(self, why: Why, message: str) -> None:
        """Take the end before it was spoken whole."""
        self.failure = (why, message)
        self._cache.count_unfinished("failed")
        self._end()

    def pass_on(self) -> None:
        """Let the listener who can soonest have it spoken; without one, forget it."""
        self.owner = min(self.listeners, key=lambda listener: listener.backlog, default=None)
        if self.owner is not None:
            self.is_behind = self.owner.backlog > 0
            self._ahead = self.owner.ahead
            if self.is_behind and self._instead_of is not None:
                self._cache.give_back(self, self._instead_of)
            self._instead_of = None
            self.owner.on_missing()
        else:
            self._cache.forget(self)

    def refuse(self, listener: Listener) -> "Flight":
        """Let another listener than this owner have it spoken; return, for this one, a flight that
        has failed.
        """
        self.listeners.remove(listener)
        self.pass_on()
        failed = Flight(self._cache, self.key, self.digest)
        failed.listeners.append(listener)
        failed.failure = ("unavailable", "it was never spoken before")
        failed.is_over = True
        return failed

    def leave(self, listener: Listener) -> None:
        """Tell this listener nothing any more."""
        self.listeners.remove(listener)
        if self.listeners or self.is_over:
            return
        self._cache.forget(self)
        owner, self.owner = self.owner, None
        if owner is not None:
            self._cache.count_unfinished("cancelled")
            if owner is not listener:
                owner.on_unwanted()

    def _end(self) -> None:
        self.is_over = True
        self.owner = self._ahead = None
        self._cache.linger(self)
        self._cache.wake(self.listeners)


class TtsCache:
    """All texts that are spoken now, in one process."""

    def __init__(self, store: SpeechStore, metrics: Metrics) -> None:
        self.store = store
        self._flights: dict[str, Flight] = {}
        self._lingering_bytes = 0
        self._waking: deque[Listener] = deque()
        self._is_waking = False
        registry = metrics.registry
        self._reads = Counter(
            "mediad_tts_cache_reads",
            "Texts to speak: hit and miss of the cache, joined to one that is being spoken, alone "
            "since that one would have taken longer",
            ("outcome",),
            registry=registry,
        )
        self._unfinished = Counter(
            "mediad_tts_cache_unfinished",
            "Texts that were not spoken whole, and are not stored",
            ("reason",),
            registry=registry,
        )
        self._played = Counter(
            "mediad_tts_cache_played_bytes", "Speech that no service had to make", registry=registry
        )
        metrics.watch(
            "tts_cache_flights", "Texts that are being spoken", lambda: len(self._flights)
        )

    def join(
        self,
        key: SpeechKey,
        listener: Listener,
        before: Collection[Flight] = (),
        *,
        afresh: bool = False,
    ) -> Flight:
        """Return the flight of a text, with this listener in it.

        Args:
            before: What the listener's call has yet to play before it.
            afresh: It is spoken anew though the store was asked before.
        """
        loop = asyncio.get_running_loop()
        digest = key.digest()
        flight = self._flights.get(digest)
        if flight is not None and flight.is_joinable(before):
            flight.listeners.append(listener)
            self.count_read("joined")
            if flight.items or flight.is_over:
                loop.call_soon(self.wake, (listener,))
            return flight
        is_alone = flight is not None
        flight = Flight(self, key, digest, instead_of=flight)
        flight.listeners.append(listener)
        self._flights[digest] = flight
        if is_alone or afresh:
            self.count_read("alone")
            loop.call_soon(flight.pass_on)
        else:
            self.store.fetch(digest, flight.found)
        return flight

    def wake(self, listeners: Iterable[Listener]) -> None:
        """Tell listeners that there is more; the first ones now, the others soon."""
        self._waking.extend(listeners)
        if not self._is_waking:
            self._wake_some()

    def _wake_some(self) -> None:
        self._is_waking = False
        for _ in range(min(_BATCH, len(self._waking))):
            listener = self._waking.popleft()
            try:
                listener.on_progress()
            except Exception:  # a callback's top: one call's mistake is not the others' loss
                logger.exception("a call cannot play a text")
        if self._waking and not self._is_waking:
            self._is_waking = True
            asyncio.get_running_loop().call_soon(self._wake_some)

    def linger(self, flight: Flight) -> None:
        """Keep what was spoken for a moment; what failed is forgotten at once."""
        if self._flights.get(flight.digest) is not flight:
            return
        is_too_much = self._lingering_bytes + flight.size_bytes > MAX_LINGERING_BYTES
        if flight.failure is not None or is_too_much:
            self.forget(flight)
            return
        self._lingering_bytes += flight.size_bytes
        asyncio.get_running_loop().call_later(LINGER_S, self._end_lingering, flight)

    def _end_lingering(self, flight: Flight) -> None:
        self._lingering_bytes -= flight.size_bytes
        self.forget(flight)

    def give_back(self, flight: Flight, earlier: Flight) -> None:
        """Let the next ones join the earlier flight after all, if that is still spoken."""
        if self._flights.get(flight.digest) is flight and earlier.owner is not None:
            self._flights[flight.digest] = earlier

    def forget(self, flight: Flight) -> None:
        """Let nobody join any more."""
        if self._flights.get(flight.digest) is flight:
            del self._flights[flight.digest]

    def count_read(self, outcome: str) -> None:
        """Count where a text came from."""
        self._reads.labels(outcome).inc()

    def count_unfinished(self, reason: str) -> None:
        """Count a text that was not spoken whole."""
        self._unfinished.labels(reason).inc()

    def count_played(self, size_bytes: int) -> None:
        """Count speech that its call's own service did not make."""
        self._played.inc(size_bytes)
