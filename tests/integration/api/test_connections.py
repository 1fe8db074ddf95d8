"""Connections to the HTTP port are bounded, and none stays without a request."""

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator

import pytest
from fastapi import FastAPI, WebSocket
from websockets.asyncio.client import connect

from mediad.api import connections as module
from mediad.api.http import HttpServer
from mediad.config import Http
from mediad.metrics import Metrics

REQUEST_S = 0.3
REQUEST = b"GET /%b HTTP/1.1\r\nHost: mediad\r\n\r\n"


class Server:
    """A server whose requests take their time."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        app = FastAPI()
        app.add_api_route("/slow", self._answer)
        app.add_api_websocket_route("/ws", self._talk)
        self.http = HttpServer(Http(port=0), app, self.metrics)
        self.address = ("", 0)

    async def _answer(self) -> str:
        await asyncio.sleep(2 * REQUEST_S)
        return "done"

    async def _talk(self, websocket: WebSocket) -> None:
        await websocket.accept()
        await asyncio.sleep(2 * REQUEST_S)
        await websocket.send_text("done")

    async def connect(self, *pieces: bytes) -> tuple[StreamReader, StreamWriter]:
        """Connect and send something, piece by piece."""
        reader, writer = await asyncio.open_connection(*self.address)
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0.05)
        return reader, writer

    def closed(self, reason: str) -> float:
        """Return how many connections were closed for a reason."""
        name = "mediad_http_connections_closed_total"
        return self.metrics.registry.get_sample_value(name, {"reason": reason}) or 0.0


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    """A server that is in a hurry."""
    monkeypatch.setattr(module, "_REQUEST_S", REQUEST_S)
    server = Server()
    server.address = await server.http.start()
    yield server
    await server.http.stop()


async def ended(reader: StreamReader, timeout_s: float) -> bytes:
    """Wait for a connection's end; return what came before it."""
    async with asyncio.timeout(timeout_s):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""


@pytest.mark.parametrize(
    "pieces",
    [
        (),
        (b"GET / HTTP/1.1\r\nHost: me",),
        (REQUEST % b"", b"GET /"),  # after an answer
        (b"POST / HTTP/1.1\r\nHost: mediad\r\nContent-Length: 9\r\n\r\n", b"x"),
    ],
    ids=["silent", "half a request", "half a second one", "more of an answered one's body"],
)
async def test_without_a_request_a_connection_is_closed(
    server: Server, pieces: tuple[bytes, ...]
) -> None:
    reader, writer = await server.connect(*pieces)
    await ended(reader, 2.0)
    assert server.closed("no_request") == 1
    writer.close()


async def test_bytes_that_dribble_keep_no_connection(server: Server) -> None:
    reader, writer = await server.connect()
    end = asyncio.create_task(ended(reader, 2.0))
    while not end.done():  # noqa: ASYNC110
        writer.write(b"G")
        await asyncio.sleep(0.02)
    await end
    assert server.closed("no_request") == 1
    writer.close()


async def test_a_request_may_take_its_time(server: Server) -> None:
    reader, writer = await server.connect(REQUEST % b"slow")
    for _ in range(2):
        async with asyncio.timeout(5):
            await reader.readuntil(b'"done"')
        writer.write(REQUEST % b"slow")
    async with connect("ws://{}:{}/ws".format(*server.address)) as websocket:
        assert await websocket.recv() == "done"
    assert server.closed("no_request") == 0
    writer.close()


async def test_connections_are_bounded(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CONNECTIONS", 3)
    taken = [await server.connect() for _ in range(3)]
    for _ in range(2):
        reader, writer = await server.connect()
        assert await ended(reader, REQUEST_S / 2) == b""
        writer.close()
    assert (server.closed("max_connections"), server.closed("no_request")) == (2, 0)
    for reader, writer in taken:  # when these are gone there is room
        await ended(reader, 2.0)
        writer.close()
    reader, writer = await server.connect(REQUEST % b"")
    async with asyncio.timeout(2):
        assert await reader.readline() == b"HTTP/1.1 404 Not Found\r\n"
    writer.close()
