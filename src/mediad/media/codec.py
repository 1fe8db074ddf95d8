"""Find out what audio of AudioSocket kind 0x10 is: slin, or the raw bytes of G.711.

The wire does not name the codec, and a message's length does not tell it either (320 bytes are 20
ms of slin or 40 ms of µ-law). The byte rate does: 16,000 bytes a second are slin, 8,000 are G.711.
"""

from math import inf

__all__ = ["MAX_HELD_BYTES", "MAX_HELD_S", "CodecDetector"]

MAX_HELD_BYTES = 16_000
"""How much audio may wait for the decision: a second of slin. Then the nearer of the two rates is
taken.
"""

MAX_HELD_S = 1.0
"""For how long. Then the longest stretch without a hole decides."""

_WINDOW_S = 0.200
_INSTANT_S = 0.005
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
        self._held_since: float | None = None
        self._longest_s = 0.0  # the longest window so far, and the byte rate there
        self._rate = inf  # all at once looks like an endless rate: slin

    def add(self, payload: bytes, now: float) -> bool | None:
        """Hold one message; return True for slin, False for G.711, None while it cannot be told."""
        # A hole (DTMF, mute) would halve the rate and make slin look like G.711: begin anew after
        # it.
        hole_s = max(_MIN_HOLE_S, 1.5 * self._last_size / _G711_BYTES_PER_S)
        if self._last_at is None or now - self._last_at > hole_s:
            self._window_start, self._window_bytes = now, 0
        elif now - self._window_start > _INSTANT_S:
            # What comes with the window's first message was held up on its way: it has no pace.
            self._window_bytes += len(payload)
        self._held_since = now if self._held_since is None else self._held_since
        self._last_at, self._last_size = now, len(payload)
        self._held.append(payload)
        self._held_size += len(payload)
        elapsed = now - self._window_start
        if elapsed > self._longest_s:
            self._longest_s, self._rate = elapsed, self._window_bytes / elapsed
        if self._held_size >= MAX_HELD_BYTES or now - self._held_since >= MAX_HELD_S:
            return self._rate > _MIDDLE_BYTES_PER_S
        if elapsed < _WINDOW_S or abs(self._rate - _MIDDLE_BYTES_PER_S) < _DOUBT_BYTES_PER_S:
            return None
        return self._rate > _MIDDLE_BYTES_PER_S

    def take_held(self) -> list[bytes]:
        """Return the messages held so far, oldest first, and hold them no more."""
        held, self._held, self._held_size = self._held, [], 0
        return held
