"""What an AudioSocket server sends, read as strictly as Asterisk reads it. Sans-I/O.

Asterisk takes audio and the hang-up; a UUID, a digit, an error, an unknown kind or audio without
samples from a server ends the call.
"""

from typing import NamedTuple

from mediad.wire.audiosocket import HEADER, RATE_OF_AUDIO_KIND, Kind

__all__ = ["Garbage", "Hangup", "Reply", "ReplyParser", "SlinAudio"]


class SlinAudio(NamedTuple):
    """Audio; always slin of the kind's rate, whatever codec the caller sends."""

    rate_hz: int
    pcm: bytes


class Hangup(NamedTuple):
    """The server ends the call."""


class Garbage(NamedTuple):
    """Something on which Asterisk would drop the call; nothing behind it is read."""

    detail: str


Reply = SlinAudio | Hangup | Garbage


class ReplyParser:
    """Incremental parser. Feed it exactly what TCP delivered."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._ended = False

    @property
    def unfinished(self) -> bool:
        """Whether a message has begun and not ended."""
        return bool(self._buffer) and not self._ended

    def receive_data(self, data: bytes) -> list[Reply]:
        """Return the messages that ``data`` completes, oldest first."""
        if self._ended:
            return []
        self._buffer += data
        replies: list[Reply] = []
        start = 0
        while not self._ended and len(self._buffer) > start:
            size, reply = self._next(start)
            if reply is None:
                break
            replies.append(reply)
            start += size
            self._ended = not isinstance(reply, SlinAudio)
        del self._buffer[:start]
        return replies

    def _next(self, start: int) -> tuple[int, Reply | None]:
        kind = self._buffer[start]
        if kind == Kind.HANGUP:  # Asterisk does not read its length
            return 1, Hangup()
        rate_hz = RATE_OF_AUDIO_KIND.get(kind)
        if rate_hz is None:
            return 1, Garbage(f"message kind 0x{kind:02x}, which a server must not send")
        if len(self._buffer) - start < HEADER.size:
            return 0, None
        length = HEADER.unpack_from(self._buffer, start)[1]
        if length == 0 or length % 2:
            return 1, Garbage(f"an audio message of {length} bytes")
        begin = start + HEADER.size
        if len(self._buffer) < begin + length:
            return 0, None
        pcm = bytes(self._buffer[begin : begin + length])
        return HEADER.size + length, SlinAudio(rate_hz, pcm)
