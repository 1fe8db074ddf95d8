"""More calls than mediad may have: those within the limit do not notice."""

import asyncio
import time
from contextlib import AsyncExitStack

from mediad.caller import Caller
from tests.fakes.agent import AgentConnection, FakeAgent
from tests.machine import watch_machine
from tests.mediad_process import run_mediad
from tests.sound import tone

MAX_CALLS = 40
OFFERED = MAX_CALLS * 3 // 2
PER_SECOND = 50
REFUSED_WITHIN_S = 0.1


async def test_calls_beyond_the_limit_get_0x00_at_once_and_the_others_no_underrun() -> None:
    async def script(agent: AgentConnection) -> None:
        await agent.say(tone(440, 4, 8000), 8000)

    settings = {"audiosocket__codec": "slin", "audiosocket__max_calls": str(MAX_CALLS)}
    async with FakeAgent(script) as agent, run_mediad(agent.url, **settings) as mediad:
        async with watch_machine() as machine, AsyncExitStack() as stack:
            callers = []
            began = time.monotonic()
            for number in range(OFFERED):
                await asyncio.sleep(max(0.0, began + number / PER_SECOND - time.monotonic()))
                callers.append(await stack.enter_async_context(Caller(*mediad.audiosocket)))
            await asyncio.sleep(1.0)
            refused = [caller.end for caller in callers if caller.end is not None]
            late = [
                caller.end.at - caller.started_at for caller in callers if caller.end is not None
            ]
            admitted = [caller for caller in callers if caller.end is None]
            underruns = await mediad.metric("mediad_underrun_frames_total")
        assert len(admitted) == MAX_CALLS
        assert {(end.by, end.how) for end in refused} == {("server", "hangup")}
        assert max(late) < REFUSED_WITHIN_S + machine.worst_s
        assert underruns == 0
