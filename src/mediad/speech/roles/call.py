"""One call of a service: start, ready, requests answered in their order, cancellation.

What a service does with a request is its `Handler`'s; this is what all of them share.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Protocol

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from mediad import blot
from mediad.wire import frames, service
from mediad.wire.service import Done, Failure, Generate, Ready, Role, Start, StoppedSpeaking, Voice

__all__ = ["Answer", "Handler", "OpenHandler", "Refused", "Request", "Send", "serve_call"]

logger = logging.getLogger(__name__)

MAX_REQUESTS = 256
"""How many requests may wait; one more closes the connection."""

_START_S = 10.0
_STOP_S = 0.3  # for a cancelled answer to clean up; mediad waits 0.5 s for the done
_POLICY_VIOLATION = 1008

Request = StoppedSpeaking | Generate | frames.Text
Answer = AsyncGenerator[service.FromService, None]
Send = Callable[[service.FromService], Awaitable[None]]


class Refused(Exception):
    """A request cannot be answered; the peer gets a `Failure` and a `Done`.

    The message may be a provider's, which knows our key for it: that is blotted out.
    """

    def __init__(self, code: str, message: str, *, retry: bool = False) -> None:
        super().__init__(blot.blot(message))
        self.code = code
        self.retry = retry


class Handler(Protocol):
    """What one call of a service does."""

    sample_rate: int
    """What `Ready` announces, in Hz; 0 when the service has no audio."""

    def take(self, message: frames.AudioFrame | Voice) -> None:
        """Take what needs no answer."""

    def ask(self, request: Request) -> Answer:
        """Return what answers a request, its done included unless that says nothing but stop.

        It is called when the request comes, and its result is read when those before it are done.
        """


_REQUEST_OF: dict[Role, type[Request]] = {
    "stt": StoppedSpeaking,
    "llm": Generate,
    "tts": frames.Text,
}

OpenHandler = Callable[[Start, Send], AbstractAsyncContextManager[Handler]]
"""Begins a call. What belongs to no request, such as interim transcripts, goes to ``Send``.

Raises:
    Refused: If the service cannot take this call.
"""


async def serve_call(websocket: ServerConnection, role: Role, open_handler: OpenHandler) -> None:
    """Serve one connection to its end."""

    async def send(message: service.FromService) -> None:
        await websocket.send(service.encode(message))

    try:
        start = await _start(websocket)
        if start is None or start.role != role:
            await send(
                Failure(None, "bad_start", f"this service wants a {role} start first", False)
            )
            await websocket.close(_POLICY_VIOLATION, "bad start")
            return
        async with open_handler(start, send) as handler:
            await send(Ready(handler.sample_rate))
            await _Call(websocket, role, handler, send).run()
    except Refused as exc:
        await send(Failure(None, exc.code, str(exc), exc.retry))
    except ConnectionClosed:
        pass


async def _start(websocket: ServerConnection) -> Start | None:
    try:
        async with asyncio.timeout(_START_S):
            message = await websocket.recv()
    except TimeoutError:
        return None
    read = service.from_mediad(message) if isinstance(message, bytes) else None
    return read if isinstance(read, Start) else None


class _Call:
    """The requests of one connection. One is answered at a time."""

    def __init__(
        self, websocket: ServerConnection, role: Role, handler: Handler, send: Send
    ) -> None:
        self._websocket = websocket
        self._request_type = _REQUEST_OF[role]
        self._handler = handler
        self._send = send
        self._waiting: asyncio.Queue[tuple[int, Answer]] = asyncio.Queue(MAX_REQUESTS)
        self._last = 0  # the n of the newest request
        self._cancelled = 0  # all up to this n
        self._answering: tuple[int, asyncio.Task[None]] | None = None

    async def run(self) -> None:
        """Read until the peer closes."""
        worker = asyncio.create_task(self._answer_all())
        try:
            async for message in self._websocket:
                if isinstance(message, bytes):
                    await self._receive(service.from_mediad(message))
        finally:
            await self._cancel(self._last)  # first, so that nobody reads the answer being closed
            worker.cancel()
            await asyncio.gather(worker, return_exceptions=True)

    async def _receive(self, message: service.FromMediad | service.Malformed | None) -> None:
        match message:
            case StoppedSpeaking(int(n)) | Generate(n) | frames.Text(n) if isinstance(
                message, self._request_type
            ):
                await self._enqueue(n, message)
            case frames.Interruption(n):
                await self._cancel(n)
                await self._send(Done(n, "cancelled"))
            case frames.AudioFrame() | Voice():
                self._handler.take(message)
            case service.Malformed(reason, detail):
                logger.info("a message was ignored (%s): %s", reason, detail)

    async def _enqueue(self, n: int, request: Request) -> None:
        if n <= self._last:
            await self._send(Failure(None, "bad_n", f"n {n} comes after {self._last}", False))
        elif self._waiting.full():
            await self._websocket.close(_POLICY_VIOLATION, "too many requests")
        else:
            self._last = n
            self._waiting.put_nowait((n, self._handler.ask(request)))

    async def _cancel(self, n: int) -> None:
        """Stop answering n and all before it."""
        self._cancelled = max(self._cancelled, min(n, self._last))
        if self._answering and self._answering[0] <= n:
            task = self._answering[1]
            task.cancel()
            await asyncio.wait([task], timeout=_STOP_S)

    async def _answer_all(self) -> None:
        while True:
            n, answer = await self._waiting.get()
            if n > self._cancelled:
                task = asyncio.create_task(self._answer(n, answer))
                self._answering = n, task
                await asyncio.wait([task])
                self._answering = None

    async def _answer(self, n: int, answer: Answer) -> None:
        try:
            async with aclosing(answer):
                done = await self._pass_on(n, answer)
            if not done:
                await self._say(n, Done(n))
        except Refused as exc:
            await self._fail(n, exc)
        except ConnectionClosed:
            pass
        except Exception:
            logger.exception("request %d failed", n)
            await self._fail(n, Refused("internal", "the service failed; its log says why"))

    async def _pass_on(self, n: int, answer: Answer) -> bool:
        """Send an answer; tell whether there was a done in it, or none is wanted."""
        async for message in answer:
            if not await self._say(n, message) or isinstance(message, Done):
                return True
        return False

    async def _fail(self, n: int, why: Refused) -> None:
        try:
            await self._say(n, Failure(n, why.code, str(why), why.retry))
            await self._say(n, Done(n, "error"))
        except ConnectionClosed:
            pass

    async def _say(self, n: int, message: service.FromService) -> bool:
        """Send a part of the answer to n, unless n was cancelled: a handler may be slow to stop."""
        if n <= self._cancelled:
            return False
        await self._send(message)
        return True
