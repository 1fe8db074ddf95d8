"""Calls through mediad to a stock Pipecat agent, over each of its WebSocket transports."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mediad.app import App
from mediad.bus.bus import Subscription
from mediad.bus.events import Event
from mediad.caller import Caller
from mediad.config import Ai, AudioSocket, Http, Settings
from tests.integration.daemon import eventually
from tests.integration.pipecat_peer import PipecatAgent, run_pipecat_agent
from tests.sound import loud_s, measure_tone, tone

TONE_S = 2.0
CALLER_HZ, AGENT_HZ = 1004.0, 997.0


def settings(*urls: str) -> Settings:
    """Return settings with free ports and these agents; none means that agents dial in."""
    return Settings(
        audiosocket=AudioSocket(port=0, codec="slin"),
        http=Http(port=0),
        ai=Ai(agent_url=urls, listen_port=0),
    )


@asynccontextmanager
async def talking(
    record: Path, transport: str, *options: str
) -> AsyncIterator[tuple[App, PipecatAgent, Caller, str]]:
    """Connect a caller with an agent of this transport; the last item is the call's id."""
    async with (
        run_pipecat_agent(record, transport, *options) as agent,
        App(settings(agent.url)) as app,
        Caller(*app.audiosocket_address) as caller,
    ):
        await agent.wait_for("connected", str(caller.call_id))
        yield app, agent, caller, str(caller.call_id)


async def next_event(events: Subscription, type_: str) -> Event:
    """Return the next event of a type."""
    async with asyncio.timeout(10):
        async for event in events:
            if event.type == type_:
                return event
    raise AssertionError("the subscription ended")


async def check_both_tones(caller: Caller, agent: PipecatAgent, call: str, out_rate: int) -> None:
    """Send a tone each way; hear both with the right pitch and an SNR of 30 dB."""
    agent.play(call, tone(AGENT_HZ, 0.1, out_rate))  # for its first sound a stock agent imports
    await caller.wait_for_speech()
    await caller.wait_for_quiet()
    begin = len(caller.heard.pcm)
    caller.say(tone(CALLER_HZ, TONE_S, 8000), 8000)
    agent.play(call, tone(AGENT_HZ, TONE_S, out_rate))
    await eventually(lambda: _is_heard(agent.heard(call), 16_000))
    await eventually(lambda: _is_heard(bytes(caller.heard.pcm[begin:]), 8000))
    for pcm, rate_hz, hz in (
        (agent.heard(call), 16_000, CALLER_HZ),
        (bytes(caller.heard.pcm[begin:]), 8000, AGENT_HZ),
    ):
        measured = measure_tone(pcm, rate_hz)
        assert measured.hz == pytest.approx(hz, abs=0.5)
        assert measured.seconds > 0.8 * TONE_S
        assert measured.snr_db >= 30.0


def _is_heard(pcm: bytes, rate_hz: int) -> bool:
    return loud_s(pcm, rate_hz) > 0.95 * TONE_S


@pytest.mark.parametrize("chunks", [2, 4])
@pytest.mark.parametrize("out_rate", [16_000, 24_000])
@pytest.mark.parametrize("transport", ["server", "fastapi"])
async def test_tones_arrive_both_ways(
    tmp_path: Path, transport: str, out_rate: int, chunks: int
) -> None:
    options = ("--out-rate", str(out_rate), "--chunks", str(chunks))
    async with talking(tmp_path, transport, *options) as (_, agent, caller, call):
        await check_both_tones(caller, agent, call, out_rate)
        caller.press("12#")
        await caller.said()
        caller.hang_up()
        await agent.wait_for("disconnected", call)
        assert agent.dtmf(call) == "12#"


async def test_agent_that_dials_in_with_a_riff_header_on_every_message(tmp_path: Path) -> None:
    async with App(settings()) as app:
        with app.bus.subscribe() as events:
            async with Caller(*app.audiosocket_address) as caller:
                awaited = await next_event(events, "agent_awaited")
                assert app.dial_in_address is not None
                host, port = app.dial_in_address
                url = f"ws://{host}:{port}/agent/{awaited.data['agent_token']}"
                async with run_pipecat_agent(tmp_path, "client", "--url", url) as agent:
                    await next_event(events, "agent_connected")
                    await check_both_tones(caller, agent, "none", 24_000)
                    agent.command("end", "none")
                    end = await caller.ended()
                    assert (end.by, end.how) == ("server", "hangup")


async def test_the_agents_normal_end_is_heard_out_and_ends_the_call(tmp_path: Path) -> None:
    async with talking(tmp_path, "fastapi") as (app, agent, caller, call):
        with app.bus.subscribe() as events:
            agent.play(call, tone(AGENT_HZ, TONE_S, 24_000))
            agent.command("end", call)
            hungup = await next_event(events, "call_hungup")
            assert (hungup.data["hangup_by"], hungup.data["status"]) == ("agent", "completed")
            end = await caller.ended()
            assert (end.by, end.how) == ("server", "hangup")
            assert measure_tone(bytes(caller.heard.pcm), 8000).seconds > 0.8 * TONE_S


async def test_interruption_leaves_not_one_stale_frame(tmp_path: Path) -> None:
    async with talking(tmp_path, "fastapi") as (app, agent, caller, call):
        with app.bus.subscribe() as events:
            agent.play(call, tone(AGENT_HZ, 5.0, 24_000))
            await caller.wait_for_speech()
            agent.command("interrupt", call)
            await next_event(events, "interrupted")
            flushed_at = asyncio.get_running_loop().time()
            await asyncio.sleep(0.5)
            assert caller.heard.last_audible is not None
            assert caller.heard.last_audible - flushed_at < 0.04
