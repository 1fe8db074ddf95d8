"""Calls over HTTP: registered, looked at, told what to do; and the two endpoints for dialplans."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from fastapi.routing import APIRoute

from mediad.api import calls, dialplan
from mediad.api.access import Operator, Viewer
from mediad.store.agents import AgentConfig
from mediad.wav import write_wav
from tests.fakes.agent import AgentConnection, FakeAgent
from tests.integration.api.calls_client import Customer, Telephony, open_telephony
from tests.integration.daemon import eventually, settings
from tests.sound import measure_tone, tone

PROMPT = "You answer the telephone of a bakery."
NUMBER = "+4930111"


async def greet(agent: AgentConnection) -> None:
    """Say something, in sound and in words."""
    await agent.say(tone(440, 0.1, 8000), 8000)
    await agent.tell("bot-transcription", text="Good morning!")
    await asyncio.sleep(0.01)  # segments are told apart by their offsets
    await agent.tell("user-transcription", text="Two rolls.", final=True)


@pytest.fixture
async def agent() -> AsyncIterator[FakeAgent]:
    """The agent of all calls."""
    async with FakeAgent(greet) as agent:
        yield agent


@pytest.fixture
async def telephony(agent: FakeAgent, tmp_path: Path) -> AsyncIterator[Telephony]:
    """A mediad with its API, and two customers."""
    hold = tmp_path / "hold.wav"
    write_wav(hold, 22050, tone(700, 0.3, 22050))
    wanted = settings(agent.url, ai={"prompts": {"hold": hold}})
    async with open_telephony(wanted) as telephony:
        yield telephony


async def register(customer: Customer, **fields: Any) -> dict[str, Any]:
    """Register a call to the customer's number."""
    status, body = await customer.post("/v1/calls", {"from": "alice", "to": NUMBER} | fields)
    assert status == 201, body
    return dict(body)


# Registering


async def test_call_goes_to_the_called_numbers_agent_with_its_override(
    telephony: Telephony, agent: FakeAgent
) -> None:
    ours = telephony.ours
    config = {"prompt": PROMPT, "language": "de-DE", "flow": {"response_delay_ms": 100}}
    agent_id = await ours.add_agent(config)
    override = {"flow": {"user_start_first": True}, "variables": {"shop": "2"}}
    number_id = await ours.add_number(NUMBER, agent_id, override)
    call = await register(ours, channel="PJSIP/1", metadata={"queue": {"name": "x"}})
    assert (call["status"], call["direction"]) == ("ringing", "inbound")
    assert (call["source"], call["destination"]) == ("alice", NUMBER)
    assert (call["agent_id"], call["number_id"]) == (agent_id, number_id)
    assert call["metadata"] == {"queue": {"name": "x"}, "channel": "PJSIP/1"}
    snapshot = call["agent_config"]
    assert snapshot["flow"]["response_delay_ms"] == 100
    assert snapshot["flow"]["user_start_first"] is True
    assert call["live"]["state"] == "expected"
    async with telephony.call(UUID(call["id"])):
        connection = await agent.connection()
        await connection.until(lambda agent: bool(agent.rtvi("client-ready")))
        (ready,) = connection.rtvi("client-ready")
        told = ready["about"]["platform_details"]
        assert told["agent"]["prompt"] == PROMPT
        assert told["variables"] == {"shop": "2"}
        status, live = await ours.get(f"/v1/calls/{call['id']}")
        assert status == 200
        assert live["live"]["state"] == "live"
        assert live["agent_config"] == snapshot


async def test_call_can_name_its_agent_or_another_number(telephony: Telephony) -> None:
    ours = telephony.ours
    agent_id = await ours.add_agent({"prompt": PROMPT})
    number_id = await ours.add_number(NUMBER, agent_id)
    call = await register(ours, to="s", agent_id=agent_id)
    assert (call["agent_id"], call["number_id"]) == (agent_id, None)
    call = await register(ours, to="s", number=NUMBER)
    assert (call["destination"], call["number_id"]) == ("s", number_id)


async def test_number_without_an_agent_leaves_the_call_to_the_default_one(
    telephony: Telephony,
) -> None:
    await telephony.ours.add_number(NUMBER, None)
    call = await register(telephony.ours)
    assert (call["agent_id"], call["agent_config"]) == (None, None)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"to": "+4930999"}, "unknown_number"),
        ({"to": "+4930222"}, "unknown_number"),  # the other customer's
        ({"to": "+4930333"}, "inactive_number"),
        ({"agent_id": "nobody"}, "unknown_agent"),
        ({"to": "+4930444"}, "bad_config"),
    ],
)
async def test_call_that_nobody_answers_is_refused(
    telephony: Telephony, fields: dict[str, Any], reason: str
) -> None:
    ours = telephony.ours
    agent_id = await ours.add_agent({"prompt": PROMPT})
    await ours.add_number("+4930333", agent_id, status="inactive")
    voice = {"provider": "openai", "voice_id": "alloy"}
    loses_its_voice = await ours.add_agent({"prompt": PROMPT, "voice": voice})
    await ours.add_number("+4930444", loses_its_voice, {"voice": {"model": "x"}})
    path, config = f"/v1/agents/{loses_its_voice}", {"config": {"prompt": PROMPT}}
    assert (await ours.ask("PATCH", path, config, key=telephony.root)).status_code == 200
    await telephony.theirs.add_number("+4930222", None)
    status, body = await ours.post("/v1/calls", {"from": "alice", "to": NUMBER} | fields)
    assert (status, body["error"]["reason"]) == (409, reason)


async def test_metadata_is_bounded(telephony: Telephony) -> None:
    await telephony.ours.add_number(NUMBER, None)
    fields = {"to": NUMBER, "metadata": {"x": "y" * 20_000}}
    status, body = await telephony.ours.post("/v1/calls", fields)
    assert (status, body["error"]["reason"]) == (422, "metadata_too_large")


@pytest.mark.parametrize(
    "metadata",
    [
        '{"x": NaN}',
        '{"x": "\\ud800"}',
        '{"\\udfff": 1}',
        "9223372036854775808",
        "[" * 20 + "]" * 20,
        "[" * 900 + "]" * 900,
    ],
)
async def test_metadata_that_cannot_be_kept_is_refused(telephony: Telephony, metadata: str) -> None:
    await telephony.ours.add_number(NUMBER, None)
    body = f'{{"to": "{NUMBER}", "metadata": {{"a": {metadata}}}}}'.encode()
    status, _ = await telephony.ours.post_raw("/v1/calls", body, "application/json")
    assert status == 422


@pytest.mark.parametrize(
    "query",
    [
        "since=0001-01-01T00:00:00%2B14:00",
        "until=9999-12-31T23:59:59-14:00",
        "since=2026-01-01T00:00:00",  # of no time zone
        "page_token=x",
        "page_size=0",
        "status=over",
    ],
)
async def test_list_that_makes_no_sense_is_refused(telephony: Telephony, query: str) -> None:
    assert (await telephony.ours.get(f"/v1/calls?{query}"))[0] == 422


# A whole call


async def test_call_is_told_as_it_happens_and_kept(telephony: Telephony) -> None:
    ours = telephony.ours
    agent_id = await ours.add_agent({"prompt": PROMPT})
    await ours.add_number(NUMBER, agent_id)
    call_id = (await register(ours))["id"]
    path = f"/v1/calls/{call_id}"
    async with telephony.call(UUID(call_id)) as call:
        await call.hears_words()
        await eventually(lambda: bool(telephony.events("transcript_created")))
        assert (await ours.get(path))[1]["live"]["agent"] == "open"
        assert await ours.post(f"{path}/hangup") == (204, None)
        await call.hung_up()
        await eventually(lambda: bool(telephony.events("call_hungup")))
    assert await ours.post(f"{path}/hangup") == (409, await _lost(ours, path))
    ended = await ours.eventually(path, lambda body: body["status"] == "completed")
    assert ended["live"] is None
    assert (ended["hangup_by"], ended["hangup_cause"]) == ("system", "normal_clearing")
    assert ended["tm_start"] < ended["tm_answer"] < ended["tm_hangup"]
    said = await ours.eventually(f"{path}/transcript", lambda body: len(body["result"]) == 2)
    assert said["text"] == "Agent: Good morning!\nUser: Two rolls."
    status, listed = await ours.get("/v1/calls?status=completed&number=%2B4930111")
    assert (status, [one["id"] for one in listed["result"]]) == (200, [call_id])
    status, listed = await ours.get("/v1/calls?status=failed")
    assert listed == {"result": [], "next_page_token": None}
    counted = await ours.agent(agent_id)
    assert (counted.total_calls, counted.completed_calls) == (1, 1)
    assert counted.total_duration_ms == ended["duration_ms"]
    shown = (await ours.get(f"/v1/agents/{agent_id}"))[1]
    assert shown["average_duration_s"] == ended["duration_ms"] / 1000
    assert shown["success_rate"] == 1.0
    (listed,) = (await ours.get("/v1/agents"))[1]["result"]
    assert listed == shown


async def _lost(customer: Customer, path: str) -> dict[str, Any]:
    body = (await customer.post(f"{path}/hangup"))[1]
    assert body["error"]["reason"] == "call_lost"
    return dict(body)


async def test_call_that_was_just_registered_is_there(telephony: Telephony) -> None:
    await telephony.ours.add_number(NUMBER, None)
    for _ in range(20):  # however far it is on its way to the database
        call = await register(telephony.ours)
        status, again = await telephony.ours.get(f"/v1/calls/{call['id']}")
        assert status == 200
        assert (again["status"], again["live"]) == ("ringing", call["live"])


# Commands


async def test_audio_and_prompts_are_played(telephony: Telephony, tmp_path: Path) -> None:
    ours = telephony.ours
    await ours.add_number(NUMBER, None)
    call_id = (await register(ours))["id"]
    wav = tmp_path / "a.wav"
    write_wav(wav, 48000, tone(900, 0.3, 48000))
    path = f"/v1/calls/{call_id}/play"
    async with telephony.call(UUID(call_id)) as call:
        await call.hears_words()
        await eventually(lambda: not any(heard.is_audible for heard in call.audio[-10:]))
        before = len(call.words)
        assert await ours.post(path, {"prompt": "hold"}) == (200, {"duration_ms": 300})
        await eventually(lambda: len(call.words) >= before + 4_600)
        assert measure_tone(call.words[before:], 8000).hz == pytest.approx(700, abs=5)
        await eventually(lambda: not any(heard.is_audible for heard in call.audio[-10:]))
        before = len(call.words)
        answer = await ours.post_raw(path, wav.read_bytes(), "audio/wav")
        assert answer == (200, {"duration_ms": 300})
        await eventually(lambda: len(call.words) >= before + 4_600)
        assert measure_tone(call.words[before:], 8000).hz == pytest.approx(900, abs=5)


@pytest.mark.parametrize(
    ("body", "kind", "status", "reason"),
    [
        (b"RIFF....", "audio/wav", 422, "bad_audio"),
        (b'{"prompt": "nothing"}', "application/json", 422, "unknown_prompt"),
        (b"{", "application/json", 422, "bad_request"),
        (b"hello", "text/plain", 415, "unsupported_media_type"),
        (bytes(3 << 20), "audio/wav", 413, "too_large"),
    ],
)
async def test_what_cannot_be_played_is_refused(
    telephony: Telephony, body: bytes, kind: str, status: int, reason: str
) -> None:
    await telephony.ours.add_number(NUMBER, None)
    call_id = (await register(telephony.ours))["id"]
    got = await telephony.ours.post_raw(f"/v1/calls/{call_id}/play", body, kind)
    assert (got[0], got[1]["error"]["reason"]) == (status, reason)


async def test_agent_is_told_and_somebody_muted(telephony: Telephony, agent: FakeAgent) -> None:
    ours = telephony.ours
    await ours.add_number(NUMBER, None)
    call_id = (await register(ours))["id"]
    path = f"/v1/calls/{call_id}"
    async with telephony.call(UUID(call_id)):
        connection = await agent.connection()
        assert await ours.post(f"{path}/inject", {"text": "Be brief."}) == (204, None)
        await connection.until(lambda agent: bool(agent.rtvi("send-text")))
        assert await ours.post(f"{path}/mute", {"who": "agent"}) == (204, None)
        assert (await ours.get(path))[1]["live"]["muted"] == ["agent"]
        assert await ours.post(f"{path}/unmute", {"who": "agent"}) == (204, None)
        assert (await ours.get(path))[1]["live"]["muted"] == []
        status, body = await ours.post(f"{path}/say", {"text": "hello"})
        assert (status, body["error"]["reason"]) == (409, "not_supported")


COMMANDS = {
    "hangup": None,
    "say": {"text": "x"},
    "play": {"prompt": "hold"},
    "inject": {"text": "x"},
    "mute": {},
    "unmute": {},
}


@pytest.mark.parametrize("command", COMMANDS)
async def test_another_customers_call_is_not_there(telephony: Telephony, command: str) -> None:
    await telephony.ours.add_number(NUMBER, None)
    call_id = (await register(telephony.ours))["id"]
    async with telephony.call(UUID(call_id)):
        for unknown in (call_id, str(uuid4()), "no-uuid"):
            path = f"/v1/calls/{unknown}/{command}"
            status, body = await telephony.theirs.post(path, COMMANDS[command])
            assert (status, body["error"]["reason"]) == (404, "not_found")


async def test_another_customers_calls_cannot_be_read(telephony: Telephony) -> None:
    await telephony.ours.add_number(NUMBER, None)
    call_id = (await register(telephony.ours))["id"]
    for path in (f"/v1/calls/{call_id}", f"/v1/calls/{call_id}/transcript"):
        assert (await telephony.theirs.get(path))[0] == 404
    assert (await telephony.theirs.get("/v1/calls"))[1]["result"] == []


async def test_nothing_is_told_or_done_without_a_key(telephony: Telephony) -> None:
    await telephony.ours.add_number(NUMBER, None)
    path = f"/v1/calls/{(await register(telephony.ours))['id']}"
    nobody = telephony.nobody
    for readable in ("/v1/calls", path, f"{path}/transcript"):
        assert (await nobody.get(readable))[0] == 401
    assert (await nobody.post("/v1/calls", {"to": NUMBER}))[0] == 401
    for command, body in COMMANDS.items():
        assert (await nobody.post(f"{path}/{command}", body))[0] == 401


def test_who_has_a_say_in_calls_is_more_than_a_viewer() -> None:
    routes = [*calls.router.routes, *dialplan.router.routes]
    assert len(routes) == 12
    for route in routes:
        assert isinstance(route, APIRoute)
        reads = route.methods == {"GET"} and "/dialplan" not in route.path
        wanted = Viewer if reads else Operator
        assert route.endpoint.__annotations__["access"] == wanted, route.path


# The dialplan


async def test_dialplan_gets_a_uuid_and_nothing_else(telephony: Telephony) -> None:
    ours = telephony.ours
    await ours.add_number(NUMBER, None)
    form = b"from=%2B4989%201&to=%2B4930111&channel=PJSIP%2F1&queue=sales"
    status, headers, body = await ours.dialplan("POST", "/calls", form)
    assert status == 200
    assert headers["content-type"].startswith("text/plain")
    assert str(UUID(body)) == body  # 36 characters, no newline
    call = (await ours.get(f"/v1/calls/{body}"))[1]
    assert (call["source"], call["destination"]) == ("+4989 1", NUMBER)
    assert call["metadata"] == {"channel": "PJSIP/1", "queue": "sales"}


async def test_dialplan_is_told_what_comes_next(telephony: Telephony, agent: FakeAgent) -> None:
    ours = telephony.ours
    await ours.add_number(NUMBER, None)

    async def call_ended_by(code: int) -> str:
        _, _, call_id = await ours.dialplan("POST", "/calls", b"to=%2B4930111")
        number = len(agent.connections)
        async with telephony.call(UUID(call_id)) as call:
            connection = await agent.connection(number)
            await call.hears_words()
            _, headers, body = await ours.dialplan("GET", f"/calls/{call_id}/next")
            assert (body, headers["x-mediad-reason"]) == ("", "call_lives")
            await connection.close(code)
            await call.hung_up()
        return (await ours.dialplan("GET", f"/calls/{call_id}/next"))[2]

    assert await call_ended_by(1000) == "hangup"
    assert await call_ended_by(1008) == "continue"


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        (b"to=%2B4930999", "unknown_number"),
        (b"", "unknown_number"),
        (b"to=" + b"1" * 300, "bad_request"),
        (b"x" * 10_000, "too_large"),
        (b"&".join(b"%d=1" % number for number in range(100)), "bad_request"),
        (b"to=%ff%fe", "unknown_number"),
    ],
)
async def test_dialplan_gets_nothing_but_a_reason_when_something_is_wrong(
    telephony: Telephony, form: bytes, reason: str
) -> None:
    status, headers, body = await telephony.ours.dialplan("POST", "/calls", form)
    assert (status, headers["x-mediad-reason"], body) == (200, reason, "")


async def test_dialplan_gets_nothing_without_a_key(telephony: Telephony) -> None:
    form = b"to=%2B4930111"
    status, headers, body = await telephony.nobody.dialplan("POST", "/calls", form)
    assert (status, headers["x-mediad-reason"], body) == (200, "unauthorized", "")
    call_id = str(uuid4())
    _, headers, body = await telephony.ours.dialplan("GET", f"/calls/{call_id}/next")
    assert (headers["x-mediad-reason"], body) == ("not_found", "")


def test_snapshot_has_every_default_of_a_config() -> None:
    config = AgentConfig.model_validate({"prompt": PROMPT, "url": "ws://agent:1/{call_id}"})
    stored = json.loads(config.model_dump_json())
    assert stored["url"] == ["ws://agent:1/{call_id}"]
    assert stored["session_timeout_s"] == 300
    assert AgentConfig.model_validate(stored) == config
