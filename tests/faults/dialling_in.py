"""What goes wrong between mediad and an agent that dials in."""

import asyncio
import contextlib
import socket
from typing import Any

from websockets.exceptions import WebSocketException

from tests.fakes.agent import FakeAgent, dial_in
from tests.faults.api import AGENT, Api, agent_at
from tests.faults.connections import Break
from tests.faults.proxy import Proxy, proxy_to
from tests.faults.scene import Scene
from tests.faults.servers import Servers

__all__ = ["to_agent"]

_TOPIC = "customer_id:default:live:*"


async def to_agent(scene: Scene, servers: Servers, break_: Break) -> None:
    """Break the WebSocket of one call, for which an agent dials in whenever it is awaited."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    waiting: list[asyncio.Task[None]] = []
    async with FakeAgent(scene.talk) as others, proxy_to(("127.0.0.1", port)) as proxy:

        async def wait(api: Api) -> None:
            is_subscribed = asyncio.Event()
            waiting.append(asyncio.create_task(_wait(scene, api, proxy, is_subscribed)))
            await is_subscribed.wait()

        agents = (AGENT, *[agent_at(others.port)] * 3)
        async with scene.living("", agents=agents, before=wait, ai__listen_port=str(port)):
            await break_(proxy.links[0], "server")
            await asyncio.sleep(1)
        for task in waiting:
            task.cancel()
            await asyncio.wait((task,))


async def _wait(scene: Scene, api: Api, proxy: Proxy, is_subscribed: asyncio.Event) -> None:
    """Dial in for each call that awaits an agent."""
    async with asyncio.TaskGroup() as agents:
        async for event in api.events(_TOPIC):
            is_subscribed.set()
            if event["type"] == "agent_awaited":
                agents.create_task(_serve(scene, proxy, event["data"]))


async def _serve(scene: Scene, proxy: Proxy, awaited: dict[str, Any]) -> None:
    with contextlib.suppress(OSError, WebSocketException):  # another one will be awaited
        async with dial_in(proxy.address, awaited["agent_token"]) as agent:
            await scene.talk.on_call(awaited["call_id"], agent)
