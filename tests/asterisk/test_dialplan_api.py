"""Calls that the dialplan registers with the API, through config/asterisk/ as it stands, in a real
Asterisk: registered, answered, written down, hung up; and what a caller gets when the API says no.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest

from tests.asterisk.phone import Phone
from tests.asterisk.rig import Asterisk
from tests.asterisk.test_dialplans import EXTENSIONS
from tests.asterisk.waiting import until_no_channel
from tests.fakes.agent import AgentConnection, FakeAgent
from tests.fakes.asterisk import AsteriskCall
from tests.integration.api.calls_client import Telephony, open_telephony
from tests.integration.daemon import Daemon, settings
from tests.own_stalls import no_longer_than
from tests.sound import tone

pytestmark = pytest.mark.asyncio(loop_scope="session")

NUMBER = "100"
PROMPT = "You answer the telephone of a bakery."
TEST_TIMEOUT_S = 25.0
REFUSED_S = 5.0
"""How long a caller may wait for what callers get without an agent: 3 s by the dialplan."""


async def greet(agent: AgentConnection) -> None:
    """Talk with the caller, then hang up."""
    await agent.say(tone(440, 0.3, 8000), 8000)
    await agent.tell("bot-transcription", text="Good morning!")
    await asyncio.sleep(0.01)  # segments are told apart by their offsets
    await agent.tell("user-transcription", text="Two rolls.", final=True)
    await asyncio.sleep(0.3)
    await agent.close(1000)


@asynccontextmanager
async def telephony_of(asterisk: Asterisk, **audiosocket: Any) -> AsyncIterator[Telephony]:
    """Run a mediad with its API, which the dialplan uses."""
    async with FakeAgent(greet) as agent:
        async with open_telephony(settings(agent.url, audiosocket=audiosocket)) as telephony:
            await load(asterisk, telephony.daemon, telephony.ours.key)
            yield telephony


async def load(asterisk: Asterisk, daemon: Daemon, key: str, context: str = "mediad-api") -> None:
    """Let phones call one of the project's contexts."""
    text = f"{EXTENSIONS.read_text()}\n[phones]\ninclude => {context}\n"
    await asterisk.load_dialplan(text)
    await asterisk.set_global("MEDIAD", "{}:{}".format(*daemon.app.audiosocket_address))
    await asterisk.set_global("MEDIAD_API", "http://{}:{}".format(*daemon.app.http_address))
    await asterisk.set_global("MEDIAD_KEY", key)


async def call_id_of(asterisk: Asterisk) -> str:
    """Return the UUID that the dialplan has got."""
    event = await asterisk.ami.wait_event("VarSet", Variable="CALL_ID")
    return event["Value"]


async def is_refused(asterisk: Asterisk, phone: Phone) -> None:
    """Call, and get what callers get without an agent, before anybody has answered."""
    async with no_longer_than(REFUSED_S):
        with pytest.raises(ConnectionError, match="500"):
            await phone.call(NUMBER)
    await asterisk.ami.wait_event("Newexten", Context="mediad-unavailable")
    await until_no_channel(asterisk)


async def test_call_is_registered_answered_written_down_and_hung_up(asterisk: Asterisk) -> None:
    async with asyncio.timeout(TEST_TIMEOUT_S), telephony_of(asterisk) as telephony:
        ours = telephony.ours
        agent_id = await ours.add_agent({"prompt": PROMPT})
        await ours.add_number(NUMBER, agent_id)
        async with Phone(asterisk.sip) as phone:
            await phone.call(NUMBER)
            call_id = await call_id_of(asterisk)
            await asterisk.ami.wait_event("Newexten", Context="mediad-after")
            await phone.ended.wait()
        await until_no_channel(asterisk)
        call = await ours.eventually(
            f"/v1/calls/{call_id}", lambda body: body["status"] == "completed"
        )
        assert (call["source"], call["destination"]) == ("phone", NUMBER)
        assert (call["agent_id"], call["agent_config"]["prompt"]) == (agent_id, PROMPT)
        assert (call["hangup_by"], call["hangup_cause"]) == ("agent", "normal_clearing")
        assert call["metadata"]["channel"].startswith("PJSIP/phone")
        said = (await ours.get(f"/v1/calls/{call_id}/transcript"))[1]
        assert said["text"] == "Agent: Good morning!\nUser: Two rolls."
        assert any(phone.heard())
        await check_facts(telephony, call, said["result"])


async def check_facts(
    telephony: Telephony, call: dict[str, Any], said: list[dict[str, Any]]
) -> None:
    """Compare what was told as it happened with what is kept."""
    facts = [seen.event for seen in telephony.daemon.seen if seen.event.is_fact]
    assert {fact.call_id for fact in facts} == {call["id"]}
    assert [fact.type for fact in facts] == [
        "call_created",
        "call_updated",
        "transcribe_started",
        "transcript_created",
        "transcript_created",
        "transcribe_done",
        "call_hungup",
    ]
    created, hungup = facts[0].data, facts[-1].data
    for name in ("source", "destination", "agent_id", "number_id", "agent_config", "metadata"):
        assert created[name] == call[name]
    for name in ("status", "hangup_by", "hangup_cause", "counters"):
        assert hungup[name] == call[name]
    assert round(hungup["duration_s"] * 1000) == call["duration_ms"]
    spoken = [(fact.event_id, fact.data["text"]) for fact in facts[3:5]]
    assert spoken == [(segment["id"], segment["message"]) for segment in said]


async def test_call_goes_on_when_its_agent_breaks_off(asterisk: Asterisk) -> None:
    async def break_off(agent: AgentConnection) -> None:
        await agent.say(tone(440, 0.1, 8000), 8000)
        await agent.close(1008)

    async with asyncio.timeout(TEST_TIMEOUT_S), FakeAgent(break_off) as agent:
        async with open_telephony(settings(agent.url)) as telephony:
            await telephony.ours.add_number(NUMBER, None)
            await load(asterisk, telephony.daemon, telephony.ours.key)
            async with Phone(asterisk.sip) as phone:
                await phone.call(NUMBER)
                await asterisk.ami.wait_event("Newexten", Context="mediad-unavailable")
                await phone.ended.wait()
            await until_no_channel(asterisk)


async def test_wrong_key_leads_to_what_callers_get_without_an_agent(asterisk: Asterisk) -> None:
    async with asyncio.timeout(TEST_TIMEOUT_S), telephony_of(asterisk) as telephony:
        await telephony.ours.add_number(NUMBER, None)
        await asterisk.set_global("MEDIAD_KEY", "wrong")
        async with Phone(asterisk.sip) as phone:
            await is_refused(asterisk, phone)


async def test_number_that_nobody_answers_leads_there_too(asterisk: Asterisk) -> None:
    async with asyncio.timeout(TEST_TIMEOUT_S), telephony_of(asterisk):
        async with Phone(asterisk.sip) as phone:
            await is_refused(asterisk, phone)


@pytest.mark.parametrize("how", ["refuses", "hangs"])
async def test_api_that_is_away_leads_there_too(asterisk: Asterisk, how: str) -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with asyncio.timeout(TEST_TIMEOUT_S), telephony_of(asterisk):
        server = await asyncio.start_server(hang, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        if how == "refuses":
            server.close()
        await asterisk.set_global("MEDIAD_API", f"http://127.0.0.1:{port}")
        async with Phone(asterisk.sip) as phone:
            await is_refused(asterisk, phone)
        server.close()


async def test_uuid_works_once(asterisk: Asterisk) -> None:
    async with asyncio.timeout(TEST_TIMEOUT_S), telephony_of(asterisk) as telephony:
        await telephony.ours.add_number(NUMBER, None)
        async with Phone(asterisk.sip) as phone:
            await phone.call(NUMBER)
            call_id = await call_id_of(asterisk)
            await phone.ended.wait()
        await until_no_channel(asterisk)
        address = telephony.daemon.app.audiosocket_address
        async with AsteriskCall(address, UUID(call_id)) as again:
            await again.hung_up()
        assert len(telephony.events("call_created")) == 1


async def test_unregistered_call_is_rejected_where_that_is_wanted(asterisk: Asterisk) -> None:
    async with asyncio.timeout(TEST_TIMEOUT_S):
        async with telephony_of(asterisk, unknown_calls="reject") as telephony:
            await load(asterisk, telephony.daemon, telephony.ours.key, "mediad")
            async with Phone(asterisk.sip) as phone:
                await phone.call(NUMBER)
                await phone.ended.wait()
            await until_no_channel(asterisk)
            assert not telephony.events("call_created")
            name = "mediad_audiosocket_connections_closed_total"
            assert await telephony.daemon.metric(name, reason="unknown_uuid") == 1
