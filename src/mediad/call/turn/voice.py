"""When the caller's voice begins and ends: the energy gate, confirmed by a model where it can be.

    state     meaning                         leaves when                              next
    quiet     the gate is closed              it opens                                 asking
    asking    the model judges what it is     it says voice, or nothing in 80 ms       voice
                                              the gate closes                          quiet
    voice     `VoiceStarted` was told         the gate closes: `VoiceStopped`          quiet

The model hears 256 ms from before the opening too: without them it finds a voice later. What it
takes for no voice (a cough, a slammed door, a tone) stays `asking` until the gate closes.
"""

from typing import NamedTuple

from mediad.line import Gate
from mediad.media.vad import BLOCK_S, HANG_S

__all__ = [
    "ANSWER_S",
    "BEFORE_S",
    "VOICE",
    "Ask",
    "Voice",
    "VoiceEvent",
    "VoiceStarted",
    "VoiceStopped",
]

ANSWER_S = 0.080
"""How long the first score may take until the gate alone decides."""

BEFORE_S = 0.256
VOICE = 0.5
"""The score from which on it is a voice."""

_WINDOW_S = 0.032

# The gate takes the level over two blocks: when the first of those that close it was quiet, so was
# the block before.
_QUIET_S = HANG_S + BLOCK_S


class VoiceStarted(NamedTuple):
    """The caller has begun to speak."""

    confirmed: bool
    """By the model; False: the gate alone says so."""


class VoiceStopped(NamedTuple):
    """The caller has been quiet."""

    quiet_s: float
    """For so long."""


class Ask(NamedTuple):
    """Have the model score the next windows of an opening, and tell `on_score`."""

    opening: int
    windows: list[bytes]
    """Each 32 ms of s16le."""


VoiceEvent = VoiceStarted | VoiceStopped | Ask


class Voice:
    """One caller's. With ``has_model`` each `Ask` is to be answered by `on_score` or `on_refused`.

    Args:
        rate_hz: 8000 or 16000.
        has_model: Whether there is anybody to ask.
    """

    def __init__(self, rate_hz: int, has_model: bool) -> None:
        self._gate = Gate(rate_hz)
        self.has_model = has_model
        """Looked at whenever the gate opens; it may change at any time."""
        self._window_size = round(rate_hz * _WINDOW_S) * 2
        self._before_size = round(rate_hz * BEFORE_S) * 2
        self._recent = b""  # audio not asked about yet
        self._opening = 0
        self._ask_until: float | None = None  # if asking and nothing was scored yet
        self._is_asking = False
        self.is_voice = False

    def process(self, pcm: bytes, now: float) -> list[VoiceEvent]:
        """Take the caller's audio, s16le in chunks of any size."""
        events: list[VoiceEvent] = []
        change = self._gate.process(pcm)
        if self.has_model:
            self._recent += pcm
        if change is True:
            self._open(now, events)
        elif change is False:
            self._close(events)
        if self._is_asking:
            self._ask(now, events)
        else:
            self._recent = self._recent[-self._before_size :]
        return events

    def on_score(self, opening: int, score: float) -> list[VoiceEvent]:
        """Take the model's answer about one window."""
        if opening != self._opening or not self._is_asking:
            return []
        self._ask_until = None
        return self._start(confirmed=True) if score >= VOICE else []

    def on_refused(self, opening: int) -> list[VoiceEvent]:
        """The model has no time: the gate alone decides."""
        if opening != self._opening or not self._is_asking:
            return []
        return self._start(confirmed=False)

    def _open(self, now: float, events: list[VoiceEvent]) -> None:
        self._opening += 1
        if not self.has_model:
            events += self._start(confirmed=False)
            return
        self._is_asking = True
        self._ask_until = now + ANSWER_S
        whole = len(self._recent) - len(self._recent) % self._window_size
        self._recent = self._recent[len(self._recent) - whole :]  # windows that end now

    def _close(self, events: list[VoiceEvent]) -> None:
        if self.is_voice:
            events.append(VoiceStopped(_QUIET_S))
        self.is_voice = self._is_asking = False

    def _ask(self, now: float, events: list[VoiceEvent]) -> None:
        if self._ask_until is not None and now >= self._ask_until:
            events += self._start(confirmed=False)
            return
        size = self._window_size
        whole = len(self._recent) - len(self._recent) % size
        if whole:
            windows = [self._recent[at : at + size] for at in range(0, whole, size)]
            events.append(Ask(self._opening, windows))
            self._recent = self._recent[whole:]

    def _start(self, confirmed: bool) -> list[VoiceEvent]:
        self._is_asking = False
        self.is_voice = True
        return [VoiceStarted(confirmed)]
