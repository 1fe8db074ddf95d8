"""One direction of a call as it was heard: the audio, when each message passed, where speech was.

Pure: times are arguments, in monotonic seconds.
"""

from array import array
from bisect import bisect_left
from typing import NamedTuple

import numpy as np

__all__ = ["AUDIBLE_DBFS", "PAUSE_S", "Span", "Track", "level_dbfs"]

AUDIBLE_DBFS = -45.0
"""The RMS level from which a message counts as audible, in dB below full scale."""

PAUSE_S = 0.25
"""A shorter silence is a pause within one span of speech, in seconds: synthesizers pause for 0.2 at
a comma, and an agent that was interrupted may answer after 0.3."""

_JITTER_S = 0.06
_FULL_SCALE = 32768.0


class Span(NamedTuple):
    """A stretch of audible messages with nothing but pauses between them."""

    start: float
    end: float


class Track:
    """What passed in one direction. Grows by 17 kB for each second of 8 kHz."""

    def __init__(self, rate_hz: int, pause_s: float = PAUSE_S) -> None:
        self.rate_hz = rate_hz
        self._pause_s = pause_s
        self.pcm = bytearray()
        """All audio in order, s16le mono, without regard to time."""
        self.times = array("d")
        """When each message passed, monotonic seconds."""
        self.spans: list[Span] = []
        """Where speech was."""
        self.audible_s = 0.0
        self._ends = array("Q")  # of each message, in bytes of pcm

    def add(self, now: float, pcm: bytes) -> None:
        """Record one message that passed at ``now``."""
        self.pcm += pcm
        self.times.append(now)
        self._ends.append(len(self.pcm))
        if level_dbfs(pcm) >= AUDIBLE_DBFS:
            duration_s = len(pcm) / (2 * self.rate_hz)
            self.audible_s += duration_s
            self._extend(now, now + duration_s)

    def _extend(self, start: float, end: float) -> None:
        if self.spans and start - self.spans[-1].end < self._pause_s:
            self.spans[-1] = Span(self.spans[-1].start, max(end, self.spans[-1].end))
        else:
            self.spans.append(Span(start, end))

    @property
    def duration_s(self) -> float:
        """How long the audio is, in seconds."""
        return len(self.pcm) / (2 * self.rate_hz)

    @property
    def last_audible(self) -> float | None:
        """When the latest audible message ends, or None."""
        return self.spans[-1].end if self.spans else None

    def span_after(self, moment: float) -> Span | None:
        """Return the first span that starts at ``moment`` or later."""
        index = bisect_left(self.spans, moment, key=lambda span: span.start)
        return self.spans[index] if index < len(self.spans) else None

    def gaps_s(self) -> list[float]:
        """Return the time between each message and the one before it, in seconds."""
        return np.diff(np.frombuffer(self.times, np.float64)).tolist() if self.times else []

    def aligned(self, start: float) -> bytes:
        """Return the audio laid on a clock that begins at ``start``: silence where nothing came.

        Jitter of up to 60 ms is smoothed as a phone's buffer would.
        """
        laid = bytearray()
        begin = 0
        for time, end in zip(self.times, self._ends, strict=True):
            place = 2 * round((time - start) * self.rate_hz)
            if place - len(laid) > 2 * _JITTER_S * self.rate_hz or not laid:
                laid.extend(bytes(max(0, place - len(laid))))
            laid += self.pcm[begin:end]
            begin = end
        return bytes(laid)


def level_dbfs(pcm: bytes) -> float:
    """Return the RMS level of s16le PCM in dB below full scale; -inf for digital silence."""
    samples = np.frombuffer(pcm[: len(pcm) & ~1], np.int16).astype(np.float32)
    power = float(np.dot(samples, samples)) / max(1, samples.size)
    return 10 * float(np.log10(power / _FULL_SCALE**2)) if power else float("-inf")
