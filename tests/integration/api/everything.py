"""One of each thing that the API knows, of one customer."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID, uuid4

from mediad.config import Settings
from mediad.wav import write_wav
from tests.facts import CallFacts
from tests.fakes.agent import AgentConnection, FakeAgent
from tests.integration.api.calls_client import Customer, Telephony
from tests.integration.daemon import settings
from tests.sound import tone

__all__ = ["CUSTOMER_URL", "PROMPT", "live_call", "make_everything", "settings_with_agent"]

PROMPT = "hold"
"""Can be played."""

CUSTOMER_URL = "https://127.0.0.1:9/hook"
"""Nobody is asked there: webhooks to addresses of this machine are refused."""


@asynccontextmanager
async def settings_with_agent(directory: Path) -> AsyncIterator[Settings]:
    """Give the settings of a mediad with an agent that takes its calls while the block runs."""
    hold = directory / "hold.wav"
    write_wav(hold, 8000, tone(700, 0.1, 8000))
    async with FakeAgent(_say_nothing) as agent:
        yield settings(agent.url, audiosocket={"max_calls": 10_000}, ai={"prompts": {PROMPT: hold}})


@asynccontextmanager
async def live_call(telephony: Telephony, number: str) -> AsyncIterator[str]:
    """Let somebody call this number while the block runs; give the call's id."""
    await telephony.ours.add_number(number, None)
    call_id = str((await telephony.ours.make("calls", to=number))["id"])
    async with telephony.call(UUID(call_id)):
        await telephony.ours.eventually(
            f"/v1/calls/{call_id}", lambda call: call["live"]["agent"] == "open"
        )
        yield call_id


async def make_everything(telephony: Telephony, number: str) -> dict[str, tuple[str, ...]]:
    """Make one of each for the customer ``ours``, calls that are expected, unfinished and past;
    return their ids by the names that paths have for them.
    """
    ours = telephony.ours
    agent_id = await ours.add_agent({"prompt": "You answer the telephone."})
    flow_id = (await ours.make("flows", name="hello", actions=[{"type": "answer"}]))["id"]
    fields = {"number": number, "agent_id": agent_id, "flow_id": flow_id}
    made = {
        "agent_id": agent_id,
        "flow_id": flow_id,
        "number_id": (await ours.make("numbers", **fields))["id"],
        "accesskey_id": (await ours.make("accesskeys", role="viewer"))["id"],
        "webhook_id": (await ours.make("webhooks", url=CUSTOMER_URL))["id"],
        "customer_id": ours.id,
    }
    expected = (await ours.make("calls", **{"from": "alice", "to": number}))["id"]
    past, unfinished = [CallFacts(str(uuid4()), ours.id) for _ in range(2)]
    facts = [past.created(), past.started(), past.said("Two rolls."), past.done()]
    facts += [past.recording(), past.recorded(), past.hungup(), unfinished.created()]
    for fact in facts:
        telephony.daemon.app.bus.publish(fact)
    made |= await _ids_that_come(ours, past)
    return {name: (id,) for name, id in made.items()} | {
        "call_id": (past.call_id, unfinished.call_id, expected)
    }


async def _ids_that_come(ours: Customer, past: CallFacts) -> Mapping[str, str]:
    """Wait until the database has what was told."""
    lists = {
        "transcribe_id": f"/v1/transcribes?call_id={past.call_id}",
        "transcript_id": f"/v1/calls/{past.call_id}/transcript",
        "recording_id": f"/v1/recordings?call_id={past.call_id}",
        "delivery_id": "/v1/webhook_deliveries",
    }
    found = {name: await ours.eventually(path, _has_rows) for name, path in lists.items()}
    return {name: body["result"][0]["id"] for name, body in found.items()}


def _has_rows(body: Mapping[str, object]) -> bool:
    return bool(body["result"])


async def _say_nothing(agent: AgentConnection) -> None:
    """Take the call."""
