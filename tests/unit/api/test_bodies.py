"""Bodies of requests: whole, in time and within bounds, or nothing is run."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from mediad.api import bodies
from mediad.api.bodies import MAX_BODY_BYTES, BodyLimit

PLAY = "/v1/calls/4a4fb2d4/play"


class App:
    """Takes bodies; when it is told to, holds on to its requests."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.goes_on = asyncio.Event()
        self.goes_on.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        assert not message.get("more_body", False)
        self.bodies.append(message.get("body", b""))
        await self.goes_on.wait()
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})


class Request:
    """A request whose body comes as a test wants it."""

    def __init__(self, limit: BodyLimit, path: str, method: str, length: int | None) -> None:
        name, value = (b"content-length", b"%d" % (length or 0))
        if length is None:
            name, value = (b"transfer-encoding", b"chunked")
        scope = {"type": "http", "path": path, "method": method, "headers": [(name, value)]}
        self._coming: asyncio.Queue[Message] = asyncio.Queue()
        self._sent: list[Message] = []
        self.task = asyncio.create_task(self._run(limit(scope, self._coming.get, self._send)))

    async def _run(self, work: Awaitable[None]) -> None:
        async with asyncio.timeout(10):
            await work

    async def _send(self, message: Message) -> None:
        self._sent.append(message)

    def send(self, body: bytes, more: bool = False) -> None:
        """Let something of the body come."""
        self._coming.put_nowait({"type": "http.request", "body": body, "more_body": more})

    def go_away(self) -> None:
        """Let the client be gone."""
        self._coming.put_nowait({"type": "http.disconnect"})

    async def answer(self) -> tuple[int | None, Any]:
        """Return status and body once it is over; None if there was no answer."""
        await self.task
        if not self._sent:
            return None, None
        body = self._sent[1]["body"]
        return self._sent[0]["status"], json.loads(body)["error"]["reason"] if body else None

    def header(self, name: str) -> str | None:
        """Return a header of the answer."""
        headers: list[tuple[bytes, bytes]] = self._sent[0]["headers"]
        return dict(headers).get(name.encode(), b"").decode() or None


Ask = Callable[..., Request]


@pytest.fixture
async def app() -> App:
    return App()


@pytest.fixture
async def ask(app: App) -> Ask:
    limit = BodyLimit(app)

    def ask(path: str = "/v1/flows", method: str = "POST", length: int | None = None) -> Request:
        return Request(limit, path, method, length)

    return ask


async def test_a_body_in_pieces_comes_whole(app: App, ask: Ask) -> None:
    request = ask()
    for piece in (b"a", b"", b"bc"):
        request.send(piece, more=True)
    request.send(b"")
    assert await request.answer() == (204, None)
    assert app.bodies == [b"abc"]


@pytest.mark.parametrize("length", [None, 4])
async def test_of_a_body_that_breaks_off_nothing_is_run(
    app: App, ask: Ask, length: int | None
) -> None:
    request = ask(length=length)
    request.send(b"{}", more=True)
    request.go_away()
    assert await request.answer() == (None, None)
    assert app.bodies == []


@pytest.mark.parametrize(
    ("path", "method", "limit"),
    [
        ("/v1/flows", "POST", MAX_BODY_BYTES),
        ("/v1/agents/play", "PATCH", MAX_BODY_BYTES),
        ("/v1/calls/x/play", "PATCH", MAX_BODY_BYTES),
        ("/v1/calls/x/y/play", "POST", MAX_BODY_BYTES),
        (PLAY, "POST", 2 << 20),
    ],
)
async def test_a_body_has_a_largest_size(
    app: App, ask: Ask, path: str, method: str, limit: int
) -> None:
    for length in (None, limit):
        request = ask(path, method, length)
        request.send(bytes(limit))
        assert await request.answer() == (204, None)
    request = ask(path, method, limit + 1)  # before anything of it came
    assert await request.answer() == (413, "too_large")
    request = ask(path, method)
    request.send(bytes(limit), more=True)
    request.send(b"x", more=True)
    assert await request.answer() == (413, "too_large")
    assert [len(body) for body in app.bodies] == [limit, limit]


async def test_a_slow_body_is_given_up(app: App, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "MAX_BODY_S", 0.05)
    request = ask()
    request.send(b"x", more=True)
    assert await request.answer() == (408, "slow_body")
    assert request.header("connection") == "close"
    app.goes_on.clear()
    request = ask()
    request.send(b"x")
    await asyncio.sleep(0.1)  # what is done with it may take longer
    app.goes_on.set()
    assert await request.answer() == (204, None)


async def test_a_dialplan_gets_the_reason_in_a_header(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "MAX_BODY_S", 0.05)
    slow, large = ask("/v1/dialplan/calls"), ask("/v1/dialplan/calls", length=MAX_BODY_BYTES + 1)
    for request, reason in ((slow, "slow_body"), (large, "too_large")):
        assert await request.answer() == (200, None)
        assert request.header("x-mediad-reason") == reason


async def test_all_bodies_together_are_bounded(
    app: App, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "MAX_HELD_BYTES", 100)
    app.goes_on.clear()
    running, coming = ask(), ask()
    running.send(bytes(60))
    coming.send(bytes(30), more=True)
    while not app.bodies:  # noqa: ASYNC110
        await asyncio.sleep(0)
    refused = ask()
    refused.send(bytes(20))
    assert await refused.answer() == (503, "busy")
    assert refused.header("retry-after") == "1"
    coming.go_away()
    assert await coming.answer() == (None, None)
    fits = ask()
    fits.send(bytes(40))
    app.goes_on.set()
    for request in (running, fits):
        assert await request.answer() == (204, None)
    last = ask()
    last.send(bytes(100))
    assert await last.answer() == (204, None)


async def test_of_what_needs_no_key_no_body_is_read() -> None:
    read: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        read.append(receive != request._coming.get)

    request = Request(BodyLimit(app), "/healthz", "POST", MAX_BODY_BYTES + 1)
    assert await request.answer() == (None, None)
    assert read == [False]
