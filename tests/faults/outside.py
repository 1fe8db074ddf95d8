"""What goes wrong between mediad and those whom it tells what happens: receivers of webhooks, and
readers of the events WebSocket. Whatever it is, they get every fact in the end.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from websockets.exceptions import WebSocketException

from tests.fakes.agent import FakeAgent
from tests.faults.api import Api
from tests.faults.connections import Break
from tests.faults.processes import AWAY_S, listening, stop_for_a_while
from tests.faults.proxy import Proxy, proxy_to
from tests.faults.scene import Scene
from tests.faults.servers import Servers

__all__ = ["to_events", "to_webhooks", "webhooks_killed", "webhooks_stopped"]

_TOPIC = "customer_id:default:call:*"
_READS_AGAIN_S = 0.2


@asynccontextmanager
async def _receiver(
    scene: Scene, port: int = 0
) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """Run a receiver, and note what it gets."""
    async with listening("tests.faults.receiver", port=port) as (process, port):
        assert process.stdout is not None
        if scene.delivered is None:
            scene.delivered = set()
        reading = asyncio.create_task(_note(process.stdout, scene.delivered))
        try:
            yield process, port
        finally:
            reading.cancel()
            await asyncio.wait((reading,))


async def _note(output: asyncio.StreamReader, delivered: set[str]) -> None:
    async for line in output:
        delivered.add(line.decode().strip())


@asynccontextmanager
async def _telling(scene: Scene, port: int) -> AsyncIterator[None]:
    """Have calls of which a receiver at this port is told."""

    async def make(api: Api) -> None:
        await api.make("webhooks", url=f"http://127.0.0.1:{port}/")

    async with (
        FakeAgent(scene.talk) as agent,
        scene.living(
            agent.url, before=make, webhooks__allow_private="true", webhooks__timeout_s="2"
        ),
    ):
        yield


async def to_webhooks(scene: Scene, servers: Servers, break_: Break) -> None:
    """Break all connections to the receiver."""
    async with (
        _receiver(scene) as (_, port),
        proxy_to(("127.0.0.1", port)) as proxy,
        _telling(scene, proxy.port),
    ):
        await break_(proxy, "client")


async def webhooks_stopped(scene: Scene, servers: Servers) -> None:
    """Stop the receiver."""
    async with _receiver(scene) as (receiver, port), _telling(scene, port):
        await stop_for_a_while(receiver)


async def webhooks_killed(scene: Scene, servers: Servers) -> None:
    """Kill the receiver, and start it again."""
    async with AsyncExitStack() as until_the_end:
        async with _receiver(scene) as (receiver, port), _telling(scene, port):
            receiver.kill()
            await asyncio.sleep(AWAY_S)
            await until_the_end.enter_async_context(_receiver(scene, port))


async def to_events(scene: Scene, servers: Servers, break_: Break) -> None:
    """Break the events WebSocket; its reader comes again, and resumes."""
    async with AsyncExitStack() as outside:
        proxies: list[Proxy] = []

        async def read(api: Api) -> None:
            proxy = await outside.enter_async_context(proxy_to(api.address))
            proxies.append(proxy)
            scene.delivered = set()
            reading = asyncio.create_task(_read(api, proxy, scene.delivered))
            outside.push_async_callback(asyncio.wait, (reading,))
            outside.callback(reading.cancel)

        async with FakeAgent(scene.talk) as agent, scene.living(agent.url, before=read):
            await break_(proxies[0], "server")


async def _read(api: Api, proxy: Proxy, delivered: set[str]) -> None:
    last = 0
    while True:
        with contextlib.suppress(OSError, WebSocketException):
            async for event in api.events(_TOPIC, by=proxy.address, after=last):
                if event["type"] != "subscribed":
                    delivered.add(event["id"])
                    last = event["sequence"]
        await asyncio.sleep(_READS_AGAIN_S)
