"""Far ends other than the test's own phone: Asterisk's own tones and recorder, and SIPp."""

import asyncio
import shutil
import uuid
import wave
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.asterisk.rig import Asterisk
from tests.asterisk.seam import PLAY_RATE_HZ, AgentCall, Server
from tests.asterisk.waiting import until, until_no_channel
from tests.sound import assert_clean, encode_ulaw, loud_s, measure_tone, tone

pytestmark = pytest.mark.asyncio(loop_scope="session")

TEST_TIMEOUT_S = 25.0
# No whole number of periods in 20 ms, so that a lost frame shows as a jump of phase.
AGENT_HZ = 997.0
CALLER_HZ = 1004.0
MILLIWATT_HZ = 1004.0
TONE_S = 3.0  # a hole in its middle leaves more than a second
SIPP_CALLS = 20


def heard_s(agent: AgentCall) -> float:
    """Return how much of a tone the agent has heard so far, in seconds."""
    return loud_s(agent.heard(), agent.heard_rate_hz)


async def originate(
    asterisk: Asterisk, server: Server, application: str, data: str = ""
) -> AgentCall:
    """Connect an application of Asterisk with the agent, through a Local channel."""
    call_id = str(uuid.uuid4())
    await asterisk.load_dialplan(f"""
[local]
exten => agent,1,Answer()
 same => n,AudioSocket({call_id},{server.host}:{server.port})
 same => n,Hangup()
""")
    await asterisk.ami.originate("Local/agent@local", application, data)
    return await server.wait_call(call_id)


async def test_agent_hears_the_tone_that_asterisk_makes(
    asterisk: Asterisk, servers: Mapping[str, Server]
) -> None:
    async with asyncio.timeout(TEST_TIMEOUT_S):
        agent = await originate(asterisk, servers["ulaw"], "Milliwatt")
        await until(lambda: heard_s(agent) > 0.9 * TONE_S)
        measured = measure_tone(agent.heard(), agent.heard_rate_hz)
        await agent.play(tone(AGENT_HZ, 0.2, PLAY_RATE_HZ))
        await asyncio.sleep(0.5)
        await agent.hang_up()
        await until_no_channel(asterisk)
    assert_clean(measured, MILLIWATT_HZ)


async def test_asterisk_records_the_tone_that_the_agent_plays(
    asterisk: Asterisk, servers: Mapping[str, Server]
) -> None:
    async with asyncio.timeout(TEST_TIMEOUT_S):
        data = f"{asterisk.inside}/heard.wav,0,20,kq"
        agent = await originate(asterisk, servers["ulaw"], "Record", data)
        await agent.play(tone(AGENT_HZ, TONE_S, PLAY_RATE_HZ))
        await asyncio.sleep(TONE_S + 1.0)
        await agent.hang_up()
        await until_no_channel(asterisk)
    with wave.open(str(asterisk.directory / "heard.wav")) as recording:
        measured = measure_tone(recording.readframes(recording.getnframes()), 8_000)
    assert_clean(measured, AGENT_HZ)


async def test_keys_sent_by_asterisk_arrive(
    asterisk: Asterisk, servers: Mapping[str, Server]
) -> None:
    async with asyncio.timeout(TEST_TIMEOUT_S):
        agent = await originate(asterisk, servers["ulaw"], "SendDTMF", "9876543210")
        await until(lambda: len(agent.dtmf) >= 10, timeout_s=10.0)
        await agent.wait_ended()  # SendDTMF() is done and hangs up
        await until_no_channel(asterisk)
    assert agent.dtmf == "9876543210"


async def test_twenty_sipp_calls_at_once_are_all_heard(
    asterisk: Asterisk, servers: Mapping[str, Server]
) -> None:
    server = servers["ulaw"]
    shutil.copy(Path(__file__).parent / "sipp/ulaw_call.xml", asterisk.directory)
    (asterisk.directory / "tone.ulaw").write_bytes(encode_ulaw(tone(CALLER_HZ, 4.0, 8_000)))
    await asterisk.load_dialplan(f"""
[phones]
exten => agent,1,Answer()
 same => n,Set(CALL_ID=${{UUID()}})
 same => n,AudioSocket(${{CALL_ID}},{server.host}:{server.port})
 same => n,Hangup()
""")
    async with asyncio.timeout(TEST_TIMEOUT_S):
        sipp = asyncio.create_task(run_sipp(asterisk, SIPP_CALLS))
        agents = await wait_agents(asterisk, server, SIPP_CALLS)
        for agent in agents:
            await until(lambda: heard_s(agent) > 0.9 * TONE_S)  # noqa: B023
        measured = [measure_tone(agent.heard(), agent.heard_rate_hz) for agent in agents]
        for agent in agents:
            await agent.play(tone(AGENT_HZ, 0.2, PLAY_RATE_HZ))
        await asyncio.sleep(0.5)
        await asyncio.gather(*(agent.hang_up() for agent in agents))
        status, output = await sipp
        await until_no_channel(asterisk)
    assert status == 0, output
    for each in measured:
        assert_clean(each, CALLER_HZ)


async def wait_agents(asterisk: Asterisk, server: Server, count: int) -> list[AgentCall]:
    """Return the agents' sides of all calls that the dialplan has given UUIDs."""

    def call_ids() -> list[str]:
        events = asterisk.ami.events
        return [each["Value"] for each in events if each.get("Variable") == "CALL_ID"]

    await until(lambda: len(call_ids()) >= count)
    assert len(call_ids()) == count
    return [await server.wait_call(call_id) for call_id in call_ids()]


async def run_sipp(asterisk: Asterisk, calls: int) -> tuple[int, str]:
    """Make so many calls at once; return SIPp's exit status, 0 if all went well, and output."""
    options = f"""
        -sf {asterisk.inside}/ulaw_call.xml -s agent -i 127.0.0.1 -mi 127.0.0.1
        -m {calls} -l {calls} -r {calls} -rp 500 -nostdin -nd -timeout 20s -timeout_error
        127.0.0.1:{asterisk.ports.sip}
    """
    return await asterisk.run("sipp", *options.split(), timeout_s=25.0)
