"""A mediad inside the test's process: free ports, its events as a list, its metrics over HTTP."""

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple
from uuid import UUID

from prometheus_client.parser import text_string_to_metric_families

from mediad.app import App
from mediad.bus.bus import Subscription
from mediad.bus.events import Event
from mediad.config import Settings
from tests.fakes.asterisk import AsteriskCall

_STATE = tempfile.TemporaryDirectory(prefix="mediad-tests-")


class Seen(NamedTuple):
    """An event and when it was seen, in monotonic seconds: not before it happened."""

    at: float
    event: Event


class Daemon:
    """A running mediad and what is seen of it from outside."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.seen: list[Seen] = []
        self._changed = asyncio.Event()

    def call(self, call_id: UUID | None = None, **options: Any) -> AsteriskCall:
        """Return a call, still to be entered."""
        return AsteriskCall(self.app.audiosocket_address, call_id, **options)

    async def collect(self, subscription: Subscription) -> None:
        """Take events for ever."""
        async for event in subscription:
            self.seen.append(Seen(time.monotonic(), event))
            self._changed.set()

    def events(self, type_: str, call: AsteriskCall | None = None) -> list[Event]:
        """Return the events of a type so far, of one call or all."""
        return [
            event
            for _, event in self.seen
            if event.type == type_ and (call is None or event.call_id == str(call.call_id))
        ]

    async def event(
        self, type_: str, call: AsteriskCall | None = None, number: int = 0, timeout_s: float = 10.0
    ) -> Event:
        """Wait for the event of this number."""
        async with asyncio.timeout(timeout_s):
            while len(found := self.events(type_, call)) <= number:
                self._changed.clear()
                await self._changed.wait()
        return found[number]

    async def hung_up(self, call: AsteriskCall, timeout_s: float = 10.0) -> tuple[str, str]:
        """Wait for the call's end; return who ended it and why."""
        data = (await self.event("call_hungup", call, timeout_s=timeout_s)).data
        return data["hangup_by"], data["hangup_cause"]

    async def get(self, path: str) -> tuple[int, str]:
        """Ask the HTTP port; return status and body."""
        reader, writer = await asyncio.open_connection(*self.app.http_address)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: mediad\r\nConnection: close\r\n\r\n".encode())
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()
        return int(head.split(b" ")[1]), body.decode()

    async def metric(self, name: str, **labels: str) -> float:
        """Return a metric's value; 0 when it is not there."""
        _, text = await self.get("/metrics")
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    async def metric_reaches(self, value: float, name: str, **labels: str) -> None:
        """Wait until a metric is at least so much."""
        async with asyncio.timeout(10):
            while await self.metric(name, **labels) < value:  # noqa: ASYNC110 (it has no event)
                await asyncio.sleep(0.02)


async def eventually(holds: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Ask again until it holds."""
    async with asyncio.timeout(timeout_s):
        while not holds():  # noqa: ASYNC110 (what is asked has no event)
            await asyncio.sleep(0.02)


def settings(
    agent_url: str | tuple[str, ...] = (),
    *,
    audiosocket: dict[str, Any] | None = None,
    ai: dict[str, Any] | None = None,
    database: dict[str, Any] | None = None,
) -> Settings:
    """Return settings with free ports and a directory of their own; an empty ``agent_url`` lets
    agents dial in.
    """
    urls = (agent_url,) if isinstance(agent_url, str) else agent_url
    return Settings.model_validate(
        {
            "audiosocket": {"port": 0, **(audiosocket or {})},
            "http": {"port": 0},
            "ai": {"agent_url": urls, "listen_port": 0, "connect_timeout_s": 3, **(ai or {})},
            "database": {"directory": tempfile.mkdtemp(dir=_STATE.name), **(database or {})},
        }
    )


@contextlib.asynccontextmanager
async def running(wanted: Settings) -> AsyncIterator[Daemon]:
    """Run mediad with these settings."""
    app = App(wanted)
    daemon = Daemon(app)
    with app.bus.subscribe() as subscription:
        collector = asyncio.get_running_loop().create_task(daemon.collect(subscription))
        try:
            async with app:
                yield daemon
            await asyncio.sleep(0)  # for the last events
        finally:
            collector.cancel()
