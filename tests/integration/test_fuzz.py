"""A daemon under a million random and mutated messages from both sides: it serves on."""

import asyncio
import contextlib
import os
import random
import re
import time
from collections.abc import Awaitable
from pathlib import Path
from uuid import uuid4

import pytest

from mediad.media.resample import SAMPLE_RATES
from mediad.wire import frames
from mediad.wire.audiosocket import (
    AUDIO_KIND_OF_RATE,
    HEADER,
    Kind,
    audio_message,
    digit_message,
    uuid_message,
)
from tests.data.corpus import samples
from tests.fakes.agent import AgentConnection, FakeAgent
from tests.fakes.asterisk import SILENCE, AsteriskCall
from tests.mediad_process import MediadProcess, run_mediad

CALLER_MESSAGES = 1_500_000  # half the connections are cut before all is read
AGENT_MESSAGES = 200_000
HTTP_REQUESTS = 2000
MAX_SECONDS = 80.0
MAX_GROWTH_KIB = 8 * 1024
TAKEN = 1_000_000  # of them, by mediad's own counters
VIOLATIONS = ("unknown_kind", "bad_length", "second_uuid", "bad_digit", "no_uuid")
_CONNECTIONS = 8  # at once
_CLOSED = 'mediad_audiosocket_connections_closed_total{reason="%s"}'


def rss_kib(mediad: MediadProcess) -> int:
    """Return the memory in use."""
    status = Path(f"/proc/{mediad.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


async def metrics_of(mediad: MediadProcess) -> dict[str, float]:
    """Return what /metrics shows."""
    reader, writer = await asyncio.open_connection(*mediad.http)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: mediad\r\nConnection: close\r\n\r\n")
    text = (await reader.read()).decode()
    writer.close()
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("mediad_"))
    return {name: float(value) for name, value in lines}


async def check_it_serves(mediad: MediadProcess) -> None:
    """Check that a new call gets what its agent says."""
    async with asyncio.timeout(20):
        while True:
            async with AsteriskCall(mediad.audiosocket) as call:
                with contextlib.suppress(TimeoutError):
                    await call.hears(5, timeout_s=2)
                    return


class Fuzzer:
    """Random messages, most of them nearly right. Counts them."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.messages = 0
        self.connections = 0

    def caller_messages(self) -> bytes:
        """Return what one connection sends after its UUID; the last message is often broken."""
        rng = self.random
        parts = [self._good_message() for _ in range(rng.randrange(1, 700))]
        if rng.random() < 0.2:
            parts.insert(rng.randrange(len(parts)), self._bad_message())
        self.messages += len(parts)
        data = bytearray(b"".join(parts))
        for _ in range(rng.choice((0, 0, 1, 1, 5))):
            data[rng.randrange(len(data))] = rng.randrange(256)
        if rng.random() < 0.3:
            data += rng.randbytes(rng.randrange(1, 600))
            self.messages += 1
        if rng.random() < 0.3:
            del data[rng.randrange(len(data)) :]
        return bytes(data)

    def _good_message(self) -> bytes:
        rng = self.random
        roll = rng.random()
        if roll < 0.85:
            return _SOUNDS[rng.randrange(len(_SOUNDS))]
        if roll < 0.95:
            rate, kind = rng.choice(list(AUDIO_KIND_OF_RATE.items()))
            return audio_message(kind, bytes(rate // 50 * 2))
        return digit_message(rng.choice("0123456789*#ABCD"))

    def _bad_message(self) -> bytes:
        rng = self.random
        return rng.choice(
            (
                HEADER.pack(rng.randrange(1, 256), rng.randrange(1, 400)),
                HEADER.pack(rng.choice(list(Kind)), rng.randrange(0x10000)),
                HEADER.pack(Kind.DTMF, 1) + rng.randbytes(1),
                uuid_message(uuid4()),
            )
        )

    def agent_message(self) -> bytes:
        """Return one message of an agent."""
        rng = self.random
        message = bytearray(rng.choice(_AGENT_FRAMES))
        if rng.random() < 0.3:
            for _ in range(rng.randrange(1, 8)):
                message[rng.randrange(min(len(message), 60))] = rng.randrange(256)
        elif rng.random() < 0.1:
            del message[rng.randrange(len(message)) :]
        return bytes(message)


_SOUNDS = [audio_message(Kind.SLIN, os.urandom(size)) for size in (80, 160, 160, 320, 480, 960)]
_RTVI = '{"label": "rtvi-ai", "type": "%s", "data": {"text": "hello", "final": true}}'
_AGENT_FRAMES = [
    *(frames.encode_audio(os.urandom(rate // 50 * 2), rate) for rate in sorted(SAMPLE_RATES)),
    frames.encode_audio(os.urandom(640), 8000, 2),
    frames.encode_audio(b"RIFF" + os.urandom(4) + b"WAVEdata" + os.urandom(320), 16000),
    frames.encode_interruption(3),
    frames.encode_text("hello"),
    frames.encode_transcription("hello"),
    *(frames.encode_json(_RTVI % type_) for type_ in ("user-transcription", "bot-transcription")),
    frames.encode_json(_RTVI % "bot-started-speaking"),
]


async def fuzz_caller(mediad: MediadProcess, fuzzer: Fuzzer, until: int, deadline: float) -> None:
    """Make connections until so many messages were sent."""
    rng = fuzzer.random
    while fuzzer.messages < until and time.monotonic() < deadline:
        fuzzer.connections += 1
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(5):
                reader, writer = await asyncio.open_connection(*mediad.audiosocket)
                if rng.random() > 0.02:
                    writer.write(uuid_message(uuid4()))
                await _send_and_leave(writer, fuzzer.caller_messages(), rng)
                reader.feed_eof()


async def _send_and_leave(writer: asyncio.StreamWriter, data: bytes, rng: random.Random) -> None:
    try:
        for start in range(0, len(data), 40_000):
            writer.write(data[start : start + 40_000])
            await writer.drain()
        await asyncio.sleep(rng.choice((0, 0, 0.01, 0.05)))
        if rng.random() < 0.5:
            writer.transport.abort()
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def test_a_million_messages_leave_the_daemon_serving() -> None:
    callers, agents = Fuzzer(1), Fuzzer(2)
    is_over = False

    async def script(agent: AgentConnection) -> None:
        agent.audio.clear()
        while agents.messages < AGENT_MESSAGES and not is_over and not agent.closed_at:
            for _ in range(20):
                await agent.ws.send(agents.agent_message())
                agents.messages += 1
            await asyncio.sleep(0)
        if agents.random.random() < 0.5:
            await agent.close(agents.random.choice((1000, 1001, 1006, 1011, 1013, 4000)))

    began = time.monotonic()
    deadline = began + MAX_SECONDS
    settings = {
        "audiosocket__max_calls": str(_CONNECTIONS * 100),
        "audiosocket__max_connects_per_s": "100000",
        "audiosocket__playout_max_s": "2",
        "cache__max_bytes": str(1 << 20),  # it fills: no growth without end
    }
    async with QuietAgent(script) as agent, run_mediad(agent.url, **settings) as mediad:

        def fuzz(until: int) -> Awaitable[list[None]]:
            runs = (fuzz_caller(mediad, callers, until, deadline) for _ in range(_CONNECTIONS))
            return asyncio.gather(*runs)

        await fuzz(CALLER_MESSAGES // 4)  # buffers and caches fill
        warm_kib = rss_kib(mediad)
        await fuzz(CALLER_MESSAGES)
        await agent.keep_talking(agents, deadline, mediad)
        is_over = True
        await check_it_serves(mediad)
        growth_kib = rss_kib(mediad) - warm_kib
        metrics = await metrics_of(mediad)
        assert await mediad.stop() == 0
    log = "".join(mediad.log)
    sent = callers.messages + agents.messages
    if sent < CALLER_MESSAGES + AGENT_MESSAGES:
        pytest.fail(f"only {sent} messages in {time.monotonic() - began:.0f} s")
    assert callers.connections > 500
    assert metrics["mediad_caller_messages_total"] + agents.messages >= TAKEN
    for reason in VIOLATIONS:
        assert metrics.get(_CLOSED % reason, 0) > 0, reason
    assert growth_kib < MAX_GROWTH_KIB
    assert "Traceback" not in log
    assert "failed" not in log


# The corpus

_ANSWER_S = 0.5


async def outcome_of_request(address: tuple[str, int], data: bytes) -> str:
    """Send bytes to the HTTP port; return what they come to."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(data)
        async with asyncio.timeout(_ANSWER_S):
            status = (await reader.readuntil(b"\r\n")).split(b" ")[1]
        assert not status.startswith(b"5"), status
        return "answered" if status == b"200" else "refused"
    except TimeoutError:
        return "waits for more"
    except (OSError, asyncio.IncompleteReadError):  # it was closed without a word
        return "refused"
    finally:
        writer.transport.abort()


async def test_http_port_takes_the_corpus_and_lives() -> None:
    async with FakeAgent() as agent, run_mediad(agent.url) as mediad:
        for sample in samples("http"):
            assert await outcome_of_request(mediad.http, sample.data) == sample.outcome, sample.path
            assert "200 OK" in await mediad.get("/readyz")
    # The HTTP server logs its own traceback when it answers a request that turned out to be none.
    assert "src/mediad/" not in "".join(mediad.log)


async def key_of(mediad: MediadProcess) -> bytes:
    """Return the first access key."""
    line = await mediad.wait_for_log("the first access key is in ")
    path = Path(line.rpartition(" ")[2].strip())
    return (await asyncio.to_thread(path.read_bytes)).strip()


async def test_api_takes_the_corpus_from_who_has_a_key_and_lives() -> None:
    async with FakeAgent() as agent, run_mediad(agent.url) as mediad:
        key = await key_of(mediad)
        for sample in samples("api"):
            data = sample.data.replace(b"@KEY@", key)
            statuses = await statuses_of(mediad.http, data, waits_s=10)
            assert [status for status in statuses if status != b"100"][0].decode() == sample.outcome
            await statuses_of(mediad.http, data)  # and from who does not wait for the answer
        assert "200 OK" in await mediad.get("/readyz")
    assert "src/mediad/" not in "".join(mediad.log)


async def test_listener_takes_the_corpus_and_lives() -> None:
    async with FakeAgent() as agent, run_mediad(agent.url) as mediad:
        for sample in samples("audiosocket"):
            async with AsteriskCall(mediad.audiosocket, sends_uuid=False) as call:
                call.send(sample.data)
                await asyncio.sleep(0.02)
        await check_it_serves(mediad)
        metrics = await metrics_of(mediad)
    for reason in VIOLATIONS:
        expected = sum(sample.outcome == reason for sample in samples("audiosocket"))
        assert metrics[_CLOSED % reason] == expected, reason
    assert "Traceback" not in "".join(mediad.log)


async def test_listener_behind_a_balancer_takes_the_corpus_and_lives() -> None:
    good = next(sample.data for sample in samples("proxy") if sample.path.name == "tcp4.bin")
    settings = {"audiosocket__proxy_protocol": "v2"}
    async with FakeAgent() as agent, run_mediad(agent.url, **settings) as mediad:
        for sample in samples("proxy"):
            async with AsteriskCall(mediad.audiosocket, sends_uuid=False) as call:
                call.send(sample.data)
                await asyncio.sleep(0.02)
        async with AsteriskCall(mediad.audiosocket, sends_uuid=False) as call:
            call.send(good[:28] + uuid_message(call.call_id))
            await call.hears(5)
        metrics = await metrics_of(mediad)
    refused = sum(sample.outcome == "refused" for sample in samples("proxy"))
    assert metrics[_CLOSED % "bad_proxy_header"] == refused
    assert "Traceback" not in "".join(mediad.log)


async def test_http_port_takes_broken_requests_and_lives() -> None:
    rng = random.Random(3)
    statuses: set[bytes] = set()

    async def fuzz(mediad: MediadProcess, corpus: list[bytes]) -> None:
        for _ in range(HTTP_REQUESTS // _CONNECTIONS):
            data = bytearray(rng.choice(corpus))
            for _ in range(rng.randrange(1, 4)):
                start = rng.randrange(len(data))
                data[start : start + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
            waits_s = _ANSWER_S if b"Connection: close" in data and rng.random() < 0.5 else 0
            statuses.update(await statuses_of(mediad.http, bytes(data), waits_s))

    async with FakeAgent() as agent, run_mediad(agent.url) as mediad:
        key = await key_of(mediad)
        found = [sample.data for format in ("http", "api") for sample in samples(format)]
        corpus = [data.replace(b"@KEY@", key) for data in found if len(data) < 1000]
        await asyncio.gather(*(fuzz(mediad, corpus) for _ in range(_CONNECTIONS)))
        assert "200 OK" in await mediad.get("/readyz")
    assert {b"200", b"201", b"400", b"404", b"422"} <= statuses
    assert not any(status.startswith(b"5") for status in statuses), statuses
    assert "src/mediad/" not in "".join(mediad.log)


async def statuses_of(address: tuple[str, int], data: bytes, waits_s: float = 0) -> list[bytes]:
    """Send bytes to the HTTP port; return the statuses of the answers until it closes.

    Args:
        address: The port's.
        data: What is sent.
        waits_s: How long to wait; 0 sends an end, and waits as long as it takes.
    """
    reader, writer = await asyncio.open_connection(*address)
    answer = b""
    with contextlib.suppress(OSError, TimeoutError):
        writer.write(data)
        if not waits_s:
            writer.write_eof()
        async with asyncio.timeout(waits_s or 5):
            while piece := await reader.read(65_536):
                answer += piece
    writer.transport.abort()
    return re.findall(rb"^HTTP/1.1 (\d+)", answer, re.MULTILINE)


class QuietAgent(FakeAgent):
    """An agent that keeps nothing of what it hears."""

    async def keep_talking(self, agents: Fuzzer, deadline: float, mediad: MediadProcess) -> None:
        """Hold calls open until the agents have sent their share."""
        while agents.messages < AGENT_MESSAGES and time.monotonic() < deadline:
            async with AsteriskCall(mediad.audiosocket) as call:
                for _ in range(50):
                    call.send(SILENCE)
                    await asyncio.sleep(0.02)
                    if call.is_closed:
                        break
            for connection in self.connections[:-10]:
                connection.audio.clear()
