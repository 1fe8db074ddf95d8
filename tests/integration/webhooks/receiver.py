"""A customer's server that receives webhooks, and the deliverer that sends them to it."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from aiohttp import web
from sqlalchemy import insert

from mediad import config
from mediad.bus.bus import Bus
from mediad.bus.events import DEFAULT_CUSTOMER, Event
from mediad.metrics import Metrics
from mediad.store import customers, tables, webhooks
from mediad.store.apply import apply
from mediad.store.audit import MEDIAD
from mediad.store.database import Database
from mediad.store.journal import Journal
from mediad.store.types import utc_now
from mediad.store.webhooks import WebhookFields
from mediad.store.writer import Writer
from mediad.webhooks.delivery import Deliverer

__all__ = ["SECRET", "Clock", "Receiver", "Request", "add_webhook", "happen", "running", "writing"]

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@dataclass(frozen=True, slots=True)
class Request:
    """A request that was received."""

    at: float
    path: str
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> dict[str, Any]:
        """The event."""
        body: dict[str, Any] = json.loads(self.raw)
        return body


class Receiver:
    """Answers requests with ``answer(request)``: a status, or None to hang."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        """Those that were answered."""
        self.attempts: list[Request] = []
        """All."""
        self.answer: Callable[[Request], int | None] = lambda _: 200
        self.delay_s = 0.0
        self.answers = asyncio.Event()
        """Whether requests are answered now; until then they wait."""
        self.answers.set()
        self.url = ""
        self.at_once: dict[str, int] = {}
        self.most_at_once: dict[str, int] = {}
        self._changed = asyncio.Event()

    async def __aenter__(self) -> "Receiver":
        app = web.Application()
        app.router.add_post("/{path:.*}", self._receive)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    @property
    def connections(self) -> int:
        """How many are open."""
        assert self._runner.server is not None
        return len(self._runner.server.connections)

    async def received(self, count: int, timeout_s: float = 10.0) -> list[Request]:
        """Wait for so many requests."""
        async with asyncio.timeout(timeout_s):
            while len(self.requests) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.requests

    async def attempted(self, count: int, timeout_s: float = 10.0) -> list[Request]:
        """Wait for so many requests, answered or not."""
        async with asyncio.timeout(timeout_s):
            while len(self.attempts) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.attempts

    async def _receive(self, request: web.Request) -> web.Response:
        raw = await request.read()
        taken = Request(time.monotonic(), request.path, dict(request.headers), raw)
        path = request.path
        self.attempts.append(taken)
        self._changed.set()
        now = self.at_once[path] = self.at_once.get(path, 0) + 1
        self.most_at_once[path] = max(now, self.most_at_once.get(path, 0))
        try:
            status = self.answer(taken)
            if status is None:
                await asyncio.sleep(3600)
            self.requests.append(taken)
            self._changed.set()
            await self.answers.wait()
            await asyncio.sleep(self.delay_s)
        finally:
            self.at_once[path] -= 1
        location = {"Location": "/elsewhere"} if status in (302, 307) else {}
        return web.Response(status=status or 200, text="thank you", headers=location)


class Clock:
    """A clock that a test turns on."""

    def __init__(self) -> None:
        self._ahead = timedelta()

    def __call__(self) -> datetime:
        return utc_now() + self._ahead

    def turn(self, seconds: float) -> None:
        """Let so much time pass."""
        self._ahead += timedelta(seconds=seconds)


@dataclass
class Rig:
    """A deliverer that runs."""

    deliverer: Deliverer
    bus: Bus
    metrics: Metrics
    clock: Clock
    database: Database

    async def settle(self) -> None:
        """Wait until everything that is due now has been tried and noted."""
        self.deliverer.look()
        async with asyncio.timeout(30):
            await asyncio.sleep(0.15)
            while not self.deliverer.is_idle:  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def pass_time(self, seconds: float, step_s: float) -> None:
        """Let time pass, and everything be tried when it is due."""
        for _ in range(round(seconds / step_s)):
            self.clock.turn(step_s)
            await self.settle()


@asynccontextmanager
async def running(
    database: Database, timeout_s: float = 10.0, allow_private: bool = True
) -> AsyncIterator[Rig]:
    """Deliver while the block runs."""
    metrics, clock = Metrics(), Clock()
    bus = Bus(metrics)
    wanted = config.Webhooks(timeout_s=timeout_s, allow_private=allow_private)
    deliverer = Deliverer(wanted, database, bus, metrics, clock)
    task = asyncio.create_task(deliverer.run())
    try:
        yield Rig(deliverer, bus, metrics, clock, database)
        assert not task.done(), task
    finally:
        await deliverer.drain(1.0)
        task.cancel()
        await asyncio.wait([task])


async def add_webhook(
    database: Database, url: str, *types: str, customer_id: str = DEFAULT_CUSTOMER
) -> str:
    """Make a webhook, and its customer if there is none; return its id."""
    fields = WebhookFields(url=url, events=types)
    async with database.write() as connection:
        if await customers.get(connection, customer_id) is None:
            now = utc_now()
            row = {"id": customer_id, "name": customer_id, "status": "active"}
            times = {"tm_create": now, "tm_update": now}
            await connection.execute(insert(tables.customers), row | times)
        made = await webhooks.create(connection, customer_id, fields, SECRET, MEDIAD)
    return made.id


async def happen(database: Database, facts: Sequence[Event], bus: Bus | None = None) -> list[Event]:
    """Write facts as the writer does, and announce them."""
    async with database.write() as connection:
        applied = await apply(connection, facts)
    for event in applied.events if bus else ():
        assert bus is not None
        bus.announce(event)
    return applied.events


@asynccontextmanager
async def writing(database: Database, bus: Bus, directory: Path) -> AsyncIterator[Journal]:
    """Write and announce what a journal is offered while the block runs, as mediad does."""

    async def invalidate(_: Iterable[str]) -> None:
        """No copies are kept."""

    metrics = Metrics()
    journal = Journal(directory / "journal.db", 1 << 28, False, metrics)
    await asyncio.to_thread(journal.open)
    writer = Writer(journal, database, invalidate, bus.announce, metrics)
    task = asyncio.create_task(writer.run())
    try:
        yield journal
        assert not task.done(), task
    finally:
        await writer.drain(10.0)
        task.cancel()
        await asyncio.wait([task])
        await asyncio.to_thread(journal.close, 5.0)
