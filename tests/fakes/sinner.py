"""A service that keeps the protocol but for one thing, which its `sin` names; some are none, but
what a busy machine does.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from mediad.wire import frames, service
from mediad.wire.frames import AudioFrame, Interruption, Text
from mediad.wire.service import (
    Done,
    FromService,
    Generate,
    Interim,
    Malformed,
    Ready,
    Start,
    StoppedSpeaking,
    Word,
)

__all__ = ["run_sinner"]

_RATE_HZ = 16_000
_FRAME = AudioFrame(bytes(640), _RATE_HZ, 1)
_FRAMES = 3
_FRAME_S = 0.02
_LONG_FRAMES = 100

_CALLS = {
    "calls the tool": ("hang_up", "{}"),  # which is right
    "makes a tool up": ("order_pizza", "{}"),
    "arguments are no JSON": ("hang_up", "now!"),
}
"""What is called where a tool is offered, with what arguments."""


@asynccontextmanager
async def run_sinner(sin: str) -> AsyncIterator[str]:
    """Serve any role with one sin; give the URL."""
    open_now: set[ServerConnection] = set()
    stood_still: set[str] = set()

    async def serve_one(websocket: ServerConnection) -> None:
        if sin == "one call" and open_now:
            await websocket.close(1013)
            return
        open_now.add(websocket)
        try:
            with contextlib.suppress(ConnectionClosed):
                await _Connection(websocket, sin, stood_still).run()
        finally:
            open_now.discard(websocket)

    async with serve(serve_one, "127.0.0.1", 0, compression=None) as server:
        port = server.sockets[0].getsockname()[1]
        yield f"ws://127.0.0.1:{port}"


class _Connection:
    def __init__(self, websocket: ServerConnection, sin: str, stood_still: set[str]) -> None:
        self._websocket = websocket
        self._sin = sin
        self._stood_still = stood_still
        self._answered = 0
        self._heard = False
        self._tasks: dict[int, asyncio.Task[None]] = {}

    async def run(self) -> None:
        start = service.from_mediad(await self._receive())
        assert isinstance(start, Start)
        if self._sin == "never ready":
            await self._websocket.wait_closed()
        if self._sin == "ready late":
            await asyncio.sleep(2.2)
        await self._stand_still("start", 2.2)
        rate_hz = 0 if start.role == "llm" else 12_345 if self._sin == "odd rate" else _RATE_HZ
        await self._send(Ready(rate_hz, 2 if self._sin == "protocol 2" else 1))
        if self._sin == "text":
            await self._websocket.send("hello")
        if self._sin == "fields missing":
            await self._websocket.send(
                frames.encode_json('{"label": "rtvi-ai", "type": "mediad-done", "data": {}}')
            )
        try:
            while True:
                raw = await self._receive()
                await self._take(raw, service.from_mediad(raw))
        finally:
            for task in self._tasks.values():
                task.cancel()

    async def _stand_still(self, where: str, seconds: float) -> None:
        """Do nothing for a while, once at each place."""
        if self._sin == "stands still" and where not in self._stood_still:
            self._stood_still.add(where)
            await asyncio.sleep(seconds)

    async def _receive(self) -> bytes:
        message = await self._websocket.recv()
        assert isinstance(message, bytes)
        return message

    async def _send(self, message: FromService) -> None:
        await self._websocket.send(service.encode(message))

    async def _take(self, raw: bytes, message: service.FromMediad | Malformed | None) -> None:
        match message:
            case None if self._sin == "dies of the unknown" and raw:
                await self._websocket.close(1003)
            case Malformed() if self._sin == "dies of garbage":
                await self._websocket.close(1007)
            case AudioFrame():
                self._heard = True
            case StoppedSpeaking(int(n)) | Generate(n) | Text(n):
                self._begin(n, message)
            case Interruption(n):
                await self._interrupt(n)

    def _begin(self, n: int, request: StoppedSpeaking | Generate | Text) -> None:
        busy = [task for task in self._tasks.values() if not task.done()]
        if self._sin == "drops what waits" and busy:
            return
        before = [] if self._sin == "all at once" else busy
        self._tasks[n] = asyncio.create_task(self._answer(n, request, before))

    async def _interrupt(self, n: int) -> None:
        if self._sin == "never cancels":
            return
        if self._sin == "words on their way":
            await asyncio.sleep(0.1)
        await self._stand_still("cancel", 1.0)
        if self._sin == "cancels what is not done" and self._tasks[n].done():
            return
        for asked, task in self._tasks.items():
            if asked <= n and self._sin != "goes on":
                task.cancel()
        if self._sin == "cancels late":
            await asyncio.sleep(0.7)
        await self._send(Done(n, "stop" if self._sin == "gives no reason" else "cancelled"))

    async def _answer(
        self,
        n: int,
        request: StoppedSpeaking | Generate | Text,
        before: list[asyncio.Task[None]],
    ) -> None:
        with contextlib.suppress(ConnectionClosed):
            if before:
                await asyncio.wait(before)
            if self._sin == "one turn" and self._answered:
                await self._websocket.close(1000)
            self._answered += 1
            if isinstance(request, Generate) and request.tools and self._sin in _CALLS:
                await self._call_tool(n)
                return
            await self._content(n, request)
            await self._done(n)

    async def _call_tool(self, n: int) -> None:
        name, arguments = _CALLS[self._sin]
        function = {"name": name, "arguments": arguments}
        call = {"id": f"call_{n}", "type": "function", "function": function}
        await self._send(Done(n, "tool_calls", {}, [call]))

    async def _content(self, n: int, request: StoppedSpeaking | Generate | Text) -> None:
        match request:
            case Generate(_, messages):
                long = "hundred" in str(messages)
                for _ in range(_LONG_FRAMES if long else _FRAMES):
                    await self._send(Text(n, "word "))
                    await asyncio.sleep(_FRAME_S)
            case Text(_, text):
                await self._speak(n, text)
            case StoppedSpeaking():
                await self._send(Interim("so far"))

    async def _speak(self, n: int, text: str) -> None:
        if self._sin == "says nothing" or text == "…":
            return
        if self._sin == "all at once":
            await asyncio.sleep(0.1 / n)
        if self._sin == "words of another":
            await self._send(Word(n + 1, "word", 0))
        if self._sin == "words beyond the end":
            await self._send(Word(n, "word", 60_000))
        if self._sin == "words that fall":
            await self._send(Word(n, "one", 20))
            await self._send(Word(n, "two", 10))
        if self._sin == "too large":
            await self._send(AudioFrame(bytes(frames.MAX_MESSAGE_SIZE), _RATE_HZ, 1))
        for frame in range(_LONG_FRAMES if len(text) > 100 else _FRAMES):
            if self._sin == "words on their way":
                await self._send(Word(n, "word", 20 * frame))
            rate_hz = 24_000 if self._sin == "another rate" else _RATE_HZ
            channels = 2 if self._sin == "stereo" else 1
            await self._send(AudioFrame(_FRAME.audio, rate_hz, channels))
            await asyncio.sleep(_FRAME_S)

    async def _done(self, n: int) -> None:
        if self._sin == "no done" or (self._sin == "no word, no done" and not self._heard):
            return
        counted = self._answered if self._sin == "counts by itself" else n
        await self._send(Done(counted))
        if self._sin == "done twice":
            await self._send(Done(n))
        if self._sin == "audio after the done":
            await self._send(_FRAME)
