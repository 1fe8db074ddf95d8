"""Calls from a µ-law SIP phone through a real Asterisk to the agent and back, every way in."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Mapping
from typing import NamedTuple

import pytest

from tests.asterisk.phone import Phone
from tests.asterisk.rig import Asterisk
from tests.asterisk.seam import PLAY_RATE_HZ, AgentCall, Server
from tests.asterisk.waiting import HANG_UP_TIMEOUT_S, until, until_no_channel
from tests.own_stalls import no_longer_than
from tests.sound import assert_clean, encode_ulaw, loud_s, measure_tone, tone

pytestmark = pytest.mark.asyncio(loop_scope="session")

# 1 kHz, but not the same, so that no echo passes for the other side; and no whole number of
# periods in 20 ms, so that a lost frame shows as a jump of phase.
CALLER_HZ = 1004.0
AGENT_HZ = 997.0
TONE_S = 3.0  # a hole in its middle leaves more than a second

TEST_TIMEOUT_S = 25.0


class Way(NamedTuple):
    """One way from the dialplan to the server."""

    step: str
    """The dialplan's step; {address} and {id} are filled in."""
    g711: str = "ulaw"
    dial_status: str = "ANSWER"
    """What DIALSTATUS is afterwards."""


WAYS = {
    "application": Way("AudioSocket({id},{address})", dial_status=""),
    "dial": Way("Dial(AudioSocket/{address}/{id},,g)"),
    "dial-ulaw": Way("Dial(AudioSocket/{address}/{id}/c(ulaw),,g)"),
    "dial-alaw": Way("Dial(AudioSocket/{address}/{id}/c(alaw),,g)", g711="alaw"),
    "dial-slin16": Way("Dial(AudioSocket/{address}/{id}/c(slin16),,g)"),
}

every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())


class Connection(NamedTuple):
    """A call that is up."""

    phone: Phone
    agent: AgentCall
    call_id: str


@contextlib.asynccontextmanager
async def connect(
    asterisk: Asterisk, servers: Mapping[str, Server], way: Way
) -> AsyncIterator[Connection]:
    """Call the agent from a phone; leave no channel behind."""
    server = servers[way.g711]
    call_id = str(uuid.uuid4())
    step = way.step.format(id=call_id, address=f"{server.host}:{server.port}")
    answer = "Answer()" if way.step.startswith("AudioSocket") else "NoOp()"  # Dial answers itself
    await asterisk.load_dialplan(f"""
[phones]
exten => agent,1,{answer}
 same => n,{step}
 same => n,UserEvent(Afterwards,Id: {call_id},Status: ${{DIALSTATUS}})
 same => n,Hangup()
""")
    async with asyncio.timeout(TEST_TIMEOUT_S):
        async with Phone(asterisk.sip) as phone:
            await phone.call("agent")
            yield Connection(phone, await server.wait_call(call_id), call_id)
        await until_no_channel(asterisk)


@every_way
async def test_tones_cross_in_both_directions_at_once(
    asterisk: Asterisk, servers: Mapping[str, Server], way: Way
) -> None:
    async with connect(asterisk, servers, way) as (phone, agent, _):
        await asyncio.sleep(0.3)
        phone.say(encode_ulaw(tone(CALLER_HZ, TONE_S, 8_000)))
        await agent.play(tone(AGENT_HZ, TONE_S, PLAY_RATE_HZ))
        await until(lambda: loud_s(agent.heard(), agent.heard_rate_hz) > 0.9 * TONE_S)
        await until(lambda: loud_s(phone.heard(), 8_000) > 0.9 * TONE_S)
        at_agent = measure_tone(agent.heard(), agent.heard_rate_hz)
        at_phone = measure_tone(phone.heard(), 8_000)
        print(at_agent, at_phone)
    assert_clean(at_agent, CALLER_HZ)
    assert_clean(at_phone, AGENT_HZ)


@every_way
async def test_keys_arrive_in_the_order_they_were_pressed(
    asterisk: Asterisk, servers: Mapping[str, Server], way: Way
) -> None:
    async with connect(asterisk, servers, way) as (phone, agent, _):
        await phone.press("159*0#2")
        await until(lambda: len(agent.dtmf) >= 7)
        assert agent.dtmf == "159*0#2"


@every_way
async def test_caller_who_hangs_up_ends_the_call_for_the_agent(
    asterisk: Asterisk, servers: Mapping[str, Server], way: Way
) -> None:
    async with connect(asterisk, servers, way) as (phone, agent, _):
        await asyncio.sleep(0.5)
        phone.hang_up()
        async with no_longer_than(HANG_UP_TIMEOUT_S):
            await agent.wait_ended()
        await until_no_channel(asterisk)


@every_way
async def test_dialplan_goes_on_after_the_agent_hung_up(
    asterisk: Asterisk, servers: Mapping[str, Server], way: Way
) -> None:
    async with connect(asterisk, servers, way) as (phone, agent, call_id):
        await agent.play(tone(AGENT_HZ, 0.5, PLAY_RATE_HZ))
        await asyncio.sleep(1.0)
        await agent.hang_up()
        async with no_longer_than(HANG_UP_TIMEOUT_S):
            event = await asterisk.ami.wait_event("UserEvent", UserEvent="Afterwards", Id=call_id)
        assert event.get("Status", "") == way.dial_status
        async with no_longer_than(HANG_UP_TIMEOUT_S):
            await agent.wait_ended()
            await phone.ended.wait()
