"""What goes wrong between a pipeline's call and one of its services, while the caller asks."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, get_args

from mediad.caller import Caller
from mediad.wire.service import Role
from tests.data.spoken import recordings
from tests.fakes.agent import FakeAgent
from tests.fakes.service import FakeService
from tests.faults.api import AGENT
from tests.faults.connections import FAULT_S, Break
from tests.faults.processes import AWAY_S, listening, stop_for_a_while
from tests.faults.proxy import proxy_to
from tests.faults.scene import Scene
from tests.faults.servers import Servers
from tests.faults.services import SCRIPTS

__all__ = ["service_killed", "service_stopped", "to_service"]

_PIPELINE = {**AGENT, "link": "pipeline", "flow": {"response_delay_ms": 0}}
_SETTINGS: dict[str, Any] = {
    "pipeline__fallback_prompt": "Sorry, one moment.",
    "pipeline__end_silence_s": "0.3",
    **{f"{role}__timeout_s": "1" for role in get_args(Role)},
    **{f"{role}__budget_s": "2" for role in get_args(Role)},
}
_QUESTION = recordings("the weather is nice today")[0]
_HUSH_S = 0.2  # what is heard so long after a question is not what it interrupted
_QUIET_S = 0.3  # after which a caller takes it that the agent has finished
_SERVICE = "tests.faults.services"


async def _ask(caller: Caller, role: Role) -> None:
    """Ask, and again whenever the agent falls silent: aloud if it is about who hears, else by a
    key, which needs nobody to hear it.
    """
    while True:
        if role == "stt":
            caller.say(_QUESTION.pcm, _QUESTION.rate_hz)
            await caller.said()
        else:
            caller.press("5")
        await asyncio.sleep(_HUSH_S)
        await caller.wait_for_speech(timeout_s=None)
        await caller.wait_for_quiet(quiet_s=_QUIET_S, timeout_s=None)


@asynccontextmanager
async def _living(
    scene: Scene, role: Role, port: int, *agents: Mapping[str, Any]
) -> AsyncIterator[Caller]:
    """Have calls with an agent, and pipelines before them, whose service of the role is at a port
    and whose others are well. Return the subject, which is the first of the pipelines.
    """
    async with AsyncExitStack() as stack:
        agent = await stack.enter_async_context(FakeAgent(scene.talk))
        ports = {role: port}
        for other, script in SCRIPTS.items():
            if other != role:
                service = await stack.enter_async_context(FakeService(other, script))
                ports[other] = service.port
        urls = {f"{name}__url": f"ws://127.0.0.1:{port}" for name, port in ports.items()}
        settings = _SETTINGS | urls
        await stack.enter_async_context(scene.living(agent.url, agents=agents, **settings))
        assert scene.subject is not None
        yield scene.subject


async def to_service(scene: Scene, servers: Servers, role: Role, break_: Break) -> None:
    """Break the WebSocket of one call; another pipeline has one of its own."""
    async with FakeService(role, SCRIPTS[role]) as service:
        async with (
            proxy_to(("127.0.0.1", service.port)) as proxy,
            _living(scene, role, proxy.port, _PIPELINE, _PIPELINE) as subject,
        ):
            scene.start(_ask(subject, role))
            await asyncio.gather(break_(proxy.links[0], "client"), asyncio.sleep(FAULT_S))


async def service_stopped(scene: Scene, servers: Servers, role: Role) -> None:
    """Stop the service of the one pipeline."""
    async with listening(_SERVICE, role) as (service, port):
        async with _living(scene, role, port, _PIPELINE) as subject:
            scene.start(_ask(subject, role))
            await stop_for_a_while(service)


async def service_killed(scene: Scene, servers: Servers, role: Role) -> None:
    """Kill the service of the one pipeline, and start it again."""
    async with AsyncExitStack() as until_the_end:
        async with listening(_SERVICE, role) as (service, port):
            async with _living(scene, role, port, _PIPELINE) as subject:
                scene.start(_ask(subject, role))
                service.kill()
                await asyncio.sleep(AWAY_S)
                await until_the_end.enter_async_context(listening(_SERVICE, role, port=port))
                await asyncio.sleep(AWAY_S)
