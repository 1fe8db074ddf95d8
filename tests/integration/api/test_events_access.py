"""Who reads events is asked for the key again and again: one that is good no longer ends it."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from mediad.api import access, events
from mediad.errors import DatabaseUnavailable
from tests.integration.api.calls_client import Telephony, open_telephony
from tests.integration.daemon import settings


@pytest.fixture
async def telephony(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Telephony]:
    """A mediad that looks at keys often."""
    monkeypatch.setattr(events, "_CHECK_S", 0.05)
    async with open_telephony(settings("ws://127.0.0.1:9")) as telephony:
        yield telephony


def reader(telephony: Telephony, key: str) -> connect:
    """Return a connection, still to be entered."""
    url = f"{telephony.url.replace('http', 'ws', 1)}/v1/ws"
    return connect(url, additional_headers={"AccessKey": key})


async def answer(socket: ClientConnection, topic: str, **more: object) -> str:
    """Subscribe; return the type of the answer."""
    await socket.send(json.dumps({"type": "subscribe", "topics": [topic], **more}))
    async with asyncio.timeout(5):
        return str(json.loads(await socket.recv())["type"])


async def end_of(socket: ClientConnection) -> tuple[int, str]:
    """Wait until it is closed; return code and reason."""
    async with asyncio.timeout(5):
        try:
            while True:
                await socket.recv()
        except ConnectionClosed as exc:
            return (exc.rcvd.code, exc.rcvd.reason) if exc.rcvd else (1006, "")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("DELETE", "/v1/accesskeys/{key}", None),
        ("POST", "/v1/accesskeys/{key}/rotate", {"overlap_s": 0}),
        ("PATCH", "/v1/customers/{customer}", {"status": "inactive"}),
        ("DELETE", "/v1/customers/{customer}", None),
    ],
)
async def test_a_key_that_is_good_no_longer_reads_no_more(
    telephony: Telephony, method: str, path: str, body: object
) -> None:
    theirs = telephony.theirs
    made = await theirs.make("accesskeys", role="operator")
    topic = f"customer_id:{theirs.id}:call:*"
    async with reader(telephony, made["key"]) as socket, reader(telephony, telephony.root) as root:
        assert await answer(socket, topic) == "subscribed"
        assert await answer(root, topic) == "subscribed"
        where = path.format(key=made["id"], customer=theirs.id)
        headers = {"AccessKey": telephony.root}
        if "accesskeys" in path:
            headers[access.CUSTOMER_HEADER] = theirs.id
        done = await theirs.http.request(method, where, headers=headers, json=body)
        assert done.status_code in (200, 204), done.text
        assert await end_of(socket) == (1008, "the access key is good no longer")
        assert await answer(root, topic) == "subscribed"


async def test_a_database_that_does_not_answer_ends_nothing(
    telephony: Telephony, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    async def fail(*_: object) -> None:
        nonlocal asked
        asked += 1
        raise DatabaseUnavailable("it is away")

    topic = f"customer_id:{telephony.ours.id}:call:*"
    async with reader(telephony, telephony.ours.key) as socket:
        assert await answer(socket, topic) == "subscribed"
        monkeypatch.setattr(access, "check_still_good", fail)
        while asked < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        assert await answer(socket, topic) == "subscribed"


async def test_one_customer_has_half_of_the_connections(
    telephony: Telephony, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "MAX_CONNECTIONS", 3)
    ours, theirs = telephony.ours, telephony.theirs

    async def is_refused(key: str) -> bool:
        try:
            async with reader(telephony, key):
                return False
        except InvalidStatus as exc:
            return exc.response.status_code == 503

    async with reader(telephony, ours.key) as socket:
        assert await answer(socket, f"customer_id:{ours.id}:call:*") == "subscribed"
        assert await is_refused(ours.key)
        assert not await is_refused(theirs.key)
        assert await answer(socket, f"customer_id:{ours.id}:call:*") == "subscribed"


@pytest.mark.parametrize(("after", "type_"), [(2**63 - 1, "subscribed"), (2**70, "error")])
async def test_numbers_are_those_that_a_database_has(
    telephony: Telephony, after: int, type_: str
) -> None:
    topic = f"customer_id:{telephony.ours.id}:call:*"
    async with reader(telephony, telephony.ours.key) as socket:
        assert await answer(socket, topic, after={topic: after}) == type_
        assert await answer(socket, topic) == "subscribed"  # it is still there
