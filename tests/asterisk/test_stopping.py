"""A mediad that is told to stop while an Asterisk has calls on it."""

import asyncio
import signal
from contextlib import AsyncExitStack

import pytest

from tests.asterisk.phone import Phone
from tests.asterisk.rig import Asterisk
from tests.asterisk.test_dialplans import readme_dialplan
from tests.asterisk.waiting import HANG_UP_TIMEOUT_S, until_no_channel
from tests.fakes.agent import FakeAgent
from tests.mediad_process import run_mediad

pytestmark = pytest.mark.asyncio(loop_scope="session")

CALLS = 20
TEST_TIMEOUT_S = 60.0


async def test_calls_finish_and_a_new_one_hears_the_next_priority(asterisk: Asterisk) -> None:
    async with (
        asyncio.timeout(TEST_TIMEOUT_S),
        FakeAgent() as agent,
        run_mediad(agent.url, audiosocket__drain_timeout_s="60") as mediad,
        AsyncExitStack() as stack,
    ):
        await asterisk.load_dialplan(readme_dialplan("{}:{}".format(*mediad.audiosocket)))
        phones = []
        for _ in range(CALLS):
            phones.append(phone := await stack.enter_async_context(Phone(asterisk.sip)))
            await phone.call("700")
        await agent.connection(CALLS - 1)
        mediad.signal(signal.SIGTERM)
        await mediad.wait_for_log(f"{CALLS} live calls may go on")
        late = await stack.enter_async_context(Phone(asterisk.sip))
        await late.call("700")
        await asterisk.ami.wait_event("Newexten", Application="Hangup")
        async with asyncio.timeout(HANG_UP_TIMEOUT_S):
            await late.ended.wait()
        assert not any(phone.ended.is_set() for phone in phones)
        for phone in phones:
            phone.hang_up()
        assert await mediad.ended() == 0
        await until_no_channel(asterisk)
