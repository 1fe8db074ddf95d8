"""One call through the dialplan of config/asterisk/ in a real Asterisk, and four ways to learn of
it that must tell the same: REST, the events WebSocket (live and resumed), and a webhook.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from standardwebhooks import Webhook
from websockets.asyncio.client import connect

from mediad.config import Webhooks
from tests.asterisk.phone import Phone
from tests.asterisk.rig import Asterisk
from tests.asterisk.test_dialplan_api import (
    NUMBER,
    PROMPT,
    TEST_TIMEOUT_S,
    call_id_of,
    greet,
    load,
)
from tests.asterisk.waiting import until_no_channel
from tests.fakes.agent import FakeAgent
from tests.integration.daemon import Daemon, running, settings
from tests.integration.webhooks.receiver import Receiver

pytestmark = pytest.mark.asyncio(loop_scope="session")

TOPIC = "customer_id:default:call:*"


class Reader:
    """A customer's program: it uses the API with a key that mediad itself has made."""

    def __init__(self, http: httpx.AsyncClient, key: str) -> None:
        self.key = key
        self._http = http
        self._socket_url = str(http.base_url.join("/v1/ws")).replace("http", "ws", 1)

    async def get(self, path: str) -> Any:
        """Read something."""
        return (await self._http.get(f"/v1/{path}", headers={"AccessKey": self.key})).json()

    async def make(self, resource: str, **fields: Any) -> Any:
        """Make something."""
        answer = await self._http.post(
            f"/v1/{resource}", headers={"AccessKey": self.key}, json=fields
        )
        assert answer.status_code == 201, answer.text
        return answer.json()

    @asynccontextmanager
    async def events(self, **more: Any) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """Subscribe to all that happens on calls."""
        async with connect(self._socket_url, additional_headers={"AccessKey": self.key}) as socket:
            wanted = {"type": "subscribe", "topics": [TOPIC], **more}
            await socket.send(json.dumps(wanted))
            assert json.loads(await socket.recv())["type"] == "subscribed"
            yield (json.loads(message) async for message in socket)


@asynccontextmanager
async def reader_of(daemon: Daemon, directory: Path) -> AsyncIterator[Reader]:
    """Use the API with the first key."""
    key = (directory / "access_key").read_text().strip()
    async with httpx.AsyncClient(base_url="http://{}:{}".format(*daemon.app.http_address)) as http:
        yield Reader(http, key)


async def until_hungup(events: AsyncIterator[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a call's events."""
    told = []
    async for event in events:
        told.append(event)
        if event["event"] == "call_hungup":
            break
    return told


async def test_rest_events_socket_and_webhook_tell_the_same(asterisk: Asterisk) -> None:
    async with asyncio.timeout(TEST_TIMEOUT_S), FakeAgent(greet) as agent, Receiver() as receiver:
        wanted = settings(agent.url).model_copy(update={"webhooks": Webhooks(allow_private=True)})
        async with (
            running(wanted) as daemon,
            reader_of(daemon, wanted.database.state_directory) as reader,
            reader.events() as live,
        ):
            made = await reader.make("agents", name="bakery", config={"prompt": PROMPT})
            await reader.make("numbers", number=NUMBER, agent_id=made["id"])
            secret = (await reader.make("webhooks", url=receiver.url))["secret"]
            operator = await reader.make("accesskeys", role="operator")
            await load(asterisk, daemon, operator["key"])
            async with Phone(asterisk.sip) as phone:
                await phone.call(NUMBER)
                call_id = await call_id_of(asterisk)
                await phone.ended.wait()
            await until_no_channel(asterisk)

            told = await until_hungup(live)
            async with reader.events(after={TOPIC: 0}) as resumed:
                assert await until_hungup(resumed) == told
            posted = await receiver.received(len(told))
            verified = [Webhook(secret).verify(post.raw, post.headers) for post in posted]
            assert [{"event": body["type"], **body} for body in verified] == told
            assert [event["sequence"] for event in told] == list(range(1, len(told) + 1))
            await check_rest(reader, call_id, told)


async def check_rest(reader: Reader, call_id: str, told: list[dict[str, Any]]) -> None:
    """Compare what can be read of a call with the events that were told of it."""
    data = {event["event"]: event["data"] for event in told}
    at = {event["event"]: datetime.fromisoformat(event["created"]) for event in told}
    call = await reader.get(f"calls/{call_id}")
    call["duration"] = call["duration_ms"] / 1000
    for name in ("call_created", "call_updated", "call_hungup"):
        assert data[name]["id"] == call["id"]
    # The row has the last word on what changes.
    whole = data["call_created"] | data["call_hungup"]
    assert whole.keys() - call.keys() == {"type", "call_id", "offset"}
    assert {name: call[name] for name in whole.keys() & call.keys()} == {
        name: whole[name] for name in whole.keys() & call.keys()
    }
    statuses = [data[name]["status"] for name in ("call_created", "call_updated", "call_hungup")]
    assert statuses == ["ringing", "in-progress", call["status"]]
    for column, name in (
        ("tm_start", "call_created"),
        ("tm_answer", "call_updated"),
        ("tm_hangup", "call_hungup"),
    ):
        assert in_ms(datetime.fromisoformat(call[column])) == at[name]

    said = (await reader.get(f"calls/{call_id}/transcript"))["result"]
    (transcribe,) = (await reader.get(f"transcribes?call_id={call_id}"))["result"]
    segments = [event["data"] for event in told if event["event"] == "transcript_created"]
    for name, same in (("id", "id"), ("direction", "direction"), ("text", "message")):
        assert [segment[name] for segment in segments] == [row[same] for row in said]
    assert {row["transcribe_id"] for row in said} == {transcribe["id"]}
    assert data["transcribe_started"]["id"] == data["transcribe_done"]["id"] == transcribe["id"]
    assert transcribe["status"] == "completed"

    deliveries = (await reader.get("webhook_deliveries"))["result"]
    assert {row["event_id"]: row["sequence"] for row in deliveries} == {
        event["id"]: event["sequence"] for event in told
    }


def in_ms(time: datetime) -> datetime:
    """Return a time as events tell it."""
    return time.replace(microsecond=time.microsecond // 1000 * 1000)
