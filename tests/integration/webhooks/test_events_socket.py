"""The events WebSocket, with an independent client: topics, resuming, and who is dropped."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.requests import HTTPConnection
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from mediad.api import access as access_module
from mediad.api import events as events_module
from mediad.api.access import Access
from mediad.api.errors import ApiError
from mediad.api.http import HttpServer
from mediad.bus.bus import Bus
from mediad.bus.events import DEFAULT_CUSTOMER, Event
from mediad.cache.keys import Keys
from mediad.cache.memory import MemoryCache
from mediad.config import Http
from mediad.metrics import Metrics
from mediad.store.audit import Actor
from mediad.store.database import Database
from mediad.store.sessions import Sessions
from tests.facts import CallFacts
from tests.integration.webhooks.receiver import Receiver, add_webhook, happen, running

TOPIC = f"customer_id:{DEFAULT_CUSTOMER}:call:*"
LIVE = f"customer_id:{DEFAULT_CUSTOMER}:live:*"


async def authenticate(connection: HTTPConnection) -> Access:
    """Take ``customer:role`` for a key."""
    key = connection.headers.get("accesskey", "")
    if ":" not in key:
        raise ApiError(401, "unauthorized", "no key")
    customer_id, _, role = key.partition(":")
    return Access(customer_id, "key", role, customer_id, Actor("key"))  # type: ignore[arg-type]


class Client:
    """A reader of events."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def ask(self, type_: str, *topics: str, **more: Any) -> None:
        """Send a message."""
        await self.socket.send(json.dumps({"type": type_, "topics": topics, **more}))

    async def next(self) -> dict[str, Any]:
        """Return the next message."""
        async with asyncio.timeout(5):
            message: dict[str, Any] = json.loads(await self.socket.recv())
        return message

    async def subscribed(self, *topics: str, **more: Any) -> None:
        """Subscribe and wait for the answers."""
        await self.ask("subscribe", *topics, **more)
        for topic in topics:
            assert (await self.next()) | {"id": None} == {
                "type": "subscribed",
                "topic": topic,
                "id": None,
            }

    async def closed(self) -> tuple[int, str]:
        """Wait for the end; return code and reason."""
        async with asyncio.timeout(10):
            try:
                while True:
                    await self.socket.recv()
            except ConnectionClosed as exc:
                return (exc.rcvd.code, exc.rcvd.reason) if exc.rcvd else (1006, "")


class Api:
    """A server with nothing but the WebSocket."""

    def __init__(self, url: str, app: FastAPI, bus: Bus, database: Database) -> None:
        self.url, self.app, self.bus, self.database = url, app, bus, database

    @asynccontextmanager
    async def client(
        self, key: str = f"{DEFAULT_CUSTOMER}:operator", **options: Any
    ) -> AsyncIterator[Client]:
        """Connect while the block runs."""
        async with connect(self.url, additional_headers={"accesskey": key}, **options) as socket:
            yield Client(socket)

    def tell(self, type_: str, call_id: str, **data: Any) -> None:
        """Tell a live event."""
        self.bus.publish(Event(type_, call_id, 0.5, data))


@pytest.fixture
async def api(database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Api]:
    """The server."""
    monkeypatch.setattr(access_module, "authenticate", authenticate)
    monkeypatch.setattr(access_module, "check_still_good", authenticate)
    metrics = Metrics()
    bus = Bus(metrics)
    sessions = Sessions(MemoryCache(Keys("mediad", "test"), metrics, 10_000, 0), bus, metrics)
    following = asyncio.create_task(sessions.run())
    app = FastAPI()
    app.state.services = SimpleNamespace(bus=bus, database=database, sessions=sessions)
    app.include_router(events_module.router, prefix="/v1")
    server = HttpServer(Http(port=0), app, metrics)
    host, port = await server.start()
    try:
        yield Api(f"ws://{host}:{port}/v1/ws", app, bus, database)
    finally:
        await events_module.close_connections(app)
        await server.stop()
        following.cancel()


async def test_events_are_those_of_the_webhook(api: Api, database: Database) -> None:
    call = CallFacts()
    async with Receiver() as receiver, running(database) as rig, api.client() as client:
        await add_webhook(database, receiver.url)
        await client.subscribed(TOPIC)
        told = await happen(database, call.whole(2), api.bus)
        live = [await client.next() for _ in told]
        async with api.client() as other:
            await other.subscribed(TOPIC, after={TOPIC: 0})
            resumed = [await other.next() for _ in told]
        rig.deliverer.look()
        requests = await receiver.received(len(told))
    assert resumed == live
    posted = {request.body["sequence"]: request.body for request in requests}
    assert [message.pop("event") for message in live] == [event.type for event in told]
    assert live == [posted[event.sequence] for event in told if event.sequence]


async def test_resuming_has_no_gap_and_nothing_twice(api: Api, database: Database) -> None:
    await happen(database, [CallFacts().created() for _ in range(450)], api.bus)
    is_over = False

    async def go_on() -> None:
        while not is_over:
            await happen(database, [CallFacts().created() for _ in range(5)], api.bus)
            await asyncio.sleep(0)

    writing = asyncio.create_task(go_on())
    async with api.client() as client:
        await client.subscribed(TOPIC, after={TOPIC: 7})
        seen = [(await client.next())["sequence"] for _ in range(600)]
    is_over = True
    await writing
    assert seen == list(range(8, 608))


async def test_live_events_come_as_they_happen_and_to_whom_they_may(api: Api) -> None:
    async with api.client() as client, api.client(f"{DEFAULT_CUSTOMER}:viewer") as viewer:
        await client.subscribed(LIVE)
        await viewer.subscribed(LIVE)
        api.tell("agent_awaited", "call-1", agent_token="secret")
        api.tell("speaking", "call-1", who="caller", started=True)
        first = await client.next()
        assert (first["event"], first["data"]["agent_token"]) == ("agent_awaited", "secret")
        for reader in (client, viewer):
            message = await reader.next()
            assert (message["event"], message["sequence"]) == ("speaking", None)
            assert message["data"]["call_id"] == "call-1"


async def test_live_events_say_who_the_call_is_between_before_it_has_a_row(api: Api) -> None:
    call = CallFacts()
    api.bus.publish(call.created(source="x" * 300))  # a row has 255 of them
    await asyncio.sleep(0.05)  # it came before the reader
    async with api.client() as client:
        await client.subscribed(LIVE)
        api.tell("speaking", call.call_id, who="caller", started=True)
        api.bus.publish(call.hungup())
        api.tell("speaking", call.call_id, who="caller", started=False)
        told = [await client.next() for _ in range(3)]
    parties = {(message["data"]["source"], message["data"]["destination"]) for message in told}
    assert parties == {("x" * 255, "bob")}


async def test_one_call_only_and_no_longer(api: Api, database: Database) -> None:
    ours, other = CallFacts(), CallFacts()
    topic = f"customer_id:{DEFAULT_CUSTOMER}:call:{ours.call_id}"
    async with api.client() as client:
        await client.subscribed(topic)
        await happen(database, [other.created(), ours.created()], api.bus)
        assert (await client.next())["data"]["id"] == ours.call_id
        await client.ask("unsubscribe", topic, id="7")
        assert await client.next() == {"type": "unsubscribed", "id": "7", "topic": topic}
        await happen(database, [ours.digit()], api.bus)
        await client.ask("unsubscribe", topic)
        assert (await client.next())["error"]["reason"] == "not_subscribed"


async def test_nobody_hears_of_another_customer_but_root(api: Api, database: Database) -> None:
    async with api.client("other:admin") as stranger, api.client("other:root") as root:
        await stranger.ask("subscribe", TOPIC, "customer_id:*:call:*", "nonsense")
        for _ in range(3):
            message = await stranger.next()
            assert (message["type"], message["error"]["reason"]) == ("error", "bad_topic")
        await stranger.subscribed("customer_id:other:call:*")
        await root.subscribed(TOPIC)
        await happen(database, [CallFacts().created()], api.bus)
        assert (await root.next())["data"]["customer_id"] == DEFAULT_CUSTOMER
        await happen(database, [CallFacts(customer_id="other").created()], api.bus)
        assert (await stranger.next())["data"]["customer_id"] == "other"


@pytest.mark.parametrize(
    "text",
    ["", "nothing", "[]", '{"type": "subscribe"}', '{"type": "shout", "topics": []}'],
)
async def test_a_bad_message_gets_an_error(api: Api, text: str) -> None:
    async with api.client() as client:
        await client.socket.send(text)
        assert (await client.next())["error"]["reason"] == "bad_message"
        await client.subscribed(TOPIC)


async def test_live_topics_have_nothing_to_resume(api: Api) -> None:
    async with api.client() as client:
        await client.ask("subscribe", LIVE, after={LIVE: 3})
        assert (await client.next())["error"]["reason"] == "bad_after"


async def test_without_a_key_the_handshake_is_refused(api: Api) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with api.client("nobody"):
            pass
    assert refused.value.response.status_code == 401
    assert b"unauthorized" in (refused.value.response.body or b"")


async def test_topics_and_messages_have_limits(api: Api) -> None:
    async with api.client() as client:
        topics = [f"customer_id:{DEFAULT_CUSTOMER}:call:{number}" for number in range(51)]
        await client.ask("subscribe", *topics)
        answers = [await client.next() for _ in topics]
        assert [answer["type"] for answer in answers] == ["subscribed"] * 50 + ["error"]
        await client.socket.send("x" * 20_000)
        assert (await client.closed())[0] == 1009
    async with api.client() as client:
        await client.socket.send(b"bytes")
        assert (await client.closed())[0] == 1003


async def test_who_does_not_read_is_dropped(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "_SEND_S", 0.3)
    async with api.client(max_queue=1, compression=None) as client:
        await client.subscribed(LIVE)
        for _ in range(60):
            for _ in range(20):
                api.tell("transcript_interim", "call-1", text="x" * 20_000)
            await asyncio.sleep(0.02)
        code, reason = await client.closed()
    assert (code, reason[:8]) == (1013, "too slow")
    assert not api.app.state.event_connections


async def test_connections_close_when_mediad_stops(api: Api) -> None:
    async with api.client() as client:
        await client.subscribed(TOPIC)
        await events_module.close_connections(api.app)
        assert await client.closed() == (1001, "mediad stops")
