"""What goes wrong on the way between mediad and its peers."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Literal

from tests.fakes.agent import FakeAgent
from tests.faults.proxy import Breakable, Fault, proxy_to
from tests.faults.scene import Scene
from tests.faults.servers import Servers, new_database

__all__ = [
    "DROPS",
    "FAULTS",
    "FAULT_S",
    "Break",
    "Mediad",
    "agent_gone",
    "caller_gone",
    "to_agent",
    "to_caller",
    "to_database",
    "to_http",
    "to_redis",
]

FAULT_S = 4.0
_READERS = 5
_READ_EVERY_S = 0.2

Mediad = Literal["client", "server"]
"""Which end of the connection mediad is."""
Break = Callable[[Breakable, Mediad], Awaitable[None]]
"""Does something to a connection, for some seconds, and takes it back."""


def _for_a_while(as_client: Fault, as_server: Fault | None = None) -> Break:
    async def run(connection: Breakable, mediad: Mediad) -> None:
        connection.fault = as_server if mediad == "server" and as_server is not None else as_client
        await asyncio.sleep(FAULT_S)
        connection.fault = Fault()

    return run


async def _reset(connection: Breakable, mediad: Mediad) -> None:
    connection.reset()


_TO_SERVER, _TO_CLIENT = Fault(drops_to_server=True), Fault(drops_to_client=True)

FAULTS: dict[str, Break] = {
    "150 to 250 ms late": _for_a_while(Fault(delay_s=0.15, jitter_s=0.1)),
    "one byte at a time": _for_a_while(Fault(one_byte=True)),
    f"half-open for {FAULT_S:.0f} s": _for_a_while(Fault(is_frozen=True)),
    "reset": _reset,
}
DROPS: dict[str, Break] = {
    f"what mediad sends is lost for {FAULT_S:.0f} s": _for_a_while(_TO_SERVER, _TO_CLIENT),
    f"what it is sent is lost for {FAULT_S:.0f} s": _for_a_while(_TO_CLIENT, _TO_SERVER),
}


async def to_caller(scene: Scene, servers: Servers, break_: Break) -> None:
    """Break the connection of one call."""
    async with FakeAgent(scene.talk) as agent, scene.living(agent.url, through_proxy=True):
        (link,) = scene.caller_proxy.links
        await break_(link, "server")


async def caller_gone(scene: Scene, servers: Servers) -> None:
    """Let the Asterisk of one call be gone without a word."""
    async with (
        FakeAgent(scene.talk) as agent,
        scene.living(agent.url, through_proxy=True, audiosocket__dead_peer_s="2"),
    ):
        (link,) = scene.caller_proxy.links
        link.vanish()
        await scene.mediad.wait_for_log(f"call {scene.subject_id}: ended")
        assert scene.subject is not None
        scene.subject.hang_up()  # which mediad does not hear of


async def to_agent(scene: Scene, servers: Servers, break_: Break) -> None:
    """Break the WebSocket of one call."""
    async with FakeAgent(scene.talk) as agent, proxy_to(("127.0.0.1", agent.port)) as proxy:
        async with scene.living(f"ws://127.0.0.1:{proxy.port}"):
            await break_(proxy.links[0], "client")  # the subject came first


async def agent_gone(scene: Scene, servers: Servers) -> None:
    """Let nothing move on the WebSocket of one call any more; a new one works."""
    async with FakeAgent(scene.talk) as agent, proxy_to(("127.0.0.1", agent.port)) as proxy:
        async with scene.living(f"ws://127.0.0.1:{proxy.port}", ai__ping_s="0.5"):
            proxy.links[0].fault = Fault(is_frozen=True)
            await asyncio.sleep(FAULT_S)
            assert len(proxy.links) > 1 + len(scene.others)


async def to_database(scene: Scene, servers: Servers, break_: Break) -> None:
    """Break all connections to MariaDB."""
    server = servers.mariadb
    async with (
        FakeAgent(scene.talk) as agent,
        proxy_to(("127.0.0.1", server.port)) as proxy,
        new_database(server, proxy.port) as database,
        scene.living(agent.url, database=database),
    ):
        assert proxy.links
        await asyncio.gather(break_(proxy, "client"), scene.newcomer())
        await asyncio.sleep(1)


async def to_redis(scene: Scene, servers: Servers, break_: Break) -> None:
    """Break all connections to Redis."""
    async with FakeAgent(scene.talk) as agent, proxy_to(("127.0.0.1", servers.redis.port)) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}/0"
        async with scene.living(agent.url, redis__url=url):
            assert proxy.links
            await asyncio.gather(break_(proxy, "client"), scene.newcomer())


async def to_http(scene: Scene, servers: Servers, break_: Break) -> None:
    """Break the connections of those who read /metrics."""
    async with FakeAgent(scene.talk) as agent, scene.living(agent.url):
        async with proxy_to(scene.mediad.http) as proxy, _readers(proxy.address):
            await asyncio.sleep(0.5)
            await break_(proxy, "server")
            await asyncio.sleep(0.5)
        assert "200 OK" in await scene.mediad.get("/readyz")


@asynccontextmanager
async def _readers(address: tuple[str, int]) -> AsyncIterator[None]:
    async def read() -> None:
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection(*address)
                try:
                    writer.write(b"GET /metrics HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n")
                    await reader.read()
                finally:
                    writer.transport.abort()
            await asyncio.sleep(_READ_EVERY_S)

    readers = [asyncio.create_task(read()) for _ in range(_READERS)]
    try:
        yield
    finally:
        for reader in readers:
            reader.cancel()
        await asyncio.wait(readers)
