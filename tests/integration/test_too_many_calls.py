"""More calls than mediad may have: those within the limit do not notice."""

import asyncio
import time
from contextlib import AsyncExitStack

from mediad.caller import Caller
from tests.fakes.agent import AgentConnection, FakeAgent
from tests.integration.daemon import eventually
from tests.machine import watch_machine
from tests.mediad_process import run_mediad
from tests.own_stalls import watch_own_loop
from tests.sound import tone

MAX_CALLS = 40
OFFERED = MAX_CALLS * 3 // 2
PER_SECOND = 50
REFUSED_WITHIN_S = 0.1
GAP_S = 0.2  # README: a gap under it is none
BLOCK_S = 0.2
LEAD_S = 1.0  # of what the agents say; they stand still with this process
SPEECH_S = 5.0
BLOCK = tone(440, BLOCK_S, 8000)  # whole periods: the blocks join


async def speak(agent: AgentConnection) -> None:
    """Say a tone in real time, a little ahead."""
    start = time.monotonic() - LEAD_S
    for number in range(round(SPEECH_S / BLOCK_S)):
        await asyncio.sleep(start + number * BLOCK_S - time.monotonic())
        await agent.say(BLOCK, 8000)


async def test_calls_beyond_the_limit_get_0x00_at_once_and_the_others_no_underrun() -> None:
    settings = {"audiosocket__codec": "slin", "audiosocket__max_calls": str(MAX_CALLS)}
    async with FakeAgent(speak) as agent, run_mediad(agent.url, **settings) as mediad:
        callers: list[Caller] = []
        async with watch_machine() as machine, watch_own_loop() as own, AsyncExitStack() as stack:
            began = time.monotonic()
            for number in range(OFFERED):
                await asyncio.sleep(max(0.0, began + number / PER_SECOND - time.monotonic()))
                callers.append(await stack.enter_async_context(Caller(*mediad.audiosocket)))
            await asyncio.sleep(1.5)
            await eventually(lambda: sum(caller.end is None for caller in callers) == MAX_CALLS)
            admitted = [caller for caller in callers if caller.end is None]
            await eventually(lambda: all(caller.heard.audible_s > 0.5 for caller in admitted))
            underruns = await mediad.metric("mediad_underrun_frames_total")
        # What stood still were the calls' other ends, or the machine: mediad cannot help it.
        stalls_s = machine.worst_s + own.worst_s()
        refused = [caller for caller in callers if caller not in admitted]
        assert len(admitted) == MAX_CALLS
        for caller in refused:
            assert caller.end is not None
            assert (caller.end.by, caller.end.how) == ("server", "hangup")
            assert not caller.heard.times
            assert caller.end.at - caller.started_at < REFUSED_WITHIN_S + stalls_s
        assert underruns == 0 or stalls_s > LEAD_S
        for caller in admitted:
            assert max(caller.heard.gaps_s()) < GAP_S + stalls_s
