"""The voice of one call: texts in, audio out in their order, each from the cache, from another call
that has the same text spoken just now, or from the call's own TTS service.

The service's numbers are its own: a text whose speaking falls to this call late (its owner has hung
up) may be older than one that was asked before.
"""

import asyncio
import sys
import time
from collections import deque
from dataclasses import dataclass, field

from mediad.ai.connect import CallInfo
from mediad.ai.services.events import Failed, Times, TtsEvents, Why
from mediad.ai.services.link import MAX_ASKED
from mediad.ai.services.service import Service
from mediad.ai.services.tts import TtsLink
from mediad.ai.spoken import Said, SpeechKey, normalise
from mediad.ai.tts_cache import Flight, TtsCache
from mediad.wire.service import Role, Voice

__all__ = ["Speaker"]

_WORTH_ANOTHER_TRY: frozenset[Why] = frozenset(("lost", "unavailable", "too_much"))
"""How a text fails for a reason that is its owner's, and not the text's or the service's."""


@dataclass(eq=False, slots=True)
class _Utterance:
    """A text of this call, and its place in what there is of it; a `Listener`."""

    speaker: "Speaker"
    n: int
    key: SpeechKey
    voice: Voice
    asked_at: float
    may_ask: bool
    """Whether the call's own service may be asked for it."""
    flight: Flight = field(init=False)
    at: int = 0
    head_at: float = 0.0
    first_at: float | None = None
    link_n: int = 0
    """The number by which the service knows it; 0 when the service was not asked."""
    has_failed_before: bool = False
    """It is not begun again."""

    @property
    def backlog(self) -> int:
        return self.speaker._link.backlog if self.may_ask else sys.maxsize

    @property
    def ahead(self) -> Flight | None:
        return self.speaker._last_owned

    def on_progress(self) -> None:
        self.speaker._play()

    def on_missing(self) -> None:
        if self.may_ask:
            self.speaker._ask(self)
        else:
            self.flight = self.flight.refuse(self)
            self.speaker._play()

    def on_unwanted(self) -> None:
        self.speaker._stop_left(self.link_n)


class Speaker:
    """Speaks for one call. `run` it in a task of the call.

    Args:
        cache: What all calls share.
        service: The TTS service.
        call: Whose voice it is.
        voice: How a text is spoken that does not say so itself.
        rate_hz: What the caller's line plays: 8000 until it is known to be more.
        events: Who hears of it.
    """

    def __init__(
        self,
        cache: TtsCache,
        service: Service,
        call: CallInfo,
        voice: Voice,
        rate_hz: int,
        events: TtsEvents,
    ) -> None:
        self._cache = cache
        self._voice = voice
        self.rate_hz = rate_hz
        """For which speech is kept from now on: what the line plays as it is."""
        self._events = events
        self._link = TtsLink(service, call, voice, rate_hz, self)
        self._link_n = 0
        self._queue: deque[_Utterance] = deque()
        self._owned: dict[int, Flight] = {}  # by the link's numbers
        self._left_n = 0  # up to this they have been handed over
        self._is_playing = False  # nothing is told from within what is told

    async def run(self) -> None:
        """Keep the call linked to the service, until it is cancelled.

        Raises:
            AgentUnavailable: As `ServiceLink.run`; what is in the cache is spoken all the same.
        """
        await self._link.run()

    def key(self, text: str, voice: Voice | None = None) -> SpeechKey:
        """Return where a text is kept that is spoken now."""
        voice = voice or self._voice
        return SpeechKey(
            self._link.address,
            voice.voice,
            voice.language,
            voice.rate or 1.0,
            self.rate_hz,
            normalise(text),
        )

    def speak(self, n: int, text: str, voice: Voice | None = None, *, may_ask: bool = True) -> None:
        """Have a text spoken after those before it; n is larger than theirs. Never waits.

        Without ``may_ask`` the call's own service is left out: what nobody else has has failed.
        """
        key = self.key(text, voice)
        utterance = _Utterance(self, n, key, voice or self._voice, time.monotonic(), may_ask)
        utterance.has_failed_before = not may_ask
        if len(self._queue) >= MAX_ASKED:
            failed = Failed("tts", n, "too_much", "", False)
            asyncio.get_running_loop().call_soon(self._events.on_failed, failed)
            return
        before = [earlier.flight for earlier in self._queue]
        utterance.flight = self._cache.join(key, utterance, before)
        self._queue.append(utterance)
        self._mark_head()

    def cancel(self, n: int) -> None:
        """Say nothing of what was asked up to n, or no more of it. What others are listening to
        goes on, but the next text does not wait for it.
        """
        while self._queue and self._queue[0].n <= n:
            utterance = self._queue.popleft()
            utterance.flight.leave(utterance)
        given_up = max((n for n, flight in self._owned.items() if not flight.listeners), default=0)
        self._owned = {n: flight for n, flight in self._owned.items() if flight.listeners}
        ours = {utterance.link_n for utterance in self._queue}
        go_on = (n for n in self._owned if n > self._left_n and (n not in ours or n < given_up))
        self._hand_over(max(go_on, default=0))
        self._link.cancel(given_up)
        self._mark_head()

    def close(self) -> None:
        """End it, but for what others are listening to."""
        if self._queue:
            self.cancel(self._queue[-1].n)
        self._link.close()

    async def closed(self) -> None:
        """Wait, not for long, until the service has answered `close`."""
        await self._link.closed()
        if not self._left_n:
            del self._link  # it knows us: a cycle that only the garbage collector would find

    # The service

    @property
    def _last_owned(self) -> Flight | None:
        """The newest text that the connection in use is asked for."""
        n = max(self._owned, default=0)
        return self._owned[n] if n > self._left_n else None

    def _ask(self, utterance: _Utterance) -> None:
        """Have the service speak it."""
        self._link_n += 1
        utterance.link_n = self._link_n
        self._owned[self._link_n] = utterance.flight
        self._link.speak(self._link_n, utterance.key.text, utterance.voice)

    def _hand_over(self, n: int) -> None:
        """Leave the connection to what is spoken over it up to n; what has no connection yet is
        passed on to those who listen.
        """
        if not n:
            return
        unsent = [number for number in self._owned if self._left_n < number <= n]
        self._left_n = n
        if not self._link.let_go(n):
            self._link.cancel(n)
            for number in unsent:
                self._owned.pop(number).pass_on()

    def _stop_left(self, n: int) -> None:
        """Speak no more of what was handed over, unless somebody listens to another part of it."""
        self._owned.pop(n, None)
        if not any(number <= self._left_n for number in self._owned):
            self._link.close_left()

    def on_service_open(self, role: Role, connect_s: float) -> None:
        """A service is ready."""
        self._events.on_service_open(role, connect_s)

    def on_service_lost(self, role: Role, why: str) -> None:
        """It is given up."""
        self._events.on_service_lost(role, why)

    def on_audio(self, n: int, message: bytes) -> None:
        """It speaks."""
        flight = self._owned.get(n)
        if flight is not None:
            flight.add(message)

    def on_word(self, n: int, text: str, offset_ms: int) -> None:
        """It says where a word is."""
        flight = self._owned.get(n)
        if flight is not None:
            flight.add(Said(text, offset_ms))

    def on_tts_done(self, n: int, times: Times) -> None:
        """It has spoken."""
        flight = self._owned.pop(n, None)
        if flight is not None:
            flight.finish(times.address)

    def on_failed(self, failed: Failed) -> None:
        """It has not."""
        flight = self._owned.pop(failed.n, None)
        if flight is not None:
            flight.fail(failed.why, failed.message)

    # What is played

    def _play(self) -> None:
        """Tell of all that there is, up to the first text of which something is missing."""
        if self._is_playing:
            return
        self._is_playing = True
        try:
            while self._queue and self._play_head(self._queue[0]):
                pass
        finally:
            self._is_playing = False

    def _play_head(self, utterance: _Utterance) -> bool:
        """Tell of the oldest text; return whether to look again."""
        flight = utterance.flight
        if utterance.at < len(flight.items):
            item = flight.items[utterance.at]
            utterance.at += 1
            if isinstance(item, Said):
                self._events.on_word(utterance.n, item.text, item.offset_ms)
                return True
            if utterance.first_at is None:
                utterance.first_at = time.monotonic()
            if not utterance.link_n:
                self._cache.count_played(len(item))
            self._events.on_audio(utterance.n, item)
            return True
        if not flight.is_over:
            return False
        if flight.failure is not None and self._begins_again(utterance, flight.failure[0]):
            return False
        self._queue.popleft()
        flight.leave(utterance)
        self._mark_head()
        self._tell_end(utterance, flight.failure)
        return True

    def _begins_again(self, utterance: _Utterance, why: Why) -> bool:
        """Have a text spoken anew that another call did not get spoken, if none of it was heard."""
        if (
            utterance.link_n
            or utterance.at
            or utterance.has_failed_before
            or why not in _WORTH_ANOTHER_TRY
        ):
            return False
        utterance.has_failed_before = True
        utterance.flight = self._cache.join(utterance.key, utterance, afresh=True)
        return True

    def _tell_end(self, utterance: _Utterance, failure: tuple[Why, str] | None) -> None:
        if failure is not None:
            has_output = utterance.at > 0
            self._events.on_failed(Failed("tts", utterance.n, *failure, has_output))
            return
        times = Times(
            utterance.asked_at,
            utterance.head_at,
            utterance.first_at,
            time.monotonic(),
            int(utterance.link_n > 0),
            utterance.key.provider if utterance.link_n else "",
        )
        self._events.on_tts_done(utterance.n, times)

    def _mark_head(self) -> None:
        if self._queue and not self._queue[0].head_at:
            self._queue[0].head_at = time.monotonic()
