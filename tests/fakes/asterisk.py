"""A raw AudioSocket client for tests: exact bytes, exact moments. It never helps the other side.

For a caller that speaks and listens as a phone does, see ``mediad.caller``.
"""

import asyncio
import socket
import struct
import time
from typing import NamedTuple, Self, cast
from uuid import UUID, uuid4

from mediad.wire.audiosocket import HEADER, Kind, audio_message, digit_message, uuid_message

SILENCE = audio_message(Kind.SLIN, bytes(320))


class Heard(NamedTuple):
    """One message from the server."""

    at: float
    """Monotonic seconds."""
    kind: int
    payload: bytes

    @property
    def is_audible(self) -> bool:
        """Whether any of it is louder than silence."""
        return self.kind != Kind.HANGUP and any(self.payload)


class AsteriskCall(asyncio.Protocol):
    """One connection. ``async with AsteriskCall(address) as call`` connects and sends the UUID.

    Like Asterisk it closes when 0x00 comes.
    """

    def __init__(
        self,
        address: tuple[str, int],
        call_id: UUID | None = None,
        *,
        sends_uuid: bool = True,
        sock: socket.socket | None = None,
    ) -> None:
        self.call_id = call_id or uuid4()
        self.heard: list[Heard] = []
        self.reset = False
        """The connection ended with a reset, not with EOF."""
        self.started_at = 0.0
        self._address = address
        self._sends_uuid = sends_uuid
        self._sock = sock
        self._buffer = bytearray()
        self._changed = asyncio.Event()
        self._hung_up = asyncio.Event()
        self._closed = asyncio.Event()

    async def __aenter__(self) -> Self:
        sock = self._sock or socket.socket()
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_connect(sock, self._address)
        except OSError:
            sock.close()
            raise
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport, _ = await loop.create_connection(lambda: self, sock=sock)
        self.transport = transport
        self.started_at = time.monotonic()
        if self._sends_uuid:
            self.send(uuid_message(self.call_id))
        return self

    async def __aexit__(self, *_: object) -> None:
        self.transport.abort()
        await self._closed.wait()

    # Sending

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.transport.write(data)

    def press(self, digits: str) -> None:
        """Send digits, one message each."""
        for digit in digits:
            self.send(digit_message(digit))

    async def play(self, messages: list[bytes], ptime_s: float = 0.020) -> None:
        """Send one message every ptime, on an absolute clock."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        for number, message in enumerate(messages):
            await asyncio.sleep(start + number * ptime_s - loop.time())
            self.send(message)

    def close(self) -> None:
        """Hang up as Asterisk does: close the connection."""
        self.transport.close()

    def close_with_reset(self) -> None:
        """Close with RST in place of FIN."""
        sock: socket.socket = self.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    # Listening

    @property
    def audio(self) -> list[Heard]:
        """The audio messages heard so far."""
        return [message for message in self.heard if message.kind != Kind.HANGUP]

    @property
    def pcm(self) -> bytes:
        """All audio heard so far."""
        return b"".join(message.payload for message in self.audio)

    @property
    def words(self) -> bytes:
        """The same without silent messages."""
        return b"".join(message.payload for message in self.heard if message.is_audible)

    @property
    def has_hangup(self) -> bool:
        """Whether 0x00 came."""
        return self._hung_up.is_set()

    @property
    def is_closed(self) -> bool:
        """Whether the connection has ended."""
        return self._closed.is_set()

    async def hung_up(self, timeout_s: float = 10.0) -> Heard:
        """Wait for 0x00."""
        async with asyncio.timeout(timeout_s):
            await self._hung_up.wait()
        return self.heard[-1]

    async def closed(self, timeout_s: float = 10.0) -> None:
        """Wait for the end of the connection."""
        async with asyncio.timeout(timeout_s):
            await self._closed.wait()

    async def hears(self, messages: int, timeout_s: float = 10.0) -> None:
        """Wait until this many more messages have come."""
        wanted = len(self.heard) + messages
        async with asyncio.timeout(timeout_s):
            while len(self.heard) < wanted:
                self._changed.clear()
                await self._changed.wait()

    async def hears_words(self, timeout_s: float = 10.0) -> Heard:
        """Wait for an audible message from now on."""
        async with asyncio.timeout(timeout_s):
            while True:
                known = len(self.heard)
                self._changed.clear()
                await self._changed.wait()
                for message in self.heard[known:]:
                    if message.is_audible:
                        return message

    # Called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Split messages; the server must send nothing but audio and 0x00."""
        now = time.monotonic()
        self._buffer += data
        while len(self._buffer) >= HEADER.size and not self.has_hangup:
            kind, length = HEADER.unpack_from(self._buffer)
            if len(self._buffer) < HEADER.size + length:
                break
            self.heard.append(Heard(now, kind, bytes(self._buffer[3 : 3 + length])))
            del self._buffer[: 3 + length]
            if kind == Kind.HANGUP:
                self._hung_up.set()
                self.transport.close()
        self._changed.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note of the end."""
        self.reset = isinstance(exc, ConnectionResetError)
        self._closed.set()


async def expect_eof(sock: socket.socket) -> None:
    """Read until the server closes, by EOF or reset."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(10):
        try:
            while await loop.sock_recv(sock, 65536):
                pass
        except ConnectionResetError:
            pass
