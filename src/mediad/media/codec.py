"""Find out what audio of AudioSocket kind 0x10 is: slin, or the raw bytes of G.711.

The wire does not name the codec, and a message's length does not tell it either (320 bytes are 20
ms of slin or 40 ms of µ-law). The byte rate does: 16,000 bytes a second are slin, 8,000 are G.711.
"""

from math import inf

__all__ = ["MAX_HELD_BYTES", "CodecDetector"]

MAX_HELD_BYTES = 16_000
"""How much audio may wait for the decision: a second of slin. Then the nearer of the two rates is
taken.
"""

_WINDOW_S = 0.200
_G711_BYTES_PER_S = 8_000
_MIDDLE_BYTES_PER_S = 12_000
_DOUBT_BYTES_PER_S = 2_000  # this near to the middle the rate says nothing; look for longer
_MIN_HOLE_S = 0.060


class CodecDetector:
    """Hold the first audio of a call until its byte rate over 200 ms without a hole is known."""

    def __init__(self) -> None:
        self._held: list[bytes] = []
        self._held_size = 0
        self._window_start = 0.0
        self._window_bytes = 0  # bytes that came after the window's first message
        self._last_at: float | None = None
        self._last_size = 0

    def add(self, payload: bytes, now: float) -> bool | None:
        """Hold one message; return True for slin, False for G.711, None while it cannot be told."""
        # A hole (DTMF, mute) would halve the rate and make slin look like G.711: begin anew after
        # it.
        hole_s = max(_MIN_HOLE_S, 1.5 * self._last_size / _G711_BYTES_PER_S)
        if self._last_at is None or now - self._last_at > hole_s:
            self._window_start, self._window_bytes = now, 0
        else:
            self._window_bytes += len(payload)
        self._last_at, self._last_size = now, len(payload)
        self._held.append(payload)
        self._held_size += len(payload)
        elapsed = now - self._window_start
        full = self._held_size >= MAX_HELD_BYTES
        if elapsed < _WINDOW_S and not full:
            return None
        # All at once (held up before it reached us) looks like an endless rate: slin.
        rate = self._window_bytes / elapsed if elapsed > 0 else inf
        if abs(rate - _MIDDLE_BYTES_PER_S) < _DOUBT_BYTES_PER_S and not full:
            return None
        return rate > _MIDDLE_BYTES_PER_S

    def take_held(self) -> list[bytes]:
        """Return the messages held so far, oldest first, and hold them no more."""
        held, self._held, self._held_size = self._held, [], 0
        return held
