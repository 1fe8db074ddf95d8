"""Live events reach their readers while the database hangs."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from mediad.api import access as access_module
from mediad.api import events as events_module
from mediad.api.access import Access
from mediad.bus.bus import Bus
from mediad.bus.events import DEFAULT_CUSTOMER, Event
from mediad.cache.keys import Keys
from mediad.cache.memory import MemoryCache
from mediad.metrics import Metrics
from mediad.store.audit import Actor
from mediad.store.sessions import Sessions

LIVE = f"customer_id:{DEFAULT_CUSTOMER}:live:*"


class HangingDatabase:
    """A database that was there a moment ago."""

    def __init__(self) -> None:
        self.asked = 0

    @asynccontextmanager
    async def read(self) -> AsyncIterator[None]:
        """Give no connection."""
        self.asked += 1
        await asyncio.Event().wait()
        yield


class Reader:
    """The other side of the WebSocket."""

    def __init__(self, services: object) -> None:
        self.app = SimpleNamespace(state=SimpleNamespace(services=services))
        self.said: asyncio.Queue[str] = asyncio.Queue()
        self.told: asyncio.Queue[str] = asyncio.Queue()

    async def accept(self) -> None:
        """Begin."""

    async def receive(self) -> dict[str, str]:
        """Return what the reader says."""
        return {"type": "websocket.receive", "text": await self.said.get()}

    async def send_text(self, text: str) -> None:
        """Tell the reader."""
        self.told.put_nowait(text)

    async def next(self) -> dict[str, Any]:
        """Return what the reader is told next."""
        async with asyncio.timeout(1):
            message: dict[str, Any] = json.loads(await self.told.get())
        return message


async def test_live_events_do_not_wait_for_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    async def authenticate(_: object) -> Access:
        return Access(DEFAULT_CUSTOMER, "key", "operator", DEFAULT_CUSTOMER, Actor("key"))

    monkeypatch.setattr(access_module, "authenticate", authenticate)
    metrics, database = Metrics(), HangingDatabase()
    bus = Bus(metrics)
    sessions = Sessions(MemoryCache(Keys("mediad", "test"), metrics, 10_000, 0), bus, metrics)
    reader = Reader(SimpleNamespace(bus=bus, database=database, sessions=sessions))
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(sessions.run())
        reading = tasks.create_task(events_module.events(reader))  # type: ignore[arg-type]
        reader.said.put_nowait(json.dumps({"type": "subscribe", "topics": [LIVE]}))
        assert (await reader.next())["type"] == "subscribed"
        parties = {"source": "alice", "destination": "bob"}
        bus.publish(Event("call_created", "new", 0.0, {"direction": "inbound", **parties}))
        for call_id in ("new", "unknown", "new", "unknown"):
            bus.publish(Event("speaking", call_id, 0.1, {"who": "caller", "started": True}))
        told = [await reader.next() for _ in range(5)]
        for task in (following, reading):
            task.cancel()
    assert [(message["data"]["call_id"], message["data"]["source"]) for message in told] == [
        ("new", "alice"),
        ("new", "alice"),
        ("unknown", None),
        ("new", "alice"),
        ("unknown", None),
    ]
    assert database.asked == 0
