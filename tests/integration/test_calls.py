"""Whole calls: even playout, many at once, an orderly stop, the HTTP port, no leftovers."""

import asyncio
import gc
import logging
import socket
import time
from itertools import pairwise

import numpy as np
import pytest

from mediad.ai.agent import AgentLink
from mediad.ai.socket import AgentSocket
from mediad.app import App
from mediad.call.session import Session
from mediad.config import Settings
from mediad.errors import ConfigError
from mediad.wire.audiosocket import Kind, audio_message
from tests.fakes.agent import AgentConnection, FakeAgent, dial_in, echo
from tests.fakes.asterisk import SILENCE, AsteriskCall
from tests.integration.daemon import Daemon, eventually, running, settings
from tests.sound import measure_tone, tone


def noise(seconds: float, seed: int) -> bytes:
    """Return 8 kHz audio of which no two samples' neighbourhoods are alike, and none is silent."""
    samples = np.random.default_rng(seed).integers(1000, 9000, int(seconds * 8000))
    return samples.astype("<i2").tobytes()


async def _late(stop: asyncio.Event) -> list[tuple[float, float]]:
    """Return when this loop ran 2 ms late and more, from when to when."""
    late: list[tuple[float, float]] = []
    while not stop.is_set():
        due = time.monotonic() + 0.001
        await asyncio.sleep(0.001)
        if (now := time.monotonic()) - due > 0.002:
            late.append((due, now))
    return late


# Playing


async def test_sentence_sent_at_once_plays_evenly() -> None:
    words = noise(5, seed=1)

    async def script(agent: AgentConnection) -> None:
        await agent.say(words, 8000)

    stop = asyncio.Event()
    watch = asyncio.create_task(_late(stop))
    async with FakeAgent(script) as agent, running(settings(agent.url)) as daemon:
        async with daemon.call() as call:
            await call.hears_words()
            await call.hears(255, timeout_s=10)
    stop.set()
    late = await watch
    spoken = [message for message in call.audio if message.is_audible]
    assert b"".join(message.payload for message in spoken) == words  # no frame more or less
    pairs = [(earlier.at, later.at) for earlier, later in pairwise(spoken)]
    lost_s = sum(end - begin for begin, end in late)
    assert pairs[-1][1] - pairs[0][0] == pytest.approx(0.020 * len(pairs), abs=0.020 + lost_s)
    # A frame is as late as the loop that mediad, the agent and this test share.
    gaps = [
        until - since
        for since, until in pairs
        if not any(begin < until and since < end for begin, end in late)
    ]
    assert len(gaps) > len(pairs) / 2
    assert np.quantile(gaps, 0.99) < 0.022


async def test_agent_in_real_time_plays_without_underruns() -> None:
    words = noise(1.2, seed=2)

    async def script(agent: AgentConnection) -> None:
        start = time.monotonic()
        for number in range(30):  # 40 ms at a time, as a stock agent
            await asyncio.sleep(start + number * 0.040 - time.monotonic())
            await agent.say(words[number * 640 : (number + 1) * 640], 8000)
        await agent.close(1000)

    async with FakeAgent(script) as agent, running(settings(agent.url)) as daemon:
        async with daemon.call() as call:
            await call.hung_up()
            assert call.words == words
            event = await daemon.event("call_hungup", call)
            assert event.data["counters"]["underruns"] == 0


async def test_playout_holds_no_more_than_it_may() -> None:
    async def script(agent: AgentConnection) -> None:
        for _ in range(10):
            await agent.say(noise(1, seed=3), 8000)

    limits = {"playout_max_s": 2}
    async with FakeAgent(script) as agent:
        async with running(settings(agent.url, audiosocket=limits)) as daemon:
            async with daemon.call() as call:
                await call.hears_words()
                call.close()
                event = await daemon.event("call_hungup", call)
                refused = event.data["counters"]["refused_bytes"]
                assert 7 * 16000 < refused <= 8 * 16000


# Many calls


TALK_S = 2.6  # a hole in its middle leaves more than a second


async def _talk(daemon: Daemon, agent: FakeAgent, number: int) -> None:
    words = tone(400 + 25 * number, TALK_S, 8000)
    frames = [audio_message(Kind.SLIN, words[at : at + 320]) for at in range(0, len(words), 320)]
    async with daemon.call() as call:
        await call.play(frames)
        await eventually(lambda: len(call.words) >= 0.95 * len(words))
        call.close()
        event = await daemon.event("call_hungup", call)
        assert event.data["status"] == "completed"
    # Every call has heard itself, and nobody else.
    back = measure_tone(call.pcm, 8000)
    assert back.hz == pytest.approx(400 + 25 * number, abs=1)
    assert back.seconds > 1


async def test_twenty_calls_at_once() -> None:
    async with (
        FakeAgent(echo) as agent,
        running(settings(agent.url, audiosocket={"codec": "slin"})) as daemon,
    ):
        async with asyncio.TaskGroup() as group:
            for number in range(20):
                group.create_task(_talk(daemon, agent, number))
        assert await daemon.metric("mediad_calls_started_total") == 20
        assert await daemon.metric("mediad_calls_ended_total", by="caller") == 20
        assert await daemon.metric("mediad_calls") == 0
        assert await daemon.metric("mediad_caller_messages_total") == 20 * TALK_S * 50
        assert len({connection.call_id for connection in agent.connections}) == 20


# Stopping and starting


async def test_stop_hangs_up_every_call() -> None:
    async with FakeAgent() as agent:
        async with running(settings(agent.url)) as daemon:
            calls = [AsteriskCall(daemon.app.audiosocket_address) for _ in range(5)]
            for call in calls:
                await call.__aenter__()
            silent = AsteriskCall(daemon.app.audiosocket_address, sends_uuid=False)
            await silent.__aenter__()
            await agent.connection(4)
            for call in calls:
                await call.hears(1)
                call.send(SILENCE * 3)
        for call in (*calls, silent):
            await call.hung_up()
            assert not call.reset
            await call.closed()
        for connection in agent.connections:
            await connection.until(lambda agent: agent.closed_at > 0)
            assert connection.ws.close_code == 1000
        ends = [event.data["hangup_by"] for event in daemon.events("call_hungup")]
        assert ends == ["system"] * 5
        with pytest.raises(ConnectionRefusedError):
            await AsteriskCall(daemon.app.audiosocket_address).__aenter__()


async def test_stop_while_no_agent_answers() -> None:
    async with FakeAgent(hangs=True) as agent:
        async with running(settings(agent.url)) as daemon:
            call = AsteriskCall(daemon.app.audiosocket_address)
            await call.__aenter__()
            await call.hears(2)
        await call.hung_up()


@pytest.mark.parametrize("table", ["audiosocket", "http", "ai"])
async def test_taken_port_is_a_config_error(table: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        tables: dict[str, dict[str, object]] = {
            "audiosocket": {"port": 0},
            "http": {"port": 0},
            "ai": {"agent_url": (), "listen_port": 0},
        }
        tables[table]["listen_port" if table == "ai" else "port"] = port
        with pytest.raises(ConfigError, match=rf"\[{table}\] cannot listen.*{port}"):
            async with App(Settings.model_validate(tables)):
                pass


# What the HTTP port says


async def test_health_readiness_and_metrics() -> None:
    async with (
        FakeAgent() as agent,
        running(settings(agent.url, audiosocket={"codec": "slin"})) as daemon,
    ):
        status, body = await daemon.get("/healthz")
        assert status == 200
        assert '"ok"' in body
        assert (await daemon.get("/readyz"))[0] == 200
        async with daemon.call() as call:
            connection = await agent.connection()
            await call.play([SILENCE] * 25)
            await connection.until(lambda agent: len(agent.audio) >= 20)
            assert await daemon.metric("mediad_calls") == 1
            assert await daemon.metric("mediad_caller_messages_total") == 25
            assert await daemon.metric("mediad_caller_bytes_total") == 25 * 320
            await daemon.metric_reaches(11, "mediad_silent_frames_total")
        await daemon.hung_up(call)
        assert await daemon.metric("mediad_calls") == 0
        assert await daemon.metric("mediad_caller_messages_total") == 25  # past calls count
        _, text = await daemon.get("/metrics")
        names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
        assert all(name.startswith("mediad_") for name in names)
        assert (await daemon.get("/nothing"))[0] == 404


# Leftovers


@pytest.mark.parametrize("how", ["caller", "agent", "dial-in", "unavailable"])
async def test_call_leaves_no_task_and_no_garbage(how: str) -> None:
    async def script(agent: AgentConnection) -> None:
        await agent.say(noise(0.2, seed=4), 8000)
        if how == "agent":
            await agent.close(1000)

    async with FakeAgent(script) as agent:
        urls = {"dial-in": (), "unavailable": ("ws://127.0.0.1:1",)}.get(how, (agent.url,))
        patience_s = 0.3 if how == "unavailable" else 3.0
        async with running(settings(urls, ai={"connect_timeout_s": patience_s})) as daemon:
            tasks = len(asyncio.all_tasks())
            gc.collect()
            gc.disable()  # so that what only the collector would free is found
            logging.disable()  # pytest would keep the records, with exceptions and their frames
            try:
                async with daemon.call() as call:
                    await _live(daemon, call, how)
                    await daemon.hung_up(call)
                agent.connections.clear()
                await eventually(lambda: count_leftovers() == 0)
                await eventually(lambda: len(asyncio.all_tasks()) <= tasks)
            finally:
                logging.disable(logging.NOTSET)
                gc.enable()


async def _live(daemon: Daemon, call: AsteriskCall, how: str) -> None:
    """Live a call to its end."""
    if how == "dial-in":
        awaited = await daemon.event("agent_awaited", call)
        assert daemon.app.dial_in_address is not None
        async with dial_in(daemon.app.dial_in_address, awaited.data["agent_token"]):
            await call.hears(20)
            call.close()
            await daemon.hung_up(call)
    elif how == "caller":
        await call.hears_words()
        call.close()
    else:
        await call.hung_up()


def count_leftovers() -> int:
    kinds = (Session, AgentLink, AgentSocket)
    return sum(type(thing) in kinds for thing in gc.get_objects())
