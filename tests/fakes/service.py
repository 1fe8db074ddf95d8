"""A service of a pipeline that speaks the real wire, on the independent ``websockets`` library, and
does what its script says: answer, hang, die, send garbage, flood, stop half way.

The script runs for each connection after mediad-start was answered; without one the service is a
good one: STT says what it is told to, LLM repeats the last message word by word, TTS makes a sample
of sound for each character.
"""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Literal, Self

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from mediad.wire import frames, service
from mediad.wire.frames import AudioFrame, Interruption, Text, Transcription
from mediad.wire.service import (
    Done,
    Failure,
    FromMediad,
    FromService,
    Generate,
    Interim,
    Ready,
    Role,
    Start,
    StoppedSpeaking,
    Word,
)

__all__ = [
    "HALF_PCM",
    "FakeService",
    "Fault",
    "Moody",
    "Script",
    "ServiceConnection",
    "answer",
    "pcm_of",
]

RATE_HZ = 8000
FLOOD = "All work and no play. " * 10
HALF_PCM = (6_543).to_bytes(2, "little") * (RATE_HZ // 2)
"""What a TTS says half way: half a second of a level of its own."""


def pcm_of(text: str, rate_hz: int = RATE_HZ) -> bytes:
    """Return what the good TTS says for a text: 10 ms a character, of a level of its own."""
    return b"".join(
        (100 * ord(letter) % 20_000).to_bytes(2, "little") * (rate_hz // 100) for letter in text
    )


class ServiceConnection:
    """One WebSocket, and what came over it."""

    def __init__(self, ws: ServerConnection) -> None:
        self.ws = ws
        self.start: Start | None = None
        self.got: list[FromMediad] = []
        """All that came after mediad-start, audio left out."""
        self.audio: list[bytes] = []
        self.opened_at = time.monotonic()
        self.is_over = False
        self.cancels = True
        """Whether it confirms a cancelling."""
        self._changed = asyncio.Event()

    @property
    def headers(self) -> Any:
        """The headers of the handshake."""
        assert self.ws.request is not None
        return self.ws.request.headers

    def asked(self, kind: type) -> list[Any]:
        """Return the messages of a type."""
        return [message for message in self.got if isinstance(message, kind)]

    def is_cancelled(self, n: int) -> bool:
        """Tell whether nothing more may be said to a request."""
        return any(interruption.id >= n for interruption in self.asked(Interruption))

    async def until(self, condition: Callable[["ServiceConnection"], bool]) -> None:
        """Wait until something is true of what came; or until the end of the connection."""
        async with asyncio.timeout(10):
            await self.wait(condition)

    async def wait(self, condition: Callable[["ServiceConnection"], bool]) -> None:
        """Do the same for ever."""
        while not condition(self) and not self.is_over:
            self._changed.clear()
            await self._changed.wait()

    async def send(self, *messages: FromService | bytes) -> None:
        """Say something, or anything at all."""
        for message in messages:
            await self.ws.send(message if isinstance(message, bytes) else service.encode(message))

    async def cut(self) -> None:
        """End the connection without a word."""
        self.ws.transport.abort()

    async def receive(self) -> None:
        """Take messages until the connection ends."""
        with contextlib.suppress(ConnectionClosed):
            async for data in self.ws:
                assert isinstance(data, bytes)
                message = service.from_mediad(data)
                assert message is not None
                assert not isinstance(message, service.Malformed), message
                if isinstance(message, AudioFrame):
                    self.audio.append(message.audio)
                else:
                    self.got.append(message)
                if isinstance(message, Interruption) and self.cancels:
                    await self.send(Done(message.id, "cancelled"))
                self._changed.set()
        self.is_over = True
        self._changed.set()


Script = Callable[[ServiceConnection], Awaitable[None]]


async def requests(connection: ServiceConnection) -> AsyncIterator[FromMediad]:
    """Return what it is asked for, as it comes."""
    at = 0

    def has_more(connection: ServiceConnection) -> bool:
        return len(connection.got) > at

    while not connection.is_over:
        await connection.wait(has_more)
        for message in connection.got[at:]:
            at += 1
            yield message


async def answer(connection: ServiceConnection) -> None:
    """Do what a good service of the role does, from the first request on that is not cancelled."""
    async for request in requests(connection):
        await _answer(connection, request)


async def _answer(connection: ServiceConnection, request: FromMediad) -> None:
    match request:
        case StoppedSpeaking(n) if n is not None:
            await connection.send(Transcription(f"turn {n}", "", ""), Done(n))
        case Generate(n, messages) if not connection.is_cancelled(n):
            words = str(messages[-1]["content"]).split(" ")
            deltas = [words[0], *(f" {word}" for word in words[1:])]
            await connection.send(*(Text(n, delta) for delta in deltas))
            await connection.send(Done(n, usage={"completion_tokens": len(words)}))
        case Text(n, text) if not connection.is_cancelled(n):
            speech = AudioFrame(pcm_of(text), RATE_HZ, 1)
            await connection.send(speech, Word(n, text, 0), Done(n))


Fault = Literal["hang", "die", "garbage", "flood", "half", "empty", "unplayable"]


class Moody:
    """A script: a good service while it has no fault, which else it shows at every request; one
    that hears, at the next.
    """

    fault: Fault | None = None

    async def __call__(self, connection: ServiceConnection) -> None:
        """Serve a connection."""
        async for request in requests(connection):
            fault = self.fault
            if fault is None:
                await _answer(connection, request)
            elif isinstance(request, StoppedSpeaking | Generate | Text):
                if isinstance(request, StoppedSpeaking):  # which is never asked again
                    self.fault = None
                await _fail(connection, request, fault)


async def _fail(
    connection: ServiceConnection, request: StoppedSpeaking | Generate | Text, fault: Fault
) -> None:
    match fault:
        case "hang":  # it confirms a cancelling all the same, as one does that waits for another
            pass
        case "die":
            await connection.cut()
        case "garbage":
            nonsense = frames.encode_json(
                '{"label":"rtvi-ai","type":"mediad-done","data":{"n":{}}}'
            )
            for _ in range(20):
                await connection.send(b"\xff" * 9, nonsense)
        case "flood":  # and it does not stop when it is told to
            connection.cancels = False
            part = Text(request.n, FLOOD) if isinstance(request, Generate) else _half(request)
            while not connection.is_over:
                await connection.send(part)
                await asyncio.sleep(0)
        case "empty" if (n := request.id if isinstance(request, Text) else request.n) is not None:
            await connection.send(Done(n))
        case "unplayable":
            await connection.send(AudioFrame(HALF_PCM, 12_345, 1))
            await _fail(connection, request, "empty")
        case "half":
            await connection.send(_half(request))
            if isinstance(request, StoppedSpeaking):  # if it only hung, the half would be answered
                await connection.cut()


def _half(request: StoppedSpeaking | Generate | Text) -> FromService:
    match request:
        case Generate(n):
            return Text(n, "Half is said. And then ")
        case Text():
            return AudioFrame(HALF_PCM, RATE_HZ, 1)
        case _:
            return Interim("well")


class FakeService:
    """A WebSocket server.

    Args:
        role: Which of the three.
        script: Runs for each connection, beside the receiving; the connection stays open after it.
        scripts: Those of the first connections; ``script`` is for those after them.
        refuses: HTTP statuses for the first handshakes.
        is_ready: Whether it answers mediad-start.
        hangs: Whether it leaves handshakes unanswered.
    """

    def __init__(
        self,
        role: Role,
        script: Script = answer,
        *,
        scripts: tuple[Script, ...] = (),
        refuses: tuple[int, ...] = (),
        is_ready: bool = True,
        hangs: bool = False,
        ready: Ready | Failure | None = None,
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.role = role
        self.connections: list[ServiceConnection] = []
        self.handshakes = 0
        self._script = script
        self._scripts = list(scripts)
        self._refuses = list(refuses)
        self._is_ready = is_ready
        self._hangs = hangs
        self._ready = ready or Ready(RATE_HZ)
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
            max_size=frames.MAX_MESSAGE_SIZE,
            ping_interval=None,
            open_timeout=2 if self._hangs else 10,
            close_timeout=10,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self.end()
        assert self._server is not None
        await self._server.wait_closed()

    def end(self) -> None:
        """Die: cut every connection and listen no more."""
        assert self._server is not None
        for connection in self.connections:
            connection.ws.transport.abort()
        self._server.close()

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None
        return int(next(iter(self._server.sockets)).getsockname()[1])

    @property
    def url(self) -> str:
        """Its address."""
        return f"{'wss' if self._tls else 'ws'}://127.0.0.1:{self.port}"

    def asked(self, kind: type) -> list[Any]:
        """Return the messages of a type over all connections."""
        return [message for connection in self.connections for message in connection.asked(kind)]

    async def connection(self, number: int = 0) -> ServiceConnection:
        """Wait for the connection of this number."""
        async with asyncio.timeout(10):
            while len(self.connections) <= number:
                self._changed.clear()
                await self._changed.wait()
        return self.connections[number]

    async def _process_request(self, ws: ServerConnection, request: Request) -> Response | None:
        self.handshakes += 1
        if self._hangs:
            await asyncio.sleep(60)
        return ws.respond(self._refuses.pop(0), "no\n") if self._refuses else None

    async def _handle(self, ws: ServerConnection) -> None:
        connection = ServiceConnection(ws)
        script = self._scripts.pop(0) if self._scripts else self._script
        with contextlib.suppress(ConnectionClosed):
            data = await ws.recv()
            assert isinstance(data, bytes)
            start = service.from_mediad(data)
            assert isinstance(start, Start), start
            assert start.role == self.role
            connection.start = start
            self.connections.append(connection)
            self._changed.set()
            if self._is_ready:
                await connection.send(self._ready)
            async with asyncio.TaskGroup() as group:
                group.create_task(connection.receive())
                if self._is_ready:
                    with contextlib.suppress(ConnectionClosed):
                        await script(connection)
                await ws.wait_closed()
