"""Asterisk's AudioSocket protocol: bytes to messages and back. Not the codec, not the socket.

A message is ``kind: u8, length: u16 big-endian, payload`` (Asterisk's ``res_audiosocket.c``).
Asterisk opens the TCP connection, sends the call's UUID, then audio and DTMF; it ends a call by
closing the connection. Whatever it sends under kind 0x10 (slin 8 kHz, or the raw bytes of ulaw,
alaw or g722), a 0x10 that it *receives* is always read as slin 8 kHz.
"""

from enum import IntEnum
from struct import Struct
from typing import NamedTuple
from uuid import UUID

__all__ = [
    "AUDIO_KIND_OF_RATE",
    "DTMF_DIGITS",
    "FRAME_MS",
    "HANGUP",
    "HEADER",
    "MAX_AUDIO_MS",
    "MAX_ERROR_SIZE",
    "MIN_AUDIO_MS",
    "RATE_OF_AUDIO_KIND",
    "Audio",
    "CallUuid",
    "Digit",
    "HangUp",
    "Kind",
    "Message",
    "Parser",
    "PeerError",
    "Violation",
    "audio_message",
    "audio_size_limits",
    "digit_message",
    "uuid_message",
]

HEADER = Struct("!BH")

FRAME_MS = 20
"""What one message to Asterisk lasts, in ms: it becomes one RTP packet of that length."""

MIN_AUDIO_MS = 5
MAX_AUDIO_MS = 120
"""The shortest and longest audio message taken, in ms; phones use a ptime of 10 to 60."""


class Kind(IntEnum):
    """What a message is."""

    HANGUP = 0x00
    UUID = 0x01
    DTMF = 0x03
    SLIN = 0x10
    SLIN12 = 0x11
    SLIN16 = 0x12
    SLIN24 = 0x13
    SLIN32 = 0x14
    SLIN44 = 0x15
    SLIN48 = 0x16
    SLIN96 = 0x17
    SLIN192 = 0x18
    ERROR = 0xFF


RATE_OF_AUDIO_KIND: dict[int, int] = {
    Kind.SLIN: 8000,
    Kind.SLIN12: 12000,
    Kind.SLIN16: 16000,
    Kind.SLIN24: 24000,
    Kind.SLIN32: 32000,
    Kind.SLIN44: 44100,
    Kind.SLIN48: 48000,
    Kind.SLIN96: 96000,
    Kind.SLIN192: 192000,
}
"""Samples per second of each audio kind, when it carries slin."""

AUDIO_KIND_OF_RATE = {rate: kind for kind, rate in RATE_OF_AUDIO_KIND.items()}

HANGUP = HEADER.pack(Kind.HANGUP, 0)
"""The message that ends the AudioSocket, so that the dialplan goes on at the next priority."""

_UUID_SIZE = 16
MAX_ERROR_SIZE = 255
"""The longest error payload taken, in bytes; its content is only logged."""
DTMF_DIGITS = frozenset(b"0123456789*#ABCDabcd")


class CallUuid(NamedTuple):
    """The call's id; always the first message."""

    uuid: UUID


class Digit(NamedTuple):
    """One DTMF digit the caller pressed."""

    digit: str


class HangUp(NamedTuple):
    """The peer asks to end the call. Asterisk closes the connection instead; other peers may send
    it.
    """


class PeerError(NamedTuple):
    """The peer reports an error of its own and ends the call. Asterisk defines it and never sends
    it.
    """

    code: bytes


class Audio(NamedTuple):
    """5 to 120 ms of audio: slin of the kind's rate, or for kind 0x10 perhaps G.711 bytes."""

    kind: int
    payload: bytes


class Violation(NamedTuple):
    """The bytes are no AudioSocket: close. Always the last message; no more is read.

    ``reason`` is one word of a fixed set, for a counter's label; ``detail`` is for the log.
    """

    reason: str
    detail: str


Message = Audio | CallUuid | Digit | HangUp | PeerError | Violation


def audio_size_limits(kind: int) -> tuple[int, int]:
    """Return the smallest and largest payload of an audio message of ``kind``, in bytes.

    Kind 0x10 reaches from 5 ms of G.711 (1 byte a sample) to 120 ms of slin (2 bytes).
    """
    rate = RATE_OF_AUDIO_KIND[kind]
    smallest = rate * MIN_AUDIO_MS // 1000 * (1 if kind == Kind.SLIN else 2)
    return smallest, min(rate * MAX_AUDIO_MS // 1000 * 2, 0xFFFF)


_AUDIO_SIZES = {int(kind): audio_size_limits(kind) for kind in RATE_OF_AUDIO_KIND}


class Parser:
    """Incremental parser of what Asterisk sends. Feed it exactly what TCP delivered.

    It holds at most one unfinished message, so its memory is bounded by the largest legal one.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._uuid_seen = False
        self._ended = False  # by a HangUp, PeerError or Violation

    def receive_data(self, data: bytes) -> list[Message]:
        """Return the messages that ``data`` completes, oldest first."""
        if self._ended:
            return []
        buffer = self._buffer
        buffer += data
        messages: list[Message] = []
        start = 0
        while not self._ended and start < len(buffer):
            taken, message = self._next(start)
            if message is None:
                break
            messages.append(message)
            start += taken
            self._ended = isinstance(message, HangUp | PeerError | Violation)
        del buffer[:start]
        return messages

    def _next(self, start: int) -> tuple[int, Message | None]:
        """Return the size and content of the message at ``start``; no content while it is
        incomplete.
        """
        buffer = self._buffer
        kind = buffer[start]
        if (
            kind == Kind.HANGUP
        ):  # its length is not read: Asterisk does not, and some peers send none
            return 1, HangUp()
        violation = self._check_kind(kind)
        if violation is None and len(buffer) - start >= HEADER.size:
            length = HEADER.unpack_from(buffer, start)[1]
            violation = _check_length(kind, length)
            end = start + HEADER.size + length
            if violation is None and len(buffer) >= end:
                return end - start, self._message(kind, bytes(buffer[start + HEADER.size : end]))
        return 1, violation

    def _check_kind(self, kind: int) -> Violation | None:
        if kind not in _AUDIO_SIZES and kind not in (Kind.UUID, Kind.DTMF, Kind.ERROR):
            return Violation("unknown_kind", f"unknown message kind 0x{kind:02x}")
        if not self._uuid_seen and kind != Kind.UUID:
            return Violation("no_uuid", f"message kind 0x{kind:02x} before the call's UUID")
        if self._uuid_seen and kind == Kind.UUID:
            return Violation("second_uuid", "a second UUID on one connection")
        return None

    def _message(self, kind: int, payload: bytes) -> Message:
        if kind in _AUDIO_SIZES:
            return Audio(kind, payload)
        if kind == Kind.DTMF:
            if payload[0] not in DTMF_DIGITS:
                return Violation("bad_digit", f"DTMF digit {payload!r}")
            return Digit(payload.decode().upper())
        if kind == Kind.UUID:
            self._uuid_seen = True
            return CallUuid(UUID(bytes=payload))
        return PeerError(payload)


def _check_length(kind: int, length: int) -> Violation | None:
    if kind in _AUDIO_SIZES:
        smallest, largest = _AUDIO_SIZES[kind]
    elif kind == Kind.UUID:
        smallest = largest = _UUID_SIZE
    elif kind == Kind.DTMF:
        smallest = largest = 1
    else:
        smallest, largest = 0, MAX_ERROR_SIZE
    if smallest <= length <= largest:
        return None
    return Violation("bad_length", f"kind 0x{kind:02x} with {length} bytes")


def audio_message(kind: int, payload: bytes) -> bytes:
    """Return one audio message; write it in one piece: a gap inside it breaks the call."""
    return HEADER.pack(kind, len(payload)) + payload


def uuid_message(uuid: UUID) -> bytes:
    """Return the first message of a call, as Asterisk sends it."""
    return HEADER.pack(Kind.UUID, _UUID_SIZE) + uuid.bytes


def digit_message(digit: str) -> bytes:
    """Return a DTMF message, as Asterisk sends it. Sent *to* Asterisk it would end the call."""
    return HEADER.pack(Kind.DTMF, 1) + digit.encode()
