"""The dialplans of README.md and config/asterisk/, as they stand, in a real Asterisk."""

import asyncio
import re
import socket
from collections.abc import Mapping
from pathlib import Path

import pytest

from mediad.config import AudioSocket
from tests.asterisk.phone import Phone
from tests.asterisk.rig import Asterisk
from tests.asterisk.seam import PLAY_RATE_HZ, AgentCall, Server
from tests.asterisk.waiting import HANG_UP_TIMEOUT_S, until, until_no_channel
from tests.own_stalls import no_longer_than
from tests.sound import tone

pytestmark = pytest.mark.asyncio(loop_scope="session")

ROOT = Path(__file__).parents[2]
EXTENSIONS = ROOT / "config/asterisk/extensions.conf"
CONTEXTS = [
    "mediad",
    "mediad-dial",
    "mediad-dial-slin",
    "mediad-dial-ulaw",
    "mediad-dial-alaw",
    "mediad-dial-slin16",
]
TEST_TIMEOUT_S = 25.0

every_context = pytest.mark.parametrize("context", CONTEXTS)


async def load(asterisk: Asterisk, context: str, address: str) -> None:
    """Load the project's dialplans; calls from phones go to one of its contexts."""
    await asterisk.load_dialplan(f"{EXTENSIONS.read_text()}\n[phones]\ninclude => {context}\n")
    await asterisk.set_global("MEDIAD", address)


async def wait_agent(asterisk: Asterisk, server: Server) -> AgentCall:
    """Return the agent's side of the call that the dialplan has just given a UUID."""
    event = await asterisk.ami.wait_event("VarSet", Variable="CALL_ID")
    return await server.wait_call(event["Value"])


async def talk(phone: Phone, agent: AgentCall) -> None:
    """Press a key, hear a tone, and be hung up on."""
    await phone.press("1")
    await until(lambda: agent.dtmf != "")
    assert agent.dtmf == "1"
    await agent.play(tone(1_000, 0.3, PLAY_RATE_HZ))
    await until(lambda: any(phone.heard()))
    assert any(phone.heard())
    await agent.hang_up()


def readme_dialplan(address: str) -> str:
    """Return the dialplan in README.md, with this address for the default one."""
    default = f"{AudioSocket().host}:{AudioSocket().port}"
    text = (ROOT / "README.md").read_text()
    (block,) = re.findall(r"^```\n(exten => .*?)^```", text, re.DOTALL | re.MULTILINE)
    assert block.count(f",{default})") == 1, block
    return f"[phones]\n{block.replace(default, address)}"


@every_context
async def test_every_context_leads_to_the_agent_and_goes_on_afterwards(
    asterisk: Asterisk, servers: Mapping[str, Server], context: str
) -> None:
    server = servers["alaw" if context.endswith("alaw") else "ulaw"]
    await load(asterisk, context, f"{server.host}:{server.port}")
    async with asyncio.timeout(TEST_TIMEOUT_S), Phone(asterisk.sip) as phone:
        await phone.call("100")
        agent = await wait_agent(asterisk, server)
        await talk(phone, agent)
        async with no_longer_than(HANG_UP_TIMEOUT_S):
            await asterisk.ami.wait_event("Newexten", Context="mediad-after")
        async with no_longer_than(HANG_UP_TIMEOUT_S):
            await phone.ended.wait()
        await until_no_channel(asterisk)


@every_context
async def test_refused_connection_leads_to_what_callers_get_without_an_agent(
    asterisk: Asterisk, context: str
) -> None:
    with socket.socket() as unused:  # bound, but not listening: connections are refused
        unused.bind(("127.0.0.1", 0))
        await load(asterisk, context, f"127.0.0.1:{unused.getsockname()[1]}")
        async with asyncio.timeout(TEST_TIMEOUT_S), Phone(asterisk.sip) as phone:
            try:
                await phone.call("100")
                await phone.ended.wait()  # [mediad] has answered before
            except ConnectionError as exc:
                assert "500" in str(exc)  # noqa: PT017
            await asterisk.ami.wait_event("Newexten", Context="mediad-unavailable")
            await until_no_channel(asterisk)


async def test_dialplan_of_the_readme_leads_to_the_agent_and_hangs_up_after_it(
    asterisk: Asterisk, servers: Mapping[str, Server]
) -> None:
    server = servers["ulaw"]
    await asterisk.load_dialplan(readme_dialplan(f"{server.host}:{server.port}"))
    async with asyncio.timeout(TEST_TIMEOUT_S), Phone(asterisk.sip) as phone:
        await phone.call("700")
        step = await asterisk.ami.wait_event("Newexten", Application="AudioSocket")
        agent = await server.wait_call(step["AppData"].partition(",")[0])
        await talk(phone, agent)
        await asterisk.ami.wait_event("Newexten", Application="Hangup")
        async with no_longer_than(HANG_UP_TIMEOUT_S):
            await phone.ended.wait()
        await until_no_channel(asterisk)
