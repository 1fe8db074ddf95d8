"""A mediad that is told to stop while an Asterisk has calls on it."""

import asyncio
import signal
from contextlib import AsyncExitStack

import pytest

from tests.asterisk.phone import Phone
from tests.asterisk.rig import Asterisk
from tests.asterisk.waiting import until, until_no_channel
from tests.fakes.agent import FakeAgent
from tests.mediad_process import run_mediad
from tests.sound import loud_s, measure_tone, tone

pytestmark = pytest.mark.asyncio(loop_scope="session")

CALLS = 20
TEST_TIMEOUT_S = 60.0
AGENT_HZ = 440.0  # whole periods in what is said at once
MILLIWATT_HZ = 1004.0
NEXT_PRIORITY = """
[phones]
exten => 700,1,Answer()
 same => n,AudioSocket(${{UUID()}},{address})
 same => n,Milliwatt()
"""


def assert_heard(phone: Phone, hz: float) -> None:
    """Check that a tone came through; how clean it is, other tests measure."""
    measured = measure_tone(phone.heard(), 8000)
    assert measured.seconds > 0.3, measured
    assert abs(measured.hz - hz) < 2, measured


async def test_calls_finish_and_a_new_one_hears_the_next_priority(asterisk: Asterisk) -> None:
    async with (
        asyncio.timeout(TEST_TIMEOUT_S),
        FakeAgent() as agent,
        run_mediad(agent.url, audiosocket__drain_timeout_s="60") as mediad,
        AsyncExitStack() as stack,
    ):
        address = "{}:{}".format(*mediad.audiosocket)
        await asterisk.load_dialplan(NEXT_PRIORITY.format(address=address))
        phones = []
        for _ in range(CALLS):
            phones.append(phone := await stack.enter_async_context(Phone(asterisk.sip)))
            await phone.call("700")
        await agent.connection(CALLS - 1)
        mediad.signal(signal.SIGTERM)
        await mediad.wait_for_log(f"{CALLS} live calls may go on")
        late = await stack.enter_async_context(Phone(asterisk.sip))
        await late.call("700")
        # Those that live go on: what their agents say now is heard on every one.
        for connection in agent.connections:
            await connection.say(tone(AGENT_HZ, 2.0, 8000), 8000)
        for phone in (*phones, late):
            await until(lambda: loud_s(phone.heard(), 8000) > 1.5)  # noqa: B023
        assert len(agent.connections) == CALLS
        for phone in phones:
            assert_heard(phone, AGENT_HZ)
            assert not phone.ended.is_set()
        assert_heard(late, MILLIWATT_HZ)
        for phone in (*phones, late):
            phone.hang_up()
        assert await mediad.ended() == 0
        ends = [line for line in mediad.log if "ended by caller (normal_clearing)" in line]
        assert len(ends) == CALLS
        await until_no_channel(asterisk)
