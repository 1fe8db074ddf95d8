"""One call of a service, whatever its handler does."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

from mediad.blot import MASK
from mediad.speech.roles import call
from mediad.speech.roles.call import Answer, Refused, Request, Send, serve_call
from mediad.speech.roles.choice import api_key_of
from mediad.wire import service
from mediad.wire.frames import AudioFrame, Interruption, Text
from mediad.wire.service import Done, Failure, FromMediad, FromService, Ready, Start, Voice
from tests.own_stalls import no_longer_than

_AUDIO = AudioFrame(b"\0\0", 8000, 1)


class _Handler:
    """Does what the text of a request says."""

    sample_rate = 8000

    def take(self, message: AudioFrame | Voice) -> None:
        """There is nothing to take."""

    def ask(self, request: Request) -> Answer:
        assert isinstance(request, Text)
        return self._answer(request.text)

    async def _answer(self, text: str) -> Answer:
        yield _AUDIO
        match text:
            case "fail":
                raise RuntimeError("a bug")
            case "refuse":
                raise Refused("busy", "later", retry=True)
            case "wait":
                await asyncio.sleep(60)
            case "be slow to stop":
                try:
                    await asyncio.sleep(60)
                finally:
                    await asyncio.sleep(0.5)
            case "do not stop":
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    await asyncio.sleep(0.5)
                    yield _AUDIO


class _Peer:
    def __init__(self, websocket: ClientConnection) -> None:
        self.websocket = websocket

    async def send(self, *messages: FromMediad) -> None:
        for message in messages:
            await self.websocket.send(service.encode(message))

    async def receive(self, count: int) -> list[FromService | service.Malformed | None]:
        async with asyncio.timeout(10):
            raw = [await self.websocket.recv() for _ in range(count)]
        return [service.from_service(m) for m in raw if isinstance(m, bytes)]


@asynccontextmanager
async def started(start: Start | None = None) -> AsyncIterator[_Peer]:
    @asynccontextmanager
    async def open_handler(start: Start, _: Send) -> AsyncGenerator[_Handler]:
        if start.voice == "nobody":
            raise Refused("no_voice", "there is no such voice")
        yield _Handler()

    serve_one = partial(serve_call, role="tts", open_handler=open_handler)
    async with serve(serve_one, "127.0.0.1", 0, compression=None, close_timeout=1) as server:
        port = server.sockets[0].getsockname()[1]
        async with connect(f"ws://127.0.0.1:{port}", compression=None) as websocket:
            peer = _Peer(websocket)
            await peer.send(start or Start("tts", "a-call"))
            if start is None:
                assert await peer.receive(1) == [Ready(8000)]
            yield peer


async def test_a_bug_costs_one_answer_only() -> None:
    async with started() as peer:
        await peer.send(Text(1, "fail"), Text(2, ""))
        audio, failure, done, *second = await peer.receive(5)
        assert audio == _AUDIO
        assert isinstance(failure, Failure)
        assert (failure.n, failure.code) == (1, "internal")
        assert done == Done(1, "error")
        assert second == [_AUDIO, Done(2)]


def test_what_a_provider_says_goes_on_without_our_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-s3sam3-0123456789")
    key = api_key_of("openai")
    assert str(Refused("http_401", f"wrong key {key}")) == f"wrong key {MASK}"


async def test_what_is_refused_says_whether_to_try_again() -> None:
    async with started() as peer:
        await peer.send(Text(1, "refuse"))
        expected = [_AUDIO, Failure(1, "busy", "later", True), Done(1, "error")]
        assert await peer.receive(3) == expected


async def test_a_call_that_is_refused_is_closed() -> None:
    async with started(Start("tts", "a-call", voice="nobody")) as peer:
        refused = Failure(None, "no_voice", "there is no such voice", False)
        assert await peer.receive(1) == [refused]
        async with asyncio.timeout(10):
            await peer.websocket.wait_closed()


async def test_cancelling_spares_what_comes_after() -> None:
    async with started() as peer:
        await peer.send(Text(1, "wait"), Text(2, "wait"), Text(3, ""))
        assert await peer.receive(1) == [_AUDIO]
        await peer.send(Interruption(2))
        assert await peer.receive(3) == [Done(2, "cancelled"), _AUDIO, Done(3)]


async def test_who_is_slow_to_stop_does_not_hold_the_done_back() -> None:
    async with started() as peer:
        for n, text in ((1, "be slow to stop"), (3, "do not stop")):
            await peer.send(Text(n, text))
            assert await peer.receive(1) == [_AUDIO]
            async with no_longer_than(0.45):
                await peer.send(Interruption(n), Text(n + 1, ""))
                assert await peer.receive(1) == [Done(n, "cancelled")]
            assert await peer.receive(2) == [_AUDIO, Done(n + 1)]


async def test_cancelling_what_was_never_asked_spares_what_will_be() -> None:
    async with started() as peer:
        await peer.send(Interruption(1000), Text(5, ""))
        assert await peer.receive(3) == [Done(1000, "cancelled"), _AUDIO, Done(5)]


async def test_requests_without_end_close_the_call() -> None:
    async with started() as peer:
        try:
            for n in range(1, call.MAX_REQUESTS + 10):
                await peer.send(Text(n, "wait"))
        except ConnectionClosed:
            pass
        async with asyncio.timeout(10):
            await peer.websocket.wait_closed()
        assert peer.websocket.close_code == 1008
