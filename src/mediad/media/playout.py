"""The agent's audio waiting to be played, handed out 20 ms at a time. Not the clock.

What Asterisk has been given cannot be taken back, so everything that is not yet due waits here.

    state     held        next frame                     leaves when
    idle      nothing     silence                        audio comes
    filling   some        silence                        40 ms are held and 20 ms old, or 40 ms old
    playing   some        the next 20 ms; the last one   nothing is left: Drained, idle
                          is padded with silence

The wait of 20 ms lets a sender of 40 ms chunks be late by a frame. Audio that comes within 200 ms
after the queue ran dry continues the utterance: that gap was an underrun. Later it is a new
utterance.

In every state it can be held: then each frame is silence, nothing is lost, nothing has drained.
"""

import sys
from collections import deque
from typing import NamedTuple

from mediad.media.quiet import LOOK_BACK_S, nearest_quiet

__all__ = [
    "MAX_MARKS",
    "PREBUFFER_S",
    "PREBUFFER_WAIT_S",
    "UNDERRUN_WINDOW_S",
    "Drained",
    "MarkReached",
    "Playout",
    "PlayoutEvent",
    "PlayoutRoom",
    "Started",
]

PREBUFFER_S = 0.040
PREBUFFER_WAIT_S = 0.020
UNDERRUN_WINDOW_S = 0.200
MAX_MARKS = 64

_EARLY_S = 0.001  # a tick may come this much before its time


class Started(NamedTuple):
    """The first frame of an utterance is handed out with this tick."""


class Drained(NamedTuple):
    """All that was queued has been played, its last 20 ms included."""


class MarkReached(NamedTuple):
    """Everything queued before the mark has been played."""

    name: str


PlayoutEvent = Started | Drained | MarkReached


class PlayoutRoom:
    """What the playouts that share it may hold together, in bytes."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes - max_bytes % 2  # whole samples
        self.held_bytes = 0


_ENDLESS_ROOM = PlayoutRoom(sys.maxsize)


class Playout:
    """A bounded queue of s16le mono at one rate.

    Full means, it or the room: the newest audio is refused (what was said first is heard whole);
    the caller counts it.
    """

    def __init__(self, rate_hz: int, max_s: float, room: PlayoutRoom | None = None) -> None:
        self._max_s = max_s
        self._room = room or _ENDLESS_ROOM
        self._keeps_played = False
        self.set_rate(rate_hz)
        self._queue = bytearray()
        self._marks: deque[tuple[int, str]] = deque()
        self._written = 0  # bytes ever queued
        self._read = 0  # bytes ever handed out or flushed, less what is repeated
        self._played = bytearray()  # the end of it, of this utterance
        self._is_held = False
        self._playing = False
        self._first_at: float | None = None  # when the audio we are filling with began to come
        self._dry_at: float | None = None  # when a frame was due and none was there
        self._resumes = False  # the filling continues an utterance
        self._silent = 0  # frames of silence since dry
        self.underruns = 0
        self.underrun_frames = 0

    def __del__(self) -> None:
        self._room.held_bytes -= len(self._queue)

    def set_rate(self, rate_hz: int) -> None:
        """Change the rate, before anything was queued."""
        self._rate_hz = rate_hz
        self._frame_size = rate_hz // 50 * 2
        self._max_size = int(rate_hz * self._max_s) * 2
        self._prebuffer_size = int(rate_hz * PREBUFFER_S) * 2
        self._keep_size = int(rate_hz * LOOK_BACK_S) * 2 if self._keeps_played else 0

    def keep_played(self) -> None:
        """From now on keep the 200 ms played last, so that `resume` can repeat of them."""
        self._keeps_played = True
        self.set_rate(self._rate_hz)

    @property
    def queued_s(self) -> float:
        """The place after all audio that was ever queued, in seconds of it."""
        return self._written / 2 / self._rate_hz

    @property
    def played_s(self) -> float:
        """The place up to which it was handed out, or flushed."""
        return self._read / 2 / self._rate_hz

    @property
    def held_bytes(self) -> int:
        """How much is waiting."""
        return len(self._queue)

    def write(self, pcm: bytes, now: float) -> int:
        """Queue audio and return how many bytes of its end were refused."""
        shared = self._room
        room = self._free()
        taken = pcm[:room] if len(pcm) > room else pcm
        if taken and not self._playing and self._first_at is None:
            self._first_at = now
            if self._dry_at is not None and now - self._dry_at <= UNDERRUN_WINDOW_S:
                self._resumes = True
                self.underruns += 1
        self._queue += taken
        shared.held_bytes += len(taken)
        self._written += len(taken)
        return len(pcm) - len(taken)

    def _free(self) -> int:
        shared = self._room
        room = min(self._max_size - len(self._queue), shared.max_bytes - shared.held_bytes)
        return max(room, 0)

    def mark(self, name: str) -> bool:
        """Ask for a `MarkReached` once all that is queued now has been played; False when 64 are
        waiting.
        """
        if len(self._marks) >= MAX_MARKS:
            return False
        self._marks.append((self._written, name))
        return True

    def read(self, now: float) -> tuple[bytes | None, list[PlayoutEvent]]:
        """Return the 20 ms that are due, None for silence, and what happened up to now."""
        events: list[PlayoutEvent] = []
        while self._marks and self._marks[0][0] <= self._read:
            events.append(MarkReached(self._marks.popleft()[1]))
        if self._is_held:
            return None, events
        if not self._playing and self._is_filled(now):
            self._start(events)
        if not self._playing:
            self._silent += 1
            return None, events
        if not self._queue:
            self._playing = False
            self._dry_at = now
            self._silent = 1
            events.append(Drained())
            return None, events
        frame = bytes(self._queue[: self._frame_size])
        del self._queue[: self._frame_size]
        self._read += len(frame)
        self._room.held_bytes -= len(frame)
        if self._keeps_played:
            self._played += frame
            del self._played[: -self._keep_size]
        return frame.ljust(self._frame_size, b"\0"), events

    def hold(self) -> None:
        """Be silent from the next frame on, until `resume` or `flush`; what waits is kept."""
        self._is_held = True

    def resume(self, repeat: bool) -> int:
        """End a hold; return how many bytes already played are played again.

        With ``repeat`` an utterance that was stopped goes on from the nearest quiet of its last
        200 ms, for a word cut in two is not understood. Needs `keep_played`.
        """
        self._is_held = False
        if not (repeat and self._playing):
            return 0
        back = min(nearest_quiet(bytes(self._played), self._rate_hz), self._free())
        start = len(self._played) - back
        self._queue[:0] = self._played[start:]
        del self._played[start:]
        self._read -= back
        self._room.held_bytes += back
        return back

    def flush(self) -> int:
        """Drop all that is waiting, marks included, and return its size in bytes. The next frame is
        silence, and no hold is left.
        """
        dropped = len(self._queue)
        self._room.held_bytes -= dropped
        self._queue.clear()
        self._marks.clear()
        self._played.clear()
        self._is_held = False
        self._read = self._written
        self._playing = False
        self._first_at = self._dry_at = None
        self._resumes = False
        return dropped

    def _is_filled(self, now: float) -> bool:
        if self._first_at is None:
            return False
        age = now - self._first_at + _EARLY_S
        return age >= PREBUFFER_S or (
            age >= PREBUFFER_WAIT_S and len(self._queue) >= self._prebuffer_size
        )

    def _start(self, events: list[PlayoutEvent]) -> None:
        self._playing = True
        self._first_at = None
        if self._resumes:
            self.underrun_frames += self._silent
            self._resumes = False
        else:
            self._played.clear()
            events.append(Started())
