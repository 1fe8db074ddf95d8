"""A misbehaving AI agent, on the independent ``websockets`` library or on bare TCP.

A `FakeAgent` is a server whose script runs for each connection; `dial_in` makes the same of a
client. Scripts are coroutines over an `AgentConnection`.
"""

import asyncio
import base64
import contextlib
import hashlib
import http
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, NamedTuple, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from mediad.wire import frames
from mediad.wire.frames import AudioFrame, Interruption, Json

MAX_SIZE = 1 << 20


class Received(NamedTuple):
    """One audio message from mediad."""

    at: float
    pcm: bytes


class AgentConnection:
    """One WebSocket, and what came over it."""

    def __init__(self, ws: ServerConnection | ClientConnection) -> None:
        self.ws = ws
        self.audio: list[Received] = []
        self.messages: list[dict[str, Any]] = []
        self.order: list[str] = []
        """The type of each message: ``audio`` or the RTVI type."""
        self.interruptions = 0
        self.opened_at = time.monotonic()
        self.closed_at = 0.0
        self._changed = asyncio.Event()

    # What came

    @property
    def path(self) -> str:
        """The path and query of the handshake."""
        assert self.ws.request is not None
        return self.ws.request.path

    @property
    def headers(self) -> Headers:
        """The headers of the handshake."""
        assert self.ws.request is not None
        return self.ws.request.headers

    @property
    def call_id(self) -> str:
        """Which call it is for."""
        return self.headers["X-Mediad-Call-Id"]

    @property
    def pcm(self) -> bytes:
        """The caller's audio, 16 kHz."""
        return b"".join(received.pcm for received in self.audio)

    def rtvi(self, type_: str) -> list[Any]:
        """Return the data of the messages of a type."""
        return [message["data"] for message in self.messages if message["type"] == type_]

    @property
    def digits(self) -> str:
        """The DTMF that came."""
        return "".join(button for data in self.rtvi("dtmf") for button in data["buttons"])

    async def until(self, condition: Callable[["AgentConnection"], bool]) -> None:
        """Wait until something is true of what came."""
        async with asyncio.timeout(10):
            while not condition(self):
                self._changed.clear()
                await self._changed.wait()

    async def receive(self) -> None:
        """Take messages until the connection ends."""
        with contextlib.suppress(ConnectionClosed):
            async for message in self.ws:
                assert isinstance(message, bytes)
                self._take(message)
        self.closed_at = time.monotonic()
        self._changed.set()

    def _take(self, message: bytes) -> None:
        match frames.decode(message):
            case AudioFrame(pcm, 16000, 1):
                self.audio.append(Received(time.monotonic(), pcm))
                self.order.append("audio")
            case Json(data):
                self.messages.append(json.loads(data))
                self.order.append(self.messages[-1]["type"])
            case Interruption():
                self.interruptions += 1
            case other:
                raise AssertionError(f"mediad sent {other}")
        self._changed.set()

    # What is said

    async def say(self, pcm: bytes, rate_hz: int = 16000, channels: int = 1) -> None:
        """Send one audio message."""
        await self.ws.send(frames.encode_audio(pcm, rate_hz, channels))

    async def tell(self, type_: str, **data: object) -> None:
        """Send an RTVI message."""
        message = {"label": "rtvi-ai", "type": type_, "data": data}
        await self.ws.send(frames.encode_json(json.dumps(message)))

    async def interrupt(self) -> None:
        """Send an InterruptionFrame."""
        await self.ws.send(frames.encode_interruption(7))

    async def close(self, code: int = 1000) -> None:
        """Close with a code; 1006 cuts the connection, 1005 sends no code."""
        if code == 1006:
            self.ws.transport.abort()
        elif code == 1005:
            self.ws.transport.write(b"\x88\x00")
            await self.ws.wait_closed()
        else:
            await self.ws.close(code)


Script = Callable[[AgentConnection], Awaitable[None]]


async def listen(agent: AgentConnection) -> None:
    """Say nothing."""


async def echo(agent: AgentConnection) -> None:
    """Say what the caller said."""
    said = 0

    def has_more(agent: AgentConnection) -> bool:
        return len(agent.audio) > said or agent.closed_at > 0

    while not agent.closed_at:
        await agent.until(has_more)
        for received in agent.audio[said:]:
            await agent.say(received.pcm)
            said += 1


class FakeAgent:
    """A WebSocket server.

    Args:
        script: Runs for each connection, beside the receiving; the connection stays open after it.
        statuses: What to answer to the first handshakes; then 101.
        location: Where a redirect points.
        reads: Whether it takes messages at all.
        hangs: Whether it leaves handshakes unanswered.
    """

    def __init__(
        self,
        script: Script = listen,
        *,
        statuses: Sequence[int] = (),
        location: str = "",
        reads: bool = True,
        hangs: bool = False,
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.connections: list[AgentConnection] = []
        self.handshakes: list[float] = []
        """When each handshake came, monotonic seconds."""
        self.script = script
        self._statuses = list(statuses)
        self._location = location
        self._reads = reads
        self._hangs = hangs
        self._port = port
        self._tls = tls
        self._changed = asyncio.Event()
        self._server: Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await serve(
            self._handle,
            "127.0.0.1",
            self._port,
            process_request=self._process_request,
            ssl=self._tls,
            max_size=MAX_SIZE,
            max_queue=None if self._reads else 1,
            ping_interval=None,
            open_timeout=2 if self._hangs else 10,
            close_timeout=10,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        for connection in self.connections:
            connection.ws.transport.abort()
        self._server.close()
        await self._server.wait_closed()

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None
        return int(next(iter(self._server.sockets)).getsockname()[1])

    @property
    def url(self) -> str:
        """Its address."""
        return f"{'wss' if self._tls else 'ws'}://127.0.0.1:{self.port}"

    async def connection(self, number: int = 0, timeout_s: float = 10.0) -> AgentConnection:
        """Wait for the connection of this number."""
        async with asyncio.timeout(timeout_s):
            while len(self.connections) <= number:
                self._changed.clear()
                await self._changed.wait()
        return self.connections[number]

    async def _process_request(self, ws: ServerConnection, request: Request) -> Response | None:
        self.handshakes.append(time.monotonic())
        if self._hangs:
            await asyncio.sleep(60)
        if not self._statuses:
            return None
        status = self._statuses.pop(0)
        response = ws.respond(http.HTTPStatus(status), "no\n")
        if self._location:
            response.headers["Location"] = self._location
        return response

    async def _handle(self, ws: ServerConnection) -> None:
        connection = AgentConnection(ws)
        self.connections.append(connection)
        self._changed.set()
        await _run(connection, self.script, self._reads)


async def _run(connection: AgentConnection, script: Script, reads: bool) -> None:
    async with asyncio.TaskGroup() as group:
        if reads:
            group.create_task(connection.receive())
        with contextlib.suppress(ConnectionClosed):
            await script(connection)
        await connection.ws.wait_closed()


@contextlib.asynccontextmanager
async def dial_in(address: tuple[str, int], token: str) -> AsyncIterator[AgentConnection]:
    """Connect as an agent that dials in."""
    async with connect(
        f"ws://{address[0]}:{address[1]}/agent/{token}",
        max_size=MAX_SIZE,
        ping_interval=None,
        close_timeout=10,
    ) as ws:
        connection = AgentConnection(ws)
        receiver = asyncio.get_running_loop().create_task(connection.receive())
        try:
            yield connection
        finally:
            await ws.close()
            await receiver


class RawConnection(NamedTuple):
    """A TCP connection to an agent that has not answered the handshake yet."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    response: bytes
    """What accepts the handshake."""


@contextlib.asynccontextmanager
async def raw_agent(script: Callable[[RawConnection], Awaitable[None]]) -> AsyncIterator[str]:
    """Listen on bare TCP, for what no library would send; yield the URL."""

    tasks: set[asyncio.Task[None] | None] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        try:
            await answer(reader, writer)
        finally:
            writer.transport.abort()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            request = await reader.readuntil(b"\r\n\r\n")
            key = request.partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0]
            digest = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
            response = (
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                b"Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n"
            ) % base64.b64encode(digest)
            await script(RawConnection(reader, writer, response))
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            assert task is not None
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def raw_frame(payload: bytes, opcode: int = 2, fin: bool = True) -> bytes:
    """Return a WebSocket frame as a server sends it."""
    head = bytes([(0x80 if fin else 0) | opcode])
    size = len(payload)
    if size < 126:
        return head + bytes([size]) + payload
    if size < 1 << 16:
        return head + b"\x7e" + size.to_bytes(2, "big") + payload
    return head + b"\x7f" + size.to_bytes(8, "big") + payload
