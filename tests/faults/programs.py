"""Programs that stand still for a while (SIGSTOP) or are killed: mediad and each of its peers."""

import asyncio
import json
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from uuid import uuid4

from tests.fakes.agent import FakeAgent
from tests.faults.api import agent_at
from tests.faults.processes import AWAY_S, STOP_S, listening, program, stop_for_a_while
from tests.faults.scene import Scene
from tests.faults.servers import Servers, new_database, own_mariadb
from tests.redis_server import redis_server

__all__ = [
    "agent_killed",
    "agent_stopped",
    "caller_killed",
    "caller_stopped",
    "database_killed",
    "database_stopped",
    "mediad_killed",
    "mediad_stopped",
    "reader_killed",
    "reader_stopped",
    "redis_killed",
    "redis_stopped",
]

_AGENT = "tests.faults.talk"
_CALL_S = 10.0
_READER = """
import sys, time, urllib.request
while True:
    urllib.request.urlopen(sys.argv[1]).read()
    time.sleep(0.05)
"""


@asynccontextmanager
async def _phone(scene: Scene) -> AsyncIterator[asyncio.subprocess.Process]:
    """Let a program of its own make the scene's first call."""
    scene.subject_id = str(uuid4())
    port, duration = str(scene.mediad.audiosocket[1]), str(_CALL_S)
    arguments = ("call", "--port", port, "--uuid", scene.subject_id, "--duration", duration)
    async with program("-m", "mediad", *arguments, "--json") as phone:
        await scene.mediad.wait_for_log(f"call {scene.subject_id}: started")
        await asyncio.sleep(1)
        yield phone


async def caller_stopped(scene: Scene, servers: Servers) -> None:
    """Stop the program that makes a call."""
    async with FakeAgent(scene.talk) as agent, scene.living(agent.url, has_subject=False):
        async with _phone(scene) as phone:
            await stop_for_a_while(phone)
            out, _ = await phone.communicate()
        figures = json.loads(out)["figures"]
        scene.subject_gap_s = figures["gaps"]["max_ms"] / 1000
        scene.goes_on = figures["ended_by"] == "caller"


async def caller_killed(scene: Scene, servers: Servers) -> None:
    """Kill the program that makes a call."""
    async with FakeAgent(scene.talk) as agent, scene.living(agent.url, has_subject=False):
        async with _phone(scene) as phone:
            phone.kill()


async def agent_stopped(scene: Scene, servers: Servers) -> None:
    """Stop the agent of one call."""
    async with FakeAgent(scene.talk) as others, listening(_AGENT) as (agent, port):
        async with scene.living(others.url, agents=(agent_at(port),)):
            await stop_for_a_while(agent)


async def agent_killed(scene: Scene, servers: Servers) -> None:
    """Kill the agent of one call, and start it again."""
    async with FakeAgent(scene.talk) as others, AsyncExitStack() as until_the_end:
        async with listening(_AGENT) as (agent, port):
            async with scene.living(others.url, agents=(agent_at(port),)):
                agent.kill()
                await asyncio.sleep(AWAY_S)
                await until_the_end.enter_async_context(listening(_AGENT, port=port))
                await asyncio.sleep(2)  # mediad tries again after 0.2, 0.5, 1 and 2 s


async def database_stopped(scene: Scene, servers: Servers) -> None:
    """Stop MariaDB."""
    async with (
        FakeAgent(scene.talk) as agent,
        own_mariadb() as server,
        new_database(server) as database,
        scene.living(agent.url, database=database),
    ):
        server.pause()
        await asyncio.sleep(STOP_S)
        server.resume()


async def database_killed(scene: Scene, servers: Servers) -> None:
    """Kill MariaDB, and start it again."""
    async with (
        FakeAgent(scene.talk) as agent,
        own_mariadb() as server,
        new_database(server) as database,
        scene.living(agent.url, database=database),
    ):
        await asyncio.to_thread(server.kill)
        await asyncio.sleep(AWAY_S)
        await asyncio.to_thread(server.start)


async def redis_stopped(scene: Scene, servers: Servers) -> None:
    """Stop Redis."""
    with tempfile.TemporaryDirectory(prefix="mediad-redis-") as directory:
        async with FakeAgent(scene.talk) as agent, redis_server(Path(directory)) as redis:
            async with scene.living(agent.url, redis__url=redis.url):
                with redis.frozen():
                    await asyncio.sleep(STOP_S)


async def redis_killed(scene: Scene, servers: Servers) -> None:
    """Kill Redis, and start it again, empty."""
    with tempfile.TemporaryDirectory(prefix="mediad-redis-") as directory:
        async with FakeAgent(scene.talk) as agent, redis_server(Path(directory)) as redis:
            async with scene.living(agent.url, redis__url=redis.url):
                redis.kill()
                await asyncio.sleep(AWAY_S)
                await asyncio.to_thread(redis.start)


@asynccontextmanager
async def _reader(scene: Scene) -> AsyncIterator[asyncio.subprocess.Process]:
    url = "http://{}:{}/metrics".format(*scene.mediad.http)
    async with program("-c", _READER, url) as reader:
        await asyncio.sleep(1)
        yield reader


async def reader_stopped(scene: Scene, servers: Servers) -> None:
    """Stop a program that reads /metrics."""
    async with FakeAgent(scene.talk) as agent, scene.living(agent.url):
        async with _reader(scene) as reader:
            await stop_for_a_while(reader)
            await asyncio.sleep(0.5)
            assert reader.returncode is None


async def reader_killed(scene: Scene, servers: Servers) -> None:
    """Kill a program that reads /metrics."""
    async with FakeAgent(scene.talk) as agent, scene.living(agent.url):
        async with _reader(scene) as reader:
            reader.kill()


async def mediad_stopped(scene: Scene, servers: Servers) -> None:
    """Stop mediad itself."""
    async with FakeAgent(scene.talk) as agent, scene.living(agent.url):
        scene.mediad.signal(signal.SIGSTOP)
        await asyncio.sleep(STOP_S)
        scene.mediad.signal(signal.SIGCONT)


async def mediad_killed(scene: Scene, servers: Servers) -> None:
    """Kill mediad; another one then finds its journal."""
    async with FakeAgent(scene.talk) as agent, scene.living(agent.url):
        await scene.kill_mediad()
