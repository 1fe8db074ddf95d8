"""Registered calls, and commands to live ones, as the control plane sends them."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from mediad.bus.commands import (
    Command,
    Done,
    Ended,
    Expect,
    HangUp,
    How,
    Inject,
    LiveCall,
    Look,
    Mute,
    Play,
    Reply,
    Say,
)
from mediad.call import expected
from mediad.errors import CallLost, CommandRefused
from mediad.loop_thread import LoopThread
from mediad.metrics import Metrics
from mediad.store import calls, events
from mediad.store.calls import Call
from mediad.store.database import Database
from mediad.wire import frames
from mediad.wire.audiosocket import Kind, audio_message, uuid_message
from tests.fakes.agent import AgentConnection, FakeAgent, echo
from tests.fakes.asterisk import SILENCE, AsteriskCall
from tests.integration.daemon import Daemon, eventually, running, settings
from tests.integration.pipecat_peer import run_pipecat_agent
from tests.sound import measure_tone, tone

CUSTOMER = "0b6f3f5e-6a8c-4b4e-9a3f-000000000001"
LOUD = audio_message(Kind.SLIN, b"\x10\x20" * 160)
CONFIG: dict[str, Any] = {
    "prompt": "You answer the telephone.",
    "language": "de-DE",
    "first_message": "Hallo?",
    "session_timeout_s": 300,
    "variables": {"tier": "gold"},
}


async def expect(daemon: Daemon, **fields: Any) -> UUID:
    """Register a call; return its UUID."""
    call_id = uuid4()
    fields = {"source": "alice", "destination": "bob", "agent_config": CONFIG} | fields
    reply = await daemon.app.commands.send(str(call_id), Expect(CUSTOMER, **fields))
    assert reply == Done()
    return call_id


async def tell(daemon: Daemon, call: AsteriskCall | UUID, command: Command) -> Reply:
    """Send a command to a call."""
    call_id = call.call_id if isinstance(call, AsteriskCall) else call
    return await daemon.app.commands.send(str(call_id), command)


async def look(daemon: Daemon, call: AsteriskCall | UUID, customer_id: str = CUSTOMER) -> LiveCall:
    """Return how a call stands."""
    reply = await tell(daemon, call, Look(customer_id))
    assert isinstance(reply, LiveCall)
    return reply


async def talk(call: AsteriskCall, count: int = 1_000) -> None:
    """Be loud until cancelled."""
    await call.play([LOUD] * count)


# Registered calls


async def test_registered_call_is_answered_and_ends_under_its_customer() -> None:
    async def script(agent: AgentConnection) -> None:
        await agent.say(tone(440, 0.1, 8000), 8000)

    async with FakeAgent(script) as agent, running(settings(agent.url)) as daemon:
        call_id = await expect(daemon, agent_id="a-1", number_id="n-1", metadata={"queue": "1"})
        assert await look(daemon, call_id) == LiveCall("expected")
        async with daemon.call(call_id) as call:
            connection = await agent.connection()
            await call.hears_words()
            assert (await look(daemon, call)).state == "live"
            call.close()
            await daemon.hung_up(call)
    facts = [seen.event for seen in daemon.seen if seen.event.is_fact]
    assert {event.customer_id for event in facts} == {CUSTOMER}
    assert [event.type for event in facts] == ["call_created", "call_updated", "call_hungup"]
    created, updated, hungup = facts
    assert created.data == {
        "direction": "inbound",
        "status": "ringing",
        "source": "alice",
        "destination": "bob",
        "agent_id": "a-1",
        "number_id": "n-1",
        "agent_config": CONFIG,
        "metadata": {"queue": "1"},
    }
    assert updated.data == {"status": "in-progress"}
    assert hungup.data["status"] == "completed"
    assert connection.headers["X-Mediad-From"] == "alice"


async def test_agent_is_told_its_config_at_the_start() -> None:
    async with FakeAgent() as agent, running(settings(agent.url)) as daemon:
        call_id = await expect(daemon)
        async with daemon.call(call_id):
            connection = await agent.connection()
            await connection.until(lambda agent: bool(agent.rtvi("client-ready")))
            (ready,) = connection.rtvi("client-ready")
            details = ready["about"]["platform_details"]
            assert details["variables"] == {"tier": "gold"}
            told = {name: value for name, value in CONFIG.items() if name != "variables"}
            assert details["agent"] == told
            assert connection.headers["X-Mediad-Var-tier"] == "gold"


async def test_agent_with_an_address_of_its_own_gets_no_headers_of_ours() -> None:
    ai = {"headers": {"Authorization": "Bearer ours"}}
    async with FakeAgent() as ours, FakeAgent() as theirs:
        async with running(settings(ours.url, ai=ai)) as daemon:
            url = theirs.url + "/bot?caller={from}"
            call_id = await expect(daemon, agent_config=CONFIG | {"url": [url]})
            async with daemon.call(call_id):
                connection = await theirs.connection()
                assert connection.path == "/bot?caller=alice"
                assert "Authorization" not in connection.headers
        assert not ours.connections


async def test_agents_address_goes_before_dialling_in() -> None:
    async with FakeAgent() as agent, running(settings(())) as daemon:
        call_id = await expect(daemon, agent_config=CONFIG | {"url": [agent.url]})
        async with daemon.call(call_id):
            await agent.connection()


async def test_session_timeout_ends_the_call() -> None:
    async with FakeAgent() as agent, running(settings(agent.url)) as daemon:
        call_id = await expect(daemon, agent_config=CONFIG | {"session_timeout_s": 1})
        async with daemon.call(call_id) as call:
            await call.hung_up()
            assert await daemon.hung_up(call) == ("system", "normal_unspecified")


async def test_registered_uuid_works_once() -> None:
    async with FakeAgent() as agent, running(settings(agent.url)) as daemon:
        call_id = await expect(daemon)
        async with daemon.call(call_id) as call:
            await call.hears(1)
            call.close()
            await daemon.hung_up(call)
        async with daemon.call(call_id) as again:
            await again.hung_up()
        assert len(daemon.events("call_created")) == 1
        name = "mediad_audiosocket_connections_closed_total"
        assert await daemon.metric(name, reason="used_uuid") == 1
        with pytest.raises(CommandRefused) as refused:
            await tell(daemon, call_id, Expect(CUSTOMER))
        assert refused.value.reason == "duplicate_uuid"


async def test_call_that_never_comes_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expected, "ARRIVAL_S", 0.2)
    async with FakeAgent() as agent, running(settings(agent.url)) as daemon:
        call_id = await expect(daemon)
        end = await daemon.event("call_hungup")
        assert end.call_id == str(call_id)
        assert end.customer_id == CUSTOMER
        assert end.data == {
            "status": "failed",
            "duration_s": 0.0,
            "hangup_by": "system",
            "hangup_cause": "no_user_response",
            "counters": {},
        }
        async with daemon.call(call_id) as late:
            await late.hung_up()
        assert await daemon.metric("mediad_calls_missing_total", cause="no_user_response") == 1
        assert await daemon.metric("mediad_expected_calls") == 0
        assert len(daemon.events("call_hungup")) == 1


async def test_call_that_nobody_registered_can_be_rejected() -> None:
    async with FakeAgent() as agent:
        wanted = settings(agent.url, audiosocket={"unknown_calls": "reject"})
        async with running(wanted) as daemon:
            async with daemon.call() as unknown:
                await unknown.hung_up()
                assert not unknown.reset
            async with daemon.call(await expect(daemon)) as call:
                await call.hears(1)
            name = "mediad_audiosocket_connections_closed_total"
            assert await daemon.metric(name, reason="unknown_uuid") == 1
        assert not daemon.events("call_created", unknown)


async def test_expected_calls_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mediad.call.registry.MARGIN", 3)
    async with FakeAgent() as agent:
        async with running(settings(agent.url, audiosocket={"max_calls": 1})) as daemon:

            async def is_refused(customer_id: str) -> None:
                with pytest.raises(CommandRefused) as refused:
                    await tell(daemon, uuid4(), Expect(customer_id))
                assert refused.value.reason == "max_calls"

            for customer_id in ("a", "b"):  # there is room for four, and half is one customer's
                for _ in range(2):
                    await tell(daemon, uuid4(), Expect(customer_id))
                await is_refused(customer_id)
            await is_refused("c")


async def test_expected_call_for_which_there_is_no_room_ends() -> None:
    async with FakeAgent() as agent:
        async with running(settings(agent.url, audiosocket={"max_calls": 1})) as daemon:
            call_id = await expect(daemon)
            async with daemon.call(call_id, sends_uuid=False) as call, daemon.call() as other:
                await other.hears(1)
                call.send(uuid_message(call_id))
                await call.hung_up()
                end = await daemon.hung_up(call)
                assert end == ("system", "switching_equipment_congestion")


async def test_stop_ends_calls_that_have_not_come() -> None:
    async with FakeAgent() as agent, running(settings(agent.url)) as daemon:
        await expect(daemon)
    (end,) = daemon.events("call_hungup")
    assert (end.data["status"], end.data["hangup_cause"]) == ("failed", "normal_unspecified")


async def test_registered_call_ends_once_when_mediad_is_killed(tmp_path: Path) -> None:
    call_id = str(uuid4())
    environment = {
        "MEDIAD_AUDIOSOCKET__PORT": "0",
        "MEDIAD_HTTP__PORT": "0",
        "MEDIAD_DATABASE__DIRECTORY": str(tmp_path),
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.integration.expecting_mediad", call_id),
        cwd=Path(__file__).parents[2],
        env=os.environ | environment,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    async with asyncio.timeout(20):
        assert await process.stdout.readline() == b"call_created\n"
    process.kill()
    await process.wait()
    wanted = settings("ws://127.0.0.1:1", database={"directory": tmp_path})
    database = Database(wanted.database, Metrics())
    await database.open()
    try:
        for _ in range(2):  # the second start has nothing to end any more
            async with running(wanted):
                async with asyncio.timeout(15):
                    while (call := await _read(database, call_id)).status == "ringing":  # noqa: ASYNC110
                        await asyncio.sleep(0.02)
        async with database.read() as connection:
            told = await events.after(connection, "ours", 0, limit=10)
    finally:
        await database.close()
    assert (call.status, call.hangup_by) == ("failed", "system")
    assert [event.type for event in told] == ["call_created", "call_hungup"]


async def _read(database: Database, call_id: str) -> Call:
    async with database.read() as connection:
        call = await calls.get(connection, "ours", call_id)
    assert call is not None
    return call


# Commands


async def test_commands_come_from_another_loop() -> None:
    other = LoopThread("control")
    other.start()
    try:
        async with FakeAgent() as agent, running(settings(agent.url)) as daemon:
            async with daemon.call(await expect(daemon)) as call:
                await call.hears(1)
                sent = daemon.app.commands.send(str(call.call_id), Look(CUSTOMER))
                reply = await other.run(sent)
                assert isinstance(reply, LiveCall)
                assert reply.seconds > 0
    finally:
        await other.stop()


async def test_live_call_tells_how_it_stands() -> None:
    async def script(agent: AgentConnection) -> None:
        await agent.say(tone(440, 3, 8000), 8000)
        await agent.tell("bot-started-speaking")

    async with FakeAgent(script) as agent, running(settings(agent.url)) as daemon:
        async with daemon.call(await expect(daemon)) as call:
            await call.hears_words()
            await daemon.event("speaking", call)
            state = await look(daemon, call)
            assert (state.state, state.agent, state.muted) == ("live", "open", ())
            assert state.speaking == ("agent",)
            assert 1_000 < state.held_ms < 3_000
            assert state.counters["agent_frames"] == 1


async def test_hang_up_lets_the_dialplan_go_on() -> None:
    async with FakeAgent() as agent, running(settings(agent.url)) as daemon:
        async with daemon.call(await expect(daemon)) as call:
            await call.hears(1)
            await tell(daemon, call, HangUp(CUSTOMER))
            await call.hung_up()
            assert await daemon.hung_up(call) == ("system", "normal_clearing")
            end = Ended("failed", "system", "normal_clearing")  # no agent has spoken
            assert await tell(daemon, call, How(CUSTOMER)) == end
            with pytest.raises(CallLost):
                await tell(daemon, call, HangUp(CUSTOMER))


async def test_call_that_has_not_come_is_canceled() -> None:
    async with FakeAgent() as agent, running(settings(agent.url)) as daemon:
        call_id = await expect(daemon)
        with pytest.raises(CommandRefused) as refused:
            await tell(daemon, call_id, Inject(CUSTOMER, "hello"))
        assert refused.value.reason == "not_answered"
        await tell(daemon, call_id, HangUp(CUSTOMER))
        assert (await daemon.event("call_hungup")).data["status"] == "canceled"
        async with daemon.call(call_id) as call:
            await call.hung_up()


@pytest.mark.parametrize("command", [Look, HangUp, How])
async def test_nobody_reaches_another_customers_call(command: type[Look]) -> None:
    async with FakeAgent() as agent, running(settings(agent.url)) as daemon:
        waiting = await expect(daemon)
        async with daemon.call(await expect(daemon)) as call:
            await call.hears(1)
            for one in (call, waiting, uuid4()):
                with pytest.raises(CallLost):
                    await tell(daemon, one, command("somebody else"))
            assert (await look(daemon, call)).state == "live"
            assert (await look(daemon, waiting)).state == "expected"


async def test_text_is_injected_and_speech_is_not_supported() -> None:
    async with FakeAgent() as agent, running(settings(agent.url)) as daemon:
        async with daemon.call(await expect(daemon)) as call:
            connection = await agent.connection()
            await tell(daemon, call, Inject(CUSTOMER, "be brief", run_immediately=False))
            await connection.until(lambda agent: bool(agent.rtvi("send-text")))
            options = {"run_immediately": False, "audio_response": True}
            assert connection.rtvi("send-text") == [{"content": "be brief", "options": options}]
            with pytest.raises(CommandRefused) as refused:
                await tell(daemon, call, Say(CUSTOMER, "hello"))
            assert refused.value.reason == "not_supported"


async def test_stock_agent_understands_what_it_is_told(tmp_path: Path) -> None:
    async with run_pipecat_agent(tmp_path, "fastapi", "--out-rate", "16000") as agent:
        async with running(settings(agent.url)) as daemon:
            async with daemon.call(await expect(daemon)) as call:
                await agent.wait_for("connected", str(call.call_id))
                speaking = asyncio.create_task(talk(call))
                await tell(daemon, call, Inject(CUSTOMER, "be brief"))
                await tell(daemon, call, Mute(CUSTOMER, "caller"))
                agent.play(str(call.call_id), tone(440, 0.5, 16000))
                await call.hears_words()
                await tell(daemon, call, Mute(CUSTOMER, "caller", muted=False))
                await asyncio.sleep(0.5)
                speaking.cancel()
            assert not daemon.events("agent_error")
            assert not daemon.events("agent_lost")


async def test_audio_is_played_after_what_is_queued() -> None:
    async def script(agent: AgentConnection) -> None:
        await agent.say(tone(440, 0.5, 8000), 8000)

    async with FakeAgent(script) as agent, running(settings(agent.url)) as daemon:
        async with daemon.call(await expect(daemon)) as call:
            await call.hears_words()
            frame = frames.encode_audio(tone(700, 0.5, 16000), 16000)
            await tell(daemon, call, Play(CUSTOMER, frame, 500))
            await eventually(lambda: len(call.words) >= 15_900)
            half = len(call.words) // 2
            assert measure_tone(call.words[:half], 8000).hz == pytest.approx(440, abs=2)
            assert measure_tone(call.words[half:], 8000).hz == pytest.approx(700, abs=2)


async def test_playout_that_has_no_room_refuses_all_of_it() -> None:
    async with FakeAgent() as agent:
        wanted = settings(agent.url, audiosocket={"playout_max_s": 1})
        async with running(wanted) as daemon:
            async with daemon.call(await expect(daemon)) as call:
                await call.hears(1)
                frame = frames.encode_audio(tone(700, 0.6, 8000), 8000)
                await tell(daemon, call, Play(CUSTOMER, frame, 600))
                with pytest.raises(CommandRefused) as refused:
                    await tell(daemon, call, Play(CUSTOMER, frame, 600))
                assert refused.value.reason == "playout_full"
                assert (await look(daemon, call)).held_ms <= 600


async def test_agent_hears_silence_while_the_caller_is_muted() -> None:
    async with FakeAgent() as agent, running(settings(agent.url)) as daemon:
        async with daemon.call(await expect(daemon)) as call:
            connection = await agent.connection()
            speaking = asyncio.create_task(talk(call))

            async def hears(loud: bool) -> None:
                before = len(connection.audio) + 5  # what was on its way
                await connection.until(lambda agent: len(agent.audio) >= before + 10)
                received = connection.audio[before : before + 10]
                assert all(any(audio.pcm) is loud for audio in received)  # a hole is silence, too
                assert {len(audio.pcm) for audio in received} == {640}

            await hears(loud=True)
            await tell(daemon, call, Mute(CUSTOMER, "caller"))
            assert (await look(daemon, call)).muted == ("caller",)
            await hears(loud=False)
            call.press("5")
            await connection.until(lambda agent: agent.digits == "5")
            await tell(daemon, call, Mute(CUSTOMER, "caller", muted=False))
            await hears(loud=True)
            speaking.cancel()


async def test_caller_hears_silence_but_prompts_while_the_agent_is_muted() -> None:
    async with FakeAgent(echo) as agent, running(settings(agent.url)) as daemon:
        async with daemon.call(await expect(daemon)) as call:
            connection = await agent.connection()
            speaking = asyncio.create_task(talk(call))
            await call.hears_words()
            await tell(daemon, call, Mute(CUSTOMER, "agent"))
            await asyncio.sleep(0.06)
            start = len(call.heard)
            await asyncio.sleep(0.4)
            assert not any(message.is_audible for message in call.heard[start:])
            frame = frames.encode_audio(tone(700, 0.2, 8000), 8000)
            await tell(daemon, call, Play(CUSTOMER, frame, 200))
            await eventually(lambda: any(message.is_audible for message in call.heard[start:]))
            await asyncio.sleep(0.4)
            start = len(call.heard)
            await tell(daemon, call, Mute(CUSTOMER, "agent", muted=False))
            await eventually(lambda: any(message.is_audible for message in call.heard[start:]))
            assert connection.closed_at == 0
            speaking.cancel()


async def test_mute_outlives_the_agents_connection() -> None:
    async def script(agent: AgentConnection) -> None:
        await agent.say(tone(440, 0.1, 8000), 8000)

    async with FakeAgent(script) as agent, running(settings(agent.url)) as daemon:
        async with daemon.call(await expect(daemon)) as call:
            first = await agent.connection()
            await call.hears_words()
            await tell(daemon, call, Mute(CUSTOMER, "caller"))
            await first.close(1011)
            second = await agent.connection(1)
            speaking = asyncio.create_task(talk(call))
            await second.until(lambda agent: len(agent.audio) > 10)
            assert not any(any(audio.pcm) for audio in second.audio)
            speaking.cancel()


async def test_muting_an_agent_that_has_finished_ends_the_call() -> None:
    async def script(agent: AgentConnection) -> None:
        await agent.say(tone(440, 5, 8000), 8000)
        await agent.close(1000)

    async with FakeAgent(script) as agent, running(settings(agent.url)) as daemon:
        async with daemon.call(await expect(daemon)) as call:
            await call.hears_words()
            await tell(daemon, call, Mute(CUSTOMER, "agent"))
            await call.hung_up(4)  # 5 s would be left to hear
            assert await daemon.hung_up(call) == ("agent", "normal_clearing")


async def test_commands_to_a_call_leave_its_audio_alone() -> None:
    async with FakeAgent(echo) as agent, running(settings(agent.url)) as daemon:
        async with daemon.call(await expect(daemon)) as call:
            await agent.connection()
            speaking = asyncio.create_task(call.play([SILENCE] * 5 + [LOUD] * 60))
            await call.hears_words()
            for _ in range(200):
                await look(daemon, call)
            await speaking
            call.close()
            end = await daemon.event("call_hungup", call)
            assert end.data["counters"]["underruns"] == 0
