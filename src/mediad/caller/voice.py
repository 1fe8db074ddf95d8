"""What a caller sends, one ptime at a time: words, digits, holes. Pure: no socket and no clock."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, gcd
from typing import NamedTuple

import numpy as np

from mediad.media.g711 import encode_alaw, encode_ulaw
from mediad.wire.audiosocket import RATE_OF_AUDIO_KIND, Kind, audio_message

__all__ = ["CODECS", "PTIMES_MS", "Codec", "Pacer", "Sending", "Voice", "parse_digits", "resample"]

PTIMES_MS = (10, 20, 30, 40, 60)
"""How long one message may last, in ms: what phones use."""

DIGIT_HOLE_S = 0.145
"""How long Asterisk sends nothing while a phone sends a digit, in seconds."""

DIGIT_WAIT_S = 0.5
"""What a ``w`` among the digits waits, in seconds."""

_DIGITS = "0123456789*#ABCD"
_DIGIT_SPACING_S = 0.1
_MAX_LATE_S = 1.0
_RESAMPLING_TAIL_S = 0.02


@dataclass(frozen=True, slots=True)
class Codec:
    """How Asterisk puts one codec on the wire."""

    name: str
    """As in the dialplan's ``c(NAME)``."""
    kind: int
    """The message kind: 0x10 for slin 8 kHz and for every codec that is not slin."""
    rate_hz: int
    encode: Callable[[bytes], bytes]
    """s16le PCM to payload."""

    def message(self, pcm: bytes) -> bytes:
        """Return the audio message that carries ``pcm``."""
        return audio_message(self.kind, self.encode(pcm))


_SLIN_NAMES = ((kind, Kind(kind).name.lower(), rate) for kind, rate in RATE_OF_AUDIO_KIND.items())

CODECS: dict[str, Codec] = {
    "ulaw": Codec("ulaw", Kind.SLIN, 8000, encode_ulaw),
    "alaw": Codec("alaw", Kind.SLIN, 8000, encode_alaw),
} | {name: Codec(name, kind, rate, bytes) for kind, name, rate in _SLIN_NAMES}


class Pacer:
    """Tells how many messages are due, on an absolute clock: one late wake-up moves none after it.

    After a stall the missed ones are due at once, as they are from Asterisk; after more than a
    second it starts over.
    """

    def __init__(self, start: float, ptime_s: float) -> None:
        self._start = start
        self._ptime_s = ptime_s
        self._taken = 0

    def take(self, now: float) -> int:
        """Return how many messages are due at ``now`` (monotonic seconds); they count as sent."""
        if now - self._next > _MAX_LATE_S:
            self._start, self._taken = now - self._ptime_s, 0
        # The tolerance of 1 ms: timers of libuv fire on whole milliseconds, also a little early.
        due = max(0, int((now - self._start + 0.001) / self._ptime_s) - self._taken)
        self._taken += due
        return due

    def delay(self, now: float) -> float:
        """Return the seconds until the next message is due."""
        return max(0.0, self._next - now)

    @property
    def _next(self) -> float:
        return self._start + (self._taken + 1) * self._ptime_s


class Sending(NamedTuple):
    """What one ptime sends."""

    pcm: bytes | None
    """s16le; None in a hole: nothing is sent."""
    digit: str
    """The digit that goes before the audio, or an empty string."""


_TALK = ""  # a step of the key plan in which audio flows
_HOLE = "hole"


class Voice:
    """The words and digits waiting to be sent, cut into frames of one ptime; then silence."""

    def __init__(self, codec: Codec, ptime_ms: int = 20) -> None:
        if ptime_ms not in PTIMES_MS:
            raise ValueError(f"ptime {ptime_ms} ms is none of {PTIMES_MS}")
        self.codec = codec
        self.ptime_s = ptime_ms / 1000
        self.muted = False
        """While set nothing is sent at all (a phone with DTX); the words wait."""
        self._size_bytes = codec.rate_hz * ptime_ms // 1000 * 2
        self._words = bytearray()  # at the codec's rate
        self._keys: deque[str] = deque()  # one step a ptime: a digit, _HOLE or _TALK

    def say(self, pcm: bytes, rate_hz: int) -> None:
        """Queue s16le mono PCM of any rate behind what is still unsaid."""
        self._words += resample(pcm, rate_hz, self.codec.rate_hz)

    def press(self, digits: str, hole_s: float = 0.0) -> None:
        """Queue digits beside the words; ``w`` waits 0.5 s.

        Args:
            hole_s: For how long before each digit no audio is sent (`DIGIT_HOLE_S` from a phone);
                the words wait.

        Raises:
            ValueError: If ``digits`` holds anything else than digits and ``w``.
        """
        for digit in parse_digits(digits):
            if digit == "w":
                self._keys.extend([_TALK] * self._frames(DIGIT_WAIT_S))
                continue
            self._keys.extend([_HOLE] * self._frames(hole_s))
            self._keys.append(digit)
            self._keys.extend([_TALK] * self._frames(_DIGIT_SPACING_S))

    @property
    def busy(self) -> bool:
        """Whether words or digits are still waiting."""
        return bool(self._words or self._keys)

    def next(self) -> Sending:
        """Return what the next ptime sends."""
        step = self._keys.popleft() if self._keys else _TALK
        if step == _HOLE:
            return Sending(None, "")
        return Sending(None if self.muted else self._next_pcm(), step)

    def _next_pcm(self) -> bytes:
        pcm = bytes(self._words[: self._size_bytes])
        del self._words[: self._size_bytes]
        return pcm.ljust(self._size_bytes, b"\0")

    def _frames(self, duration_s: float) -> int:
        return round(duration_s / self.ptime_s)


def parse_digits(digits: str) -> str:
    """Return ``digits`` in the form that is sent.

    Raises:
        ValueError: If there is anything else than digits and ``w``.
    """
    upper = digits.upper().replace("W", "w")
    for digit in upper:
        if digit not in _DIGITS + "w":
            raise ValueError(f"{digit!r} is no DTMF digit; there are {_DIGITS} and w (wait 0.5 s)")
    return upper


def resample(pcm: bytes, source_hz: int, target_hz: int) -> bytes:
    """Return a whole s16le utterance at another rate, any rate: its spectrum, cut or extended.

    Not for live audio, which has `media.resample`.
    """
    if source_hz == target_hz or not pcm:
        return pcm
    samples = np.frombuffer(pcm, "<i2").astype(np.float32)
    # The filter rings in a circle: a tail of silence keeps the end's ringing off the beginning. It
    # also fills the last block, so that both sizes are whole and the pitch stays exact.
    common = gcd(source_hz, target_hz)
    up, down = target_hz // common, source_hz // common
    blocks = ceil((samples.size + source_hz * _RESAMPLING_TAIL_S) / down)
    size, target_size = blocks * down, blocks * up
    spectrum = np.fft.rfft(samples, size)
    resampled = np.fft.irfft(spectrum[: target_size // 2 + 1], target_size) * (up / down)
    kept = resampled[: round(samples.size * target_hz / source_hz)]
    return np.clip(np.rint(kept), -32768, 32767).astype("<i2").tobytes()
