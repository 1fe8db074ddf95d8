"""The link to the agent on real sockets: what is sent and understood, and every way to fail."""

import asyncio
import contextlib
import itertools
import socket
import time
from pathlib import Path

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from mediad.ai.agent import HELD_FRAMES
from mediad.wav import write_wav
from mediad.wire import frames
from mediad.wire.audiosocket import Kind, audio_message
from tests.fakes.agent import (
    AgentConnection,
    FakeAgent,
    RawConnection,
    dial_in,
    raw_agent,
    raw_frame,
)
from tests.fakes.asterisk import AsteriskCall
from tests.integration.daemon import Daemon, eventually, running, settings
from tests.own_stalls import watch_own_loop
from tests.sound import tone

CONNECTS = "mediad_agent_connects_total"
LOUD = audio_message(Kind.SLIN, b"\x10\x20" * 160)
UNAVAILABLE = ("system", "destination_out_of_order")


@pytest.fixture
def prompt(tmp_path: Path) -> Path:
    """A prompt of 100 ms, 700 Hz."""
    path = tmp_path / "prompt.wav"
    write_wav(path, 8000, tone(700, 0.1, 8000))
    return path


def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def pitch(pcm: bytes) -> float:
    """Return the strongest frequency of 8 kHz audio, within a few Hz."""
    spectrum = np.abs(np.fft.rfft(np.frombuffer(pcm, "<i2"), 8000))
    return float(np.argmax(spectrum))


# What an agent is told


async def test_address_headers_and_client_ready_name_the_call() -> None:
    async with FakeAgent() as agent:
        url = agent.url + "/calls/{call_id}?from={from}&to={to}"
        ai = {"headers": {"Authorization": "Bearer secret", "X-Team": "blue"}}
        async with running(settings(url, ai=ai)) as daemon, daemon.call() as call:
            connection = await agent.connection()
            await connection.until(lambda agent: agent.messages != [])
    call_id = str(call.call_id)
    assert connection.path == f"/calls/{call_id}?from=&to="
    assert connection.headers["Authorization"] == "Bearer secret"
    assert connection.headers["X-Team"] == "blue"
    assert connection.headers["X-Mediad-Call-Id"] == call_id
    assert connection.headers["X-Mediad-From"] == ""
    assert connection.headers["X-Mediad-To"] == ""
    assert "Sec-WebSocket-Extensions" not in connection.headers  # no compression is offered
    ready = connection.messages[0]
    assert connection.order[0] == ready["type"] == "client-ready"
    assert ready["id"]
    assert ready["label"] == "rtvi-ai"
    assert ready["data"]["version"] == "2.0.0"
    assert ready["data"]["about"]["platform_details"] == {
        "call_id": call_id,
        "from": "",
        "to": "",
        "variables": {},
    }


async def test_digits_arrive_in_order() -> None:
    async with FakeAgent() as agent, running(settings(agent.url)) as daemon, daemon.call() as call:
        connection = await agent.connection()
        call.press("0123456789*#ABCD")
        await connection.until(lambda agent: len(agent.digits) == 16)
        assert connection.digits == "0123456789*#ABCD"
        assert all(message["id"] for message in connection.messages)
        events = daemon.events("dtmf_received", call)
        assert "".join(event.data["digit"] for event in events) == connection.digits
        assert await daemon.metric("mediad_dtmf_digits_total") == 16


# What an agent tells


async def test_words_states_and_errors_become_events() -> None:
    async def script(agent: AgentConnection) -> None:
        await agent.tell("user-started-speaking")
        await agent.tell("user-transcription", text="he", final=False)
        await agent.tell("user-transcription", text="hello", final=False)
        await agent.tell("user-stopped-speaking")
        await agent.tell("user-transcription", text="Hello.", final=True)
        await agent.tell("bot-started-speaking")
        await agent.tell("bot-transcription", text="Good day.")
        await agent.tell("bot-stopped-speaking")
        await agent.tell("error", error="no money left", fatal=True)
        await agent.tell("user-transcription", text="Bye.", final=True)
        await agent.ws.send(frames.encode_transcription("Over."))
        await agent.ws.send(frames.encode_transcription("x" * 100_000))

    async with FakeAgent(script) as agent, running(settings(agent.url)) as daemon:
        async with daemon.call() as call:
            last = await daemon.event("transcript_created", call, number=4)
    assert len(last.data["text"]) == 16_384
    ends = ("transcribe_done", "call_hungup")
    told = [seen.event for seen in daemon.seen if seen.event.type not in ends][2:-1]
    assert [event.type for event in told] == [
        "speaking",
        "transcript_interim",
        "transcript_interim",
        "speaking",
        "transcribe_started",
        "transcript_created",
        "speaking",
        "transcript_created",
        "speaking",
        "agent_error",
        "transcript_created",
        "transcript_created",
    ]
    interim, later, final, reply, bye = (told[i] for i in (1, 2, 5, 7, 10))
    assert interim.sequence is None
    assert not interim.is_fact
    assert interim.event_id == later.event_id == final.event_id
    assert final.is_fact
    transcribe_id = told[4].data["transcribe_id"]
    assert final.data == {"direction": "in", "text": "Hello.", "transcribe_id": transcribe_id}
    assert reply.data == {"direction": "out", "text": "Good day.", "transcribe_id": transcribe_id}
    assert bye.event_id not in (final.event_id, reply.event_id)
    assert told[0].data == {"who": "caller", "started": True}
    assert told[6].data == {"who": "agent", "started": True}
    assert told[9].data == {"text": "no money left", "fatal": True}


async def test_interruption_leaves_no_stale_frame_and_is_not_echoed() -> None:
    async def script(agent: AgentConnection) -> None:
        await agent.say(tone(1000, 3.0, 8000), 8000)
        await is_heard.wait()
        await agent.interrupt()
        await asyncio.sleep(0.3)
        await agent.say(new_words, 8000)

    is_heard = asyncio.Event()
    new_words = tone(600, 0.4, 8000)
    async with FakeAgent(script) as agent, running(settings(agent.url)) as daemon:
        async with daemon.call() as call:
            await call.hears_words()
            await call.hears(15)
            is_heard.set()
            event = await daemon.event("interrupted", call)
            flushed_at = next(s.at for s in daemon.seen if s.event is event)
            await eventually(lambda: new_words in call.words)
            await call.hears(5)
            call.close()
            assert await _counter(daemon, "flushed_bytes") == event.data["discarded_ms"] * 16
        connection = agent.connections[0]
    late = [m for m in call.audio if m.at > flushed_at and m.is_audible]
    # The message that was being sent at that moment is the only one that could be late.
    assert b"".join(m.payload for m in late[-20:]) == new_words
    assert len(late) <= 21
    assert connection.interruptions == 0
    assert 2000 < event.data["discarded_ms"] < 3000


async def _counter(daemon: Daemon, name: str) -> int:
    return int((await daemon.event("call_hungup")).data["counters"][name])


async def test_strange_messages_are_counted_and_the_call_goes_on() -> None:
    async def script(agent: AgentConnection) -> None:
        await agent.ws.send("a text message")
        await agent.ws.send(["a text ", "in ", "pieces"])
        await agent.ws.send(b"\xff\xff garbage")
        await agent.ws.send(b"")
        await agent.say(bytes(100), rate_hz=12345)
        await agent.say(bytes(100), channels=0)
        await agent.say(bytes(100), channels=9)
        await agent.ws.send(frames.encode_json("{not json"))
        await agent.ws.send(frames.encode_json('{"label": "rtvi-ai", "type": 5, "data": [1]}'))
        await agent.ws.send(frames.encode_text("a text frame"))
        await agent.say(words, 8000)

    words = tone(440, 0.2, 8000)
    async with FakeAgent(script) as agent, running(settings(agent.url)) as daemon:
        async with daemon.call() as call:
            await eventually(lambda: len(call.words) >= len(words))
            assert call.words == words
            bad = "mediad_agent_bad_frames_total"
            assert await daemon.metric(bad, reason="text") == 2
            assert await daemon.metric(bad, reason="sample_rate") == 1
            assert await daemon.metric(bad, reason="num_channels") == 2
            assert await daemon.metric(bad, reason="undecodable") == 1
            assert await daemon.metric(bad, reason="unknown_frame") == 1


async def test_riff_header_and_second_channel_are_taken_off() -> None:
    pcm = tone(1000, 0.5, 8000)
    stereo = np.repeat(np.frombuffer(pcm, "<i2"), 2).tobytes()
    data = b"WAVEfmt " + (16).to_bytes(4, "little") + bytes(16) + b"data\x00\x00\x00\x00"
    header = b"RIFF\x00\x00\x00\x00" + data

    async def script(agent: AgentConnection) -> None:
        for start in range(0, len(stereo), 1280):
            await agent.say(header + stereo[start : start + 1280], 8000, channels=2)

    async with FakeAgent(script) as agent, running(settings(agent.url)) as daemon:
        async with daemon.call() as call:
            await eventually(lambda: len(call.words) >= len(pcm))
            await call.hears(5)
    assert call.words == pcm


async def test_fragments_up_to_1_mib_are_put_together() -> None:
    async def script(agent: AgentConnection) -> None:
        whole = frames.encode_audio(pcm, 8000)
        await agent.ws.send([whole[start : start + 70_001] for start in range(0, size, 70_001)])

    pcm = tone(440, 60, 8000)
    size = len(frames.encode_audio(pcm, 8000))
    async with FakeAgent(script) as agent, running(settings(agent.url)) as daemon:
        async with daemon.call() as call:
            await call.hears_words()
            await call.hears(10)
            assert call.words == pcm[: len(call.words)]
            call.close()
            assert await _counter(daemon, "agent_bytes") == len(pcm)


@pytest.mark.parametrize("is_fragmented", [False, True])
async def test_message_over_1_mib_closes_the_connection(is_fragmented: bool) -> None:
    async def script(agent: AgentConnection) -> None:
        if len(agents.connections) > 1:
            await agent.say(tone(440, 0.1, 8000), 8000)
            return
        part = bytes(1 << 19)
        await agent.ws.send([part, part, b"x"] if is_fragmented else bytes((1 << 20) + 1))

    async with FakeAgent(script) as agents, running(settings(agents.url)) as daemon:
        async with daemon.call() as call:
            first = await agents.connection()
            await first.until(lambda agent: agent.closed_at > 0)
            assert first.ws.close_code in (1006, 1009)
            assert (await daemon.event("agent_lost", call)).data["code"] == 1006
            await call.hears_words()  # of the next one, or the waiting tone before it
            await agents.connection(1)


# Close codes


async def _says_and_closes(agent: AgentConnection, code: int) -> None:
    if code >= 0:
        await agent.say(tone(1000, 0.1, 8000), 8000)
    await agent.close(abs(code))


@pytest.mark.parametrize("code", [1000, 1001, 1005, 1008, 4001])
async def test_close_before_any_audio_is_a_rejection(code: int, prompt: Path) -> None:
    async def script(agent: AgentConnection) -> None:
        await agent.close(code)

    ai = {"unavailable_prompt": prompt}
    async with FakeAgent(script) as agent, running(settings(agent.url, ai=ai)) as daemon:
        async with daemon.call() as call:
            await call.hung_up()
            assert await daemon.hung_up(call) == UNAVAILABLE
            assert pitch(call.words) == pytest.approx(700, abs=10)
        assert await daemon.metric(CONNECTS, outcome="rejected") == 1
        assert len(agent.connections) == 1
        # It is answered with the same code; nothing, with 1000.
        assert agent.connections[0].ws.close_code == (code if code != 1005 else 1000)
        assert (await daemon.event("call_hungup")).data["status"] == "failed"
        assert await daemon.metric("mediad_agent_closes_total") == 1


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        (1000, "normal_clearing"),
        (1001, "normal_clearing"),
        (1008, "interworking"),
        (4001, "interworking"),
    ],
)
async def test_close_after_audio_ends_the_call_once_it_was_heard(code: int, cause: str) -> None:
    words = tone(1000, 0.4, 8000)

    async def script(agent: AgentConnection) -> None:
        await agent.say(words, 8000)
        await agent.close(code)

    async with FakeAgent(script) as agent, running(settings(agent.url)) as daemon:
        async with daemon.call() as call:
            await call.hung_up()
            assert call.words == words
            assert await daemon.hung_up(call) == ("agent", cause)
        assert len(agent.connections) == 1
        assert (await daemon.event("call_hungup")).data["status"] == "completed"


@pytest.mark.parametrize("speaks", [True, False])
@pytest.mark.parametrize("code", [1006, 1011, 1012])
async def test_lost_agent_is_found_again(code: int, speaks: bool) -> None:
    words, more = tone(1000, 0.1, 8000), tone(800, 0.1, 8000)

    async def script(agent: AgentConnection) -> None:
        if len(agents.connections) > 1:
            await agent.say(more, 8000)
            return
        if speaks:
            await agent.say(words, 8000)
            await asyncio.sleep(0.1)
        await agent.close(code)

    async with FakeAgent(script) as agents, running(settings(agents.url)) as daemon:
        async with daemon.call() as call:
            second = await agents.connection(1)
            await second.until(lambda agent: agent.order[:1] == ["client-ready"])
            await eventually(lambda: call.words.endswith(more))
            assert (await daemon.event("agent_lost", call)).data == {"code": code}
            assert len(daemon.events("agent_connected")) == 2
            assert call.words.startswith(words) or not speaks
            assert not call.has_hangup
            call.close()
            assert await _counter(daemon, "underruns") == 0
        # The first pause is 0.2 s.
        assert agents.handshakes[1] - agents.connections[0].opened_at > 0.19


async def test_caller_hears_a_soft_tone_while_the_agent_is_lost() -> None:
    words = tone(1000, 0.1, 8000)

    async def script(agent: AgentConnection) -> None:
        await agent.say(words, 8000)
        await is_dry.wait()
        await agent.close(1012)

    is_dry = asyncio.Event()
    port = free_port()
    async with FakeAgent(script, port=port) as agent:
        async with running(settings(agent.url, ai={"reconnect_s": 3.5})) as daemon:
            async with daemon.call() as call:
                await eventually(lambda: len(call.words) >= len(words))
                await call.hears(1)
                is_dry.set()  # the playout is dry: the tone must not count as an underrun
                await daemon.event("agent_lost", call)
                await agent.__aexit__(None, None, None)
                known = len(call.heard)
                await call.hung_up(10)
                waiting = b"".join(m.payload for m in call.audio[known : known + 25])
                assert pitch(waiting) == pytest.approx(440, abs=10)
                assert 200 < np.abs(np.frombuffer(waiting, "<i2")).max() < 3000
                assert await daemon.hung_up(call) == UNAVAILABLE
                assert await _counter(daemon, "underruns") == 0


async def test_words_of_a_lost_agent_are_heard_out() -> None:
    words = tone(1000, 1.0, 8000)

    async def script(agent: AgentConnection) -> None:
        if len(agents.connections) == 1:
            await agent.say(words, 8000)
            await agent.close(1012)

    async with FakeAgent(script) as agents, running(settings(agents.url)) as daemon:
        async with daemon.call() as call:
            await agents.connection(1)
            await eventually(lambda: len(call.words) >= len(words))
            await call.hears(5)
            assert call.words == words


async def test_silent_agent_that_is_lost_late_is_found_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mediad.ai.agent._GOOD_S", 0.3)

    async def script(agent: AgentConnection) -> None:
        if len(agents.connections) == 1:
            await asyncio.sleep(2.7)
            await agent.close(1006)

    ai = {"connect_timeout_s": 2.5}
    async with FakeAgent(script) as agents, running(settings(agents.url, ai=ai)) as daemon:
        async with daemon.call():
            await agents.connection(1)


async def test_agent_that_only_crashes_is_given_up(prompt: Path) -> None:
    async def script(agent: AgentConnection) -> None:
        await agent.close(1011)

    ai = {"connect_timeout_s": 3.5, "unavailable_prompt": prompt}
    async with FakeAgent(script) as agent, running(settings(agent.url, ai=ai)) as daemon:
        async with daemon.call() as call:
            await call.hung_up()
            assert await daemon.hung_up(call) == UNAVAILABLE
        assert 2 <= len(agent.connections) <= 4  # after 0, 0.2, 0.7 and 1.7 s


async def test_pauses_grow() -> None:
    attempts: list[float] = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        attempts.append(time.monotonic())
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with running(settings(url, ai={"connect_timeout_s": 20})) as daemon:
        async with daemon.call(), watch_own_loop() as own:
            await eventually(lambda: len(attempts) == 5)
    server.close()
    pauses = np.diff(attempts)
    assert (pauses >= np.array([0.2, 0.5, 1, 2]) - 0.01).all()
    assert (pauses < np.array([0.4, 0.9, 1.8, 3.6]) + own.total_s()).all()


# Which address


@pytest.mark.parametrize("how", ["1013", "503", "302", "refused", "closed"])
async def test_next_address_is_tried_at_once(how: str) -> None:
    async def script(agent: AgentConnection) -> None:
        await agent.close(1013)

    statuses = [int(how)] * 9 if how in ("503", "302") else []
    async with FakeAgent(script, statuses=statuses) as busy, FakeAgent() as free:
        first = {"refused": f"ws://127.0.0.1:{free_port()}"}.get(how, busy.url)
        async with contextlib.AsyncExitStack() as stack:
            if how == "closed":
                first = await stack.enter_async_context(raw_agent(_close))
            own = await stack.enter_async_context(watch_own_loop())
            async with running(settings((first, free.url))) as daemon, daemon.call() as call:
                began = time.monotonic()
                connection = await free.connection()
                first_pause_s = 0.19 + own.total_s(began)
                assert connection.opened_at - began < first_pause_s
                await call.hears(5)
                assert len(free.connections) == 1


async def _close(raw: RawConnection) -> None:
    """Leave within the handshake."""


async def test_rejecting_address_gives_way_to_the_next_at_once() -> None:
    async def script(agent: AgentConnection) -> None:
        await agent.close(1000)

    async with FakeAgent(script) as first, FakeAgent() as second, watch_own_loop() as own:
        async with running(settings((first.url, second.url))) as daemon, daemon.call():
            connection = await second.connection()
            refused_at = first.connections[0].opened_at
            assert connection.opened_at - refused_at < 0.19 + own.total_s(refused_at)


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_final_statuses_are_not_asked_again(status: int, prompt: Path) -> None:
    ai = {"unavailable_prompt": prompt}
    async with FakeAgent(statuses=[status] * 9) as agent:
        async with running(settings(agent.url, ai=ai)) as daemon, daemon.call() as call:
            await call.hung_up()
            assert await daemon.hung_up(call) == UNAVAILABLE
            assert len(agent.handshakes) == 1
            assert await daemon.metric(CONNECTS, outcome=str(status)) == 1


async def test_server_error_is_asked_again() -> None:
    async with FakeAgent(statuses=[500, 503]) as agent:
        ai = {"connect_timeout_s": 10}
        async with running(settings(agent.url, ai=ai)) as daemon, daemon.call():
            await agent.connection()
            assert len(agent.handshakes) == 3
            assert await daemon.metric(CONNECTS, outcome="500") == 1


async def test_redirects_are_not_followed() -> None:
    async with FakeAgent() as target, FakeAgent(statuses=[302] * 9, location=target.url) as agent:
        ai = {"connect_timeout_s": 2.5}
        async with running(settings(agent.url, ai=ai)) as daemon, daemon.call() as call:
            await call.hung_up()
            assert target.handshakes == []
            assert len(agent.handshakes) >= 2


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 999 What\r\n\r\n", b"\xff\xfe\r\n\r\n", b"x" * 20_000, b"SSH-2.0-x\r\n"]
)
async def test_agent_that_speaks_no_http_is_unavailable(answer: bytes, prompt: Path) -> None:
    async def script(raw: RawConnection) -> None:
        raw.writer.write(answer)
        await raw.writer.drain()

    ai = {"connect_timeout_s": 0.5, "unavailable_prompt": prompt}
    async with raw_agent(script) as url, running(settings(url, ai=ai)) as daemon:
        async with daemon.call() as call:
            await call.hung_up()
            assert await daemon.hung_up(call) == UNAVAILABLE


@pytest.mark.parametrize("hangs", [True, False])
async def test_caller_hears_a_tone_and_is_let_go_when_no_agent_can_be_had(hangs: bool) -> None:
    async with FakeAgent(hangs=True) as agent:
        url = agent.url if hangs else f"ws://127.0.0.1:{free_port()}"
        async with running(settings(url, ai={"connect_timeout_s": 0.4})) as daemon:
            async with daemon.call() as call:
                await call.hung_up()
                assert await daemon.hung_up(call) == UNAVAILABLE
            assert pitch(call.words[:4800]) == pytest.approx(620, abs=10)
            beeps = sum(message.is_audible for message in call.audio)
            assert 40 <= beeps <= 50  # three of 0.3 s
            outcome = "timeout" if hangs else "unreachable"
            assert await daemon.metric(CONNECTS, outcome=outcome) >= 1


async def test_caller_who_hangs_up_while_connecting_leaves_no_connection() -> None:
    closed = asyncio.Event()

    async def script(raw: RawConnection) -> None:
        await has_left.wait()
        raw.writer.write(raw.response)  # accepted when nobody waits any more
        await raw.reader.read()
        closed.set()

    has_left = asyncio.Event()
    async with raw_agent(script) as url, running(settings(url)) as daemon:
        async with daemon.call() as call:
            await call.hears(3)
            call.close()
            assert await daemon.hung_up(call) == ("caller", "normal_clearing")
        has_left.set()
        async with asyncio.timeout(10):
            await closed.wait()
        assert daemon.events("agent_connected") == []


async def test_caller_who_hangs_up_while_reconnecting_ends_the_call() -> None:
    async def script(agent: AgentConnection) -> None:
        await agent.say(tone(1000, 0.1, 8000), 8000)
        await agent.close(1006)

    async with FakeAgent(script) as agent, running(settings(agent.url)) as daemon:
        async with daemon.call() as call:
            await daemon.event("agent_lost", call)
            call.close()
            assert await daemon.hung_up(call) == ("caller", "normal_clearing")


async def test_words_that_come_with_the_handshake_are_heard() -> None:
    words = tone(800, 0.2, 8000)

    connections = itertools.count()

    async def script(raw: RawConnection) -> None:
        if next(connections) == 0:  # lost: the next one must not be taken for the waiting tone
            raw.writer.write(raw.response + b"\x88\x02\x03\xf4")
        else:
            raw.writer.write(raw.response + raw_frame(frames.encode_audio(words, 8000)))
            await raw.reader.read()

    async with raw_agent(script) as url, running(settings(url)) as daemon:
        async with daemon.call() as call:
            await daemon.event("agent_connected", call, number=1)
            await eventually(lambda: call.words.endswith(words))


async def test_nothing_is_told_of_a_call_after_its_end() -> None:
    async def script(raw: RawConnection) -> None:
        raw.writer.write(raw.response)
        while not raw.writer.is_closing():
            with contextlib.suppress(ConnectionError):
                raw.writer.write(raw_frame(frames.encode_transcription("still here")))
                await asyncio.sleep(0.01)

    async with raw_agent(script) as url, running(settings(url)) as daemon:
        async with daemon.call() as call:
            await daemon.event("transcript_created", call)
            call.close()
            await daemon.hung_up(call)
            await asyncio.sleep(0.2)
            assert daemon.seen[-1].event.type == "call_hungup"


# An agent that is slow, or hostile


async def test_audio_is_held_while_connecting_and_control_is_never_dropped() -> None:
    port = free_port()
    url = f"ws://127.0.0.1:{port}"
    ai = {"connect_timeout_s": 20}
    async with running(settings(url, audiosocket={"codec": "slin"}, ai=ai)) as daemon:
        async with daemon.call() as call:
            call.press("12")
            await call.play([LOUD] * (HELD_FRAMES + 30), 0.005)
            call.press("34")
            async with FakeAgent(port=port) as agent:
                connection = await agent.connection()
                await connection.until(lambda agent: agent.digits == "1234")
                dropped = "mediad_agent_audio_dropped_frames_total"
                assert await daemon.metric(dropped, reason="not_connected") >= 30
                assert connection.order[:3] == ["client-ready", "dtmf", "dtmf"]
                held = connection.order[3 : connection.order.index("dtmf", 3)]
                assert held == ["audio"] * HELD_FRAMES or len(held) < HELD_FRAMES


async def test_agent_that_answers_no_ping_is_lost() -> None:
    async def script(raw: RawConnection) -> None:
        raw.writer.write(raw.response)
        await raw.reader.read()

    async with raw_agent(script) as url, running(settings(url, ai={"ping_s": 0.1})) as daemon:
        async with daemon.call() as call:
            assert (await daemon.event("agent_lost", call)).data["code"] == 1006


async def test_round_trip_is_measured() -> None:
    async with FakeAgent() as agent:
        async with running(settings(agent.url, ai={"ping_s": 0.05})) as daemon, daemon.call():
            await daemon.metric_reaches(3, "mediad_agent_round_trip_seconds_count")
            assert daemon.events("agent_lost") == []


async def test_pings_of_an_agent_that_does_not_read_are_not_all_answered() -> None:
    pings = raw_frame(bytes(125), opcode=9) * 1000
    sent = answered = 0

    async def script(raw: RawConnection) -> None:
        nonlocal sent, answered
        raw.writer.write(raw.response)
        raw.writer.transport.pause_reading()  # type: ignore[attr-defined]
        for _ in range(20):
            raw.writer.write(pings)
            await raw.writer.drain()
            sent += len(pings)
        raw.writer.transport.resume_reading()  # type: ignore[attr-defined]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(3):
                while data := await raw.reader.read(1 << 20):
                    answered += len(data)
        done.set()

    done = asyncio.Event()
    async with raw_agent(script) as url, running(settings(url, ai={"ping_s": 60})) as daemon:
        async with daemon.call():
            async with asyncio.timeout(20):
                await done.wait()
    assert sent == 20 * len(pings)
    assert answered < sent / 2  # what the kernel holds, and not much more


@pytest.mark.parametrize(
    "data",
    [
        b"\x83\x00",  # an unknown opcode
        b"\x82\x80\0\0\0\0",  # masked by a server
        b"\x09\x00",  # a fragmented ping
        b"\x82\xff" + b"\xff" * 8,
        b"\x88\x01\x03",
        b"\x88\x02\x00\x01",
    ],
)
async def test_broken_websocket_is_a_lost_agent(
    data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def script(raw: RawConnection) -> None:
        raw.writer.write(raw.response + data)
        await raw.reader.read()

    async with raw_agent(script) as url, running(settings(url)) as daemon:
        async with daemon.call() as call:
            await daemon.event("agent_lost", call)
            await daemon.event("agent_connected", call, number=1)
    assert not [record for record in caplog.records if record.name == "asyncio"]


# Agents that dial in


async def _token(daemon: Daemon, call: AsteriskCall) -> str:
    token = (await daemon.event("agent_awaited", call)).data["agent_token"]
    assert isinstance(token, str)
    return token


def _address(daemon: Daemon) -> tuple[str, int]:
    assert daemon.app.dial_in_address is not None
    return daemon.app.dial_in_address


async def test_agent_that_dials_in_serves_the_call_of_its_token() -> None:
    words = tone(440, 0.2, 8000)
    async with running(settings(audiosocket={"codec": "slin"})) as daemon:
        async with daemon.call() as call, daemon.call() as other:
            call.press("1")
            token = await _token(daemon, call)
            assert token != await _token(daemon, other)
            async with dial_in(_address(daemon), token) as agent:
                await agent.until(lambda agent: agent.messages != [])
                ready = agent.messages[0]
                assert ready["data"]["about"]["platform_details"]["call_id"] == str(call.call_id)
                await agent.say(words, 8000)
                await agent.until(lambda agent: agent.digits == "1")
                await eventually(lambda: len(call.words) >= len(words))
                assert call.words == words
                await agent.close(1000)
                await call.hung_up()
                assert await daemon.hung_up(call) == ("agent", "normal_clearing")
            assert other.words == b""


async def test_second_agent_gets_1013() -> None:
    async with running(settings()) as daemon, daemon.call() as call:
        token = await _token(daemon, call)
        async with dial_in(_address(daemon), token) as agent:
            async with dial_in(_address(daemon), token) as second:
                with contextlib.suppress(ConnectionClosed):
                    await second.ws.send(frames.encode_text("hello"))
                await second.ws.wait_closed()
                assert second.ws.close_code == 1013
            await agent.until(lambda agent: agent.messages != [])
            assert agent.ws.close_code is None
            assert await daemon.metric(CONNECTS, outcome="second_agent") == 1


@pytest.mark.parametrize("when", ["wrong", "expired", "over"])
async def test_token_that_is_not_good_gets_403(when: str, prompt: Path) -> None:
    ai = {"token_s": 0.2, "unavailable_prompt": prompt}
    async with running(settings(ai=ai)) as daemon, daemon.call() as call:
        token = await _token(daemon, call)
        if when == "expired":
            await call.hung_up()
            assert await daemon.hung_up(call) == UNAVAILABLE
        elif when == "over":
            call.close()
            await daemon.hung_up(call)
        else:
            token = "x" + token
        with pytest.raises(InvalidStatus) as refused:
            async with dial_in(_address(daemon), token):
                pass
        assert refused.value.response.status_code == 403
        assert await daemon.metric(CONNECTS, outcome="bad_token") == 1


async def test_lost_agent_may_dial_in_again_with_a_new_token() -> None:
    async with running(settings()) as daemon, daemon.call() as call:
        token = await _token(daemon, call)
        async with dial_in(_address(daemon), token) as agent:
            await agent.say(tone(440, 0.1, 8000), 8000)
            await call.hears_words()
            await agent.close(1006)
        renewed = (await daemon.event("agent_awaited", call, 1)).data["agent_token"]
        assert renewed != token
        with pytest.raises(InvalidStatus):
            async with dial_in(_address(daemon), token):
                pass
        async with dial_in(_address(daemon), renewed) as agent:
            await agent.until(lambda agent: agent.messages != [])


async def test_agent_that_dials_in_only_to_leave_is_given_up(prompt: Path) -> None:
    ai = {"connect_timeout_s": 0.5, "unavailable_prompt": prompt}
    async with running(settings(ai=ai)) as daemon, daemon.call() as call:
        token = await _token(daemon, call)
        async with dial_in(_address(daemon), token):
            pass
        await call.hung_up()
        assert await daemon.hung_up(call) == UNAVAILABLE


async def test_call_that_is_over_at_once_leaves_no_token() -> None:
    async with running(settings()) as daemon:
        async with daemon.call(sends_uuid=False) as call:
            call.send(b"\x01\x00\x10" + call.call_id.bytes + b"\xfe")
            await call.closed()
            await daemon.hung_up(call)
        with pytest.raises(InvalidStatus) as refused:
            async with dial_in(_address(daemon), await _token(daemon, call)):
                pass
        assert refused.value.response.status_code == 403


UPGRADE = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"


@pytest.mark.parametrize("headers", ["", UPGRADE], ids=["plain", "upgrade without a key"])
async def test_request_that_becomes_no_websocket_leaves_the_token_good(headers: str) -> None:
    async with running(settings()) as daemon, daemon.call() as call:
        token = await _token(daemon, call)
        reader, writer = await asyncio.open_connection(*_address(daemon))
        writer.write(f"GET /agent/{token} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())
        assert (await reader.read()).startswith(b"HTTP/1.1 400")
        writer.close()
        async with dial_in(_address(daemon), token) as agent:
            await agent.until(lambda agent: agent.messages != [])


async def test_plain_http_at_the_dial_in_port_is_refused() -> None:
    async with running(settings()) as daemon:
        reader, writer = await asyncio.open_connection(*_address(daemon))
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 403")
        writer.close()
