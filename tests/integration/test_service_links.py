"""Links to STT, LLM and TTS over real WebSockets: what is asked and heard, every way to fail."""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import pytest

from mediad import config
from mediad.ai.connect import CallInfo
from mediad.ai.services import connection as connections
from mediad.ai.services import llm as llm_module
from mediad.ai.services import tts as tts_module
from mediad.ai.services.counts import Counts, ServiceMetrics
from mediad.ai.services.events import Failed, Times
from mediad.ai.services.link import MAX_ASKED, ServiceLink
from mediad.ai.services.llm import LlmLink
from mediad.ai.services.service import Service
from mediad.ai.services.stt import HELD_FRAMES, SttLink
from mediad.ai.services.tts import TtsLink
from mediad.ai.tls import client_tls
from mediad.errors import AgentUnavailable
from mediad.metrics import Metrics
from mediad.wire import frames
from mediad.wire.frames import AudioFrame, Interruption, Text, Transcription
from mediad.wire.service import (
    Done,
    Failure,
    Generate,
    Interim,
    Ready,
    Role,
    StoppedSpeaking,
    Voice,
    Word,
)
from tests.fakes.service import RATE_HZ, FakeService, ServiceConnection, answer, pcm_of
from tests.integration.certificates import Authority
from tests.own_stalls import no_longer_than

CALL = CallInfo("11111111-2222-3333-4444-555555555555", "+4930", "100")
FRAME = frames.encode_audio(bytes(640), 16_000)
SETTINGS: dict[Role, type[config.ServiceSettings]] = {
    "stt": config.Stt,
    "llm": config.Llm,
    "tts": config.Tts,
}

Link = TypeVar("Link", bound=ServiceLink)


class Heard:
    """All that a call hears of its services, in order."""

    def __init__(self) -> None:
        self.all: list[tuple[Any, ...]] = []
        self.times: list[Times] = []
        self._changed = asyncio.Event()

    def _add(self, *what: Any) -> None:
        self.all.append(what)
        self._changed.set()

    def of(self, kind: str) -> list[Any]:
        """Return what was heard of a kind, without its name."""
        return [what[1] if len(what) == 2 else what[1:] for what in self.all if what[0] == kind]

    async def until(self, kind: str, count: int = 1) -> list[Any]:
        """Wait until so much of a kind was heard; return it."""
        async with asyncio.timeout(15):
            while len(self.of(kind)) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.of(kind)

    def on_service_open(self, role: Role, connect_s: float) -> None:
        assert 0 < connect_s < 5
        self._add("open", role)

    def on_service_lost(self, role: Role, why: str) -> None:
        self._add("service_lost", why)

    def on_failed(self, failed: Failed) -> None:
        self._add("failed", failed.n, failed.why, failed.has_output)

    def on_audio_dropped(self) -> None:
        self._add("audio_dropped", True)

    def on_interim(self, text: str) -> None:
        self._add("interim", text)

    def on_final(self, text: str) -> None:
        self._add("final", text)

    def on_end_of_turn(self) -> None:
        self._add("end_of_turn", True)

    def on_stt_done(self, n: int, times: Times) -> None:
        self._done(n, times)

    def on_text(self, n: int, delta: str) -> None:
        self._add("text", n, delta)

    def on_llm_done(self, done: Done, times: Times) -> None:
        self._add("llm_done", done)
        self._done(done.n, times)

    def on_audio(self, n: int, message: bytes) -> None:
        frame = frames.decode(message)
        assert isinstance(frame, AudioFrame)
        self._add("audio", n, frame.audio)

    def on_word(self, n: int, text: str, offset_ms: int) -> None:
        self._add("word", n, text, offset_ms)

    def on_tts_done(self, n: int, times: Times) -> None:
        self._done(n, times)

    def _done(self, n: int, times: Times) -> None:
        assert times.asked_at <= times.head_at <= times.done_at
        self.times.append(times)
        self._add("done", n)


class Bench:
    """Links of one call, and what is counted of them."""

    def __init__(self, **settings: Any) -> None:
        self.heard = Heard()
        self.metrics = Metrics()
        self._counted = ServiceMetrics(self.metrics.registry)
        patience = {"connect_timeout_s": 5.0, "timeout_s": 5.0, "budget_s": 10.0}
        self._settings: dict[str, Any] = {**patience, **settings}
        self.patience_s = 5.0
        self.tls: ssl.SSLContext | None = None

    def service(self, role: Role, *urls: str) -> Service:
        """Return a service at these addresses."""
        settings = SETTINGS[role](url=urls, **self._settings)
        counts = Counts(self._counted, role)
        return Service(role, settings, counts, self.tls, 2.0, self.patience_s, self.patience_s)

    def stt(self, *fakes: FakeService) -> SttLink:
        return SttLink(self.service("stt", *urls_of(fakes)), CALL, "en-US", self.heard)

    def llm(self, *fakes: FakeService) -> LlmLink:
        return LlmLink(self.service("llm", *urls_of(fakes)), CALL, "en-US", self.heard)

    def tts(self, *fakes: FakeService) -> TtsLink:
        voice = Voice("anna", "de-DE", 1.25)
        return TtsLink(self.service("tts", *urls_of(fakes)), CALL, voice, RATE_HZ, self.heard)

    def count(self, name: str, **labels: str) -> float:
        """Return a counter of services."""
        return sum(
            sample.value
            for metric in self.metrics.registry.collect()
            for sample in metric.samples
            if sample.name == f"mediad_service_{name}" and labels.items() <= sample.labels.items()
        )


def urls_of(fakes: tuple[FakeService, ...]) -> list[str]:
    return [fake.url for fake in fakes]


@contextlib.asynccontextmanager
async def running(link: Link) -> AsyncIterator[Link]:
    """Run a link as a call does."""
    task = asyncio.create_task(link.run())
    try:
        yield link
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, AgentUnavailable):
            await task
        await link.closed()


async def eventually(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 (what is asked has no event)
            await asyncio.sleep(0.01)


async def hang(connection: ServiceConnection) -> None:
    """Answer nothing."""
    connection.cancels = False


async def asked(connection: ServiceConnection, count: int = 1) -> list[Any]:
    """Wait for requests."""
    await connection.until(lambda connection: len(connection.got) >= count)
    return connection.got


def silence(seconds: float) -> AudioFrame:
    return AudioFrame(bytes(2 * int(seconds * RATE_HZ)), RATE_HZ, 1)


# What is asked, and what is heard


async def test_start_tells_a_service_what_it_is_for() -> None:
    bench = Bench(headers={"Authorization": "Bearer sesame"})
    async with FakeService("tts") as tts, running(bench.tts(tts)):
        connection = await tts.connection()
        start = connection.start
        assert start is not None
        assert (start.protocol, start.call_id, start.language) == (1, CALL.call_id, "de-DE")
        assert (start.voice, start.rate, start.sample_rate) == ("anna", 1.25, RATE_HZ)
        assert connection.headers["Authorization"] == "Bearer sesame"
        assert connection.headers["X-Mediad-Call-Id"] == CALL.call_id
        assert await bench.heard.until("open") == ["tts"]


async def test_words_come_as_they_are_heard() -> None:
    async def script(connection: ServiceConnection) -> None:
        await connection.until(lambda connection: len(connection.audio) == 3)
        await connection.send(Interim("goo"), Transcription("Good morning.", "", ""))
        await connection.send(StoppedSpeaking())
        await answer(connection)

    bench = Bench()
    async with FakeService("stt", script) as stt, running(bench.stt(stt)) as link:
        for _ in range(3):
            link.send_audio(FRAME)
        await bench.heard.until("end_of_turn")
        link.stopped_speaking(1)
        await bench.heard.until("done")
        assert [what for what in bench.heard.all if what[0] != "open"] == [
            ("interim", "goo"),
            ("final", "Good morning."),
            ("end_of_turn", True),
            ("final", "turn 1"),
            ("done", 1),
        ]
        assert stt.connections[0].audio == [bytes(640)] * 3


async def test_newest_audio_is_held_until_a_service_is_ready() -> None:
    bench = Bench()
    async with FakeService("stt") as stt:
        link = bench.stt(stt)
        for number in range(HELD_FRAMES + 7):
            link.send_audio(frames.encode_audio(bytes([number]) * 640, 16_000))
        link.stopped_speaking(1)
        async with running(link):
            await bench.heard.until("done")
            assert [pcm[0] for pcm in stt.connections[0].audio] == list(range(7, HELD_FRAMES + 7))
    assert bench.count("audio_dropped_frames_total", reason="not_connected") == 7
    assert len(bench.heard.of("audio_dropped")) == 7


async def test_answer_comes_in_parts_and_with_what_it_cost() -> None:
    bench = Bench()
    tools = [{"type": "function", "function": {"name": "hang_up"}}]
    async with FakeService("llm") as llm, running(bench.llm(llm)) as link:
        link.generate(3, [{"role": "user", "content": "how  are you"}], tools)
        await bench.heard.until("done")
        (asked,) = llm.asked(Generate)
    assert asked == Generate(3, [{"role": "user", "content": "how  are you"}], tools)
    assert "".join(delta for _, delta in bench.heard.of("text")) == "how  are you"
    assert len(bench.heard.of("text")) == 4
    (done,) = bench.heard.of("llm_done")
    assert (done.reason, done.usage) == ("stop", {"completion_tokens": 4})
    assert bench.count("first_seconds_count", role="llm") == 1
    assert bench.count("requests_total", role="llm", outcome="done") == 1


async def test_tool_calls_are_passed_on() -> None:
    calls = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]

    async def script(connection: ServiceConnection) -> None:
        await asked(connection)
        await connection.send(Done(1, "tool_calls", tool_calls=calls))

    bench = Bench()
    async with FakeService("llm", script) as llm, running(bench.llm(llm)) as link:
        link.generate(1, [])
        await bench.heard.until("done")
    (done,) = bench.heard.of("llm_done")
    assert (done.reason, list(done.tool_calls)) == ("tool_calls", calls)


async def test_texts_are_spoken_one_after_the_other() -> None:
    bench = Bench()
    async with FakeService("tts") as tts, running(bench.tts(tts)) as link:
        link.speak(1, "One.")
        link.speak(2, "Two.")
        await bench.heard.until("done", 2)
        assert len(tts.connections) == 1
    assert [what for what in bench.heard.all if what[0] != "open"] == [
        ("audio", 1, pcm_of("One.")),
        ("word", 1, "One.", 0),
        ("done", 1),
        ("audio", 2, pcm_of("Two.")),
        ("word", 2, "Two.", 0),
        ("done", 2),
    ]
    first, second = bench.heard.times
    assert first.first_at is not None
    assert second.head_at == first.done_at
    assert second.tries == 1


async def test_voice_is_told_when_it_changes() -> None:
    bench = Bench()
    loud = Voice("bert", "de-DE", 1.0)
    async with FakeService("tts") as tts, running(bench.tts(tts)) as link:
        for n, voice in enumerate((None, loud, loud, None), start=1):
            link.speak(n, "x", voice)
        await bench.heard.until("done", 4)
        got = tts.connections[0].got
    anna = Voice("anna", "de-DE", 1.25)
    texts = [Text(n, "x") for n in (1, 2, 3, 4)]
    assert got == [texts[0], loud, texts[1], texts[2], anna, texts[3]]


async def test_what_was_asked_before_a_service_was_ready_is_asked_then() -> None:
    bench = Bench()
    async with FakeService("tts") as tts:
        link = bench.tts(tts)
        link.speak(1, "Hello.")
        async with running(link):
            await bench.heard.until("done")


# Cancelling


async def test_nothing_is_heard_of_what_was_cancelled() -> None:
    async def script(connection: ServiceConnection) -> None:
        connection.cancels = False
        await asked(connection, 2)
        await connection.send(silence(0.1))
        await connection.until(lambda connection: connection.asked(Interruption) != [])
        await connection.send(silence(0.2), Word(1, "late", 0), Done(1))  # it had not heard of it
        await connection.send(silence(0.2), Done(2, "cancelled"))
        connection.cancels = True
        await answer(connection)

    bench = Bench()
    async with FakeService("tts", script) as tts, running(bench.tts(tts)) as link:
        link.speak(1, "One.")
        link.speak(2, "Two.")
        await bench.heard.until("audio")
        link.cancel(2)
        link.speak(3, "Three.")
        await bench.heard.until("done")
        assert tts.asked(Interruption) == [Interruption(2)]
        assert len(tts.connections) == 1
    assert [n for n, _ in bench.heard.of("audio")] == [1, 3]
    assert bench.heard.of("done") == [3]
    assert bench.heard.of("failed") == []
    assert bench.count("requests_total", outcome="cancelled") == 2
    assert bench.count("discarded_messages_total", reason="cancelled") == 3


async def test_service_that_does_not_stop_is_left_for_a_new_connection() -> None:
    async def script(connection: ServiceConnection) -> None:
        connection.cancels = False
        await asked(connection)
        while True:
            await connection.send(silence(0.02))
            await asyncio.sleep(0.02)

    bench = Bench(timeout_s=1.0)
    async with (
        FakeService("tts", answer, scripts=(script,)) as tts,
        running(bench.tts(tts)) as link,
    ):
        link.speak(1, "One.")
        await bench.heard.until("audio")
        link.cancel(1)
        cancelled_at = time.monotonic()
        async with no_longer_than(0.8):
            link.speak(2, "Two.")
            await bench.heard.until("done")
        assert time.monotonic() - cancelled_at > 0.4
        assert len(tts.connections) == 2
    assert bench.heard.of("done") == [2]
    assert {n for n, _ in bench.heard.of("audio")} == {1, 2}
    assert bench.count("replaced_total", role="tts", reason="cancel") == 1


async def test_cancelling_what_nobody_has_heard_of_tells_nobody() -> None:
    bench = Bench()
    async with FakeService("tts") as tts:
        link = bench.tts(tts)
        link.speak(1, "One.")
        link.cancel(1)
        link.speak(2, "Two.")
        async with running(link):
            await bench.heard.until("done")
        assert tts.asked(Text) == [Text(2, "Two.")]
        assert tts.asked(Interruption) == []


async def test_done_that_crosses_a_cancelling_does_no_harm() -> None:
    async def script(connection: ServiceConnection) -> None:
        connection.cancels = False
        await connection.until(lambda connection: connection.asked(Interruption) != [])
        await connection.send(Text(1, "late"), Done(1), Done(1, "cancelled"))
        await connection.until(lambda connection: len(connection.asked(Generate)) == 2)
        await connection.send(Text(2, "good"), Done(1, "cancelled"), Done(2))

    bench = Bench()
    async with FakeService("llm", script) as llm, running(bench.llm(llm)) as link:
        await bench.heard.until("open")
        link.generate(1, [])
        await llm.connections[0].until(lambda connection: connection.got != [])
        link.cancel(1)
        link.generate(2, [])
        await bench.heard.until("done")
    assert bench.heard.of("text") == [(2, "good")]
    assert bench.count("discarded_messages_total", reason="unasked") >= 1


# Services that fail


async def test_service_that_hangs_is_asked_elsewhere() -> None:
    bench = Bench(timeout_s=0.3)
    async with FakeService("llm", hang) as bad, FakeService("llm") as good:
        async with running(bench.llm(bad, good)) as link:
            started = time.monotonic()
            async with no_longer_than(0.8):
                link.generate(1, [{"content": "hello"}])
                await bench.heard.until("done")
            assert time.monotonic() - started >= 0.3
    assert bench.heard.of("service_lost") == ["timeout"]
    assert bench.heard.times[0].tries == 2
    assert bench.count("retries_total") == 1
    assert bench.count("replaced_total", reason="timeout") == 1


async def test_service_that_always_hangs_fails_within_the_budget() -> None:
    bench = Bench(timeout_s=0.3, budget_s=0.5)
    async with FakeService("llm", hang) as bad, running(bench.llm(bad)) as link:
        started = time.monotonic()
        async with no_longer_than(0.8):
            link.generate(1, [])
            ((n, _, has_output),) = await bench.heard.until("failed")
        assert (n, has_output) == (1, False)
        assert time.monotonic() - started >= 0.5
        # The next request is answered by whatever there is then.
        bad._script = answer
        opened = len(bench.heard.of("open"))
        bad.connections[-1].ws.transport.abort()
        await bench.heard.until("open", opened + 1)
        link.generate(2, [{"content": "hello"}])
        await bench.heard.until("done")


async def test_speech_that_stops_half_way_has_failed() -> None:
    async def script(connection: ServiceConnection) -> None:
        await asked(connection, 2)
        await connection.send(silence(0.1))

    bench = Bench(timeout_s=0.3)
    async with FakeService("tts", answer, scripts=(script,)) as tts:
        async with running(bench.tts(tts)) as link:
            link.speak(1, "One.")
            link.speak(2, "Two.")
            await bench.heard.until("done")
    assert bench.heard.of("failed") == [(1, "timeout", True)]
    assert bench.heard.of("done") == [2]
    assert [n for n, _ in bench.heard.of("audio")] == [1, 2]


@pytest.mark.parametrize("role", ["stt", "llm", "tts"])
async def test_service_that_dies_within_an_answer_fails_it(role: Role) -> None:
    async def script(connection: ServiceConnection) -> None:
        await asked(connection)
        if role == "stt":
            await connection.send(Transcription("half", "", ""))
        else:
            await connection.send(Text(1, "half") if role == "llm" else silence(0.1))
        await connection.cut()

    bench = Bench()
    async with FakeService(role, answer, scripts=(script,)) as fake:
        async with running(make(bench, role, fake)) as link:
            request(link, 1)
            assert await bench.heard.until("failed") == [(1, "lost", True)]
            request(link, 2)
            await bench.heard.until("done")
    assert bench.heard.of("done") == [2]
    assert bench.count("requests_total", role=role, outcome="lost") == 1
    assert bench.count("replaced_total", role=role, reason="lost") == 1


def make(bench: Bench, role: Role, *fakes: FakeService) -> ServiceLink:
    makers: dict[Role, Callable[..., ServiceLink]] = {
        "stt": bench.stt,
        "llm": bench.llm,
        "tts": bench.tts,
    }
    return makers[role](*fakes)


def request(link: ServiceLink, n: int) -> None:
    if isinstance(link, SttLink):
        link.stopped_speaking(n)
    elif isinstance(link, LlmLink):
        link.generate(n, [{"content": "hello"}])
    elif isinstance(link, TtsLink):
        link.speak(n, "Hello.")


@pytest.mark.parametrize("role", ["llm", "tts"])
async def test_service_that_dies_before_its_answer_is_asked_again(role: Role) -> None:
    async def script(connection: ServiceConnection) -> None:
        await asked(connection)
        await connection.cut()

    bench = Bench()
    async with FakeService(role, answer, scripts=(script, script)) as fake:
        async with running(make(bench, role, fake)) as link:
            request(link, 1)
            await bench.heard.until("done")
            assert bench.heard.times[0].tries == 3
    assert bench.heard.of("failed") == []


async def test_turn_that_no_service_has_heard_is_not_asked_of_another() -> None:
    async def script(connection: ServiceConnection) -> None:
        await asked(connection)
        await connection.cut()

    bench = Bench()
    async with FakeService("stt", answer, scripts=(script,)) as fake:
        async with running(bench.stt(fake)) as link:
            link.stopped_speaking(1)
            assert await bench.heard.until("failed") == [(1, "lost", False)]


@pytest.mark.parametrize("role", ["stt", "llm", "tts"])
async def test_garbage_is_counted_and_ends_the_connection(role: Role) -> None:
    async def script(connection: ServiceConnection) -> None:
        await asked(connection)
        garbage = [b"\xff" * 9, frames.encode_json('{"label":"rtvi-ai","type":"mediad-done"}')]
        for _ in range(connections.MAX_BAD_MESSAGES):
            await connection.send(*garbage)

    bench = Bench(timeout_s=3.0)
    async with FakeService(role, script) as bad, FakeService(role) as good:
        async with running(make(bench, role, bad, good)) as link:
            request(link, 1)
            if role == "stt":
                assert await bench.heard.until("failed") == [(1, "garbage", False)]
            else:
                await bench.heard.until("done")
    assert bench.heard.of("service_lost") == ["garbage"]
    count = bench.count("bad_frames_total", role=role)
    assert count == connections.MAX_BAD_MESSAGES + 1


async def test_text_messages_and_unknown_types_are_no_harm() -> None:
    async def script(connection: ServiceConnection) -> None:
        await connection.ws.send("hello")
        await connection.send(frames.encode_json('{"label":"rtvi-ai","type":"bot-ready"}'))
        await connection.send(frames.encode_json("{}"), frames.encode_interruption(9))
        await connection.send(Ready(), silence(0.1), Done(7), Failure(None, "odd", "", False))
        await answer(connection)

    bench = Bench()
    async with FakeService("tts", script) as tts, running(bench.tts(tts)) as link:
        link.speak(1, "Hello.")
        await bench.heard.until("done")
    assert bench.heard.of("audio") == [(1, pcm_of("Hello."))]


async def test_answer_without_end_fails_and_the_service_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tts_module, "MAX_SPEECH_BYTES", 100_000)
    monkeypatch.setattr(llm_module, "MAX_REPLY", 1_000)

    async def script(connection: ServiceConnection) -> None:
        await asked(connection)
        while not connection.asked(Interruption):
            await connection.send(silence(1.0) if role == "tts" else Text(1, "x" * 100))
            await asyncio.sleep(0)
        await answer(connection)

    for role in ("tts", "llm"):
        bench = Bench()
        async with FakeService(role, script) as fake:
            async with running(make(bench, role, fake)) as link:
                request(link, 1)
                assert await bench.heard.until("failed") == [(1, "flood", True)]
                request(link, 2)
                await bench.heard.until("done")
        assert bench.heard.of("done") == [2]
        assert bench.count("requests_total", outcome="flood") == 1
        assert sum(len(pcm) for _, pcm in bench.heard.of("audio")) <= 120_000


async def test_flood_of_what_nobody_asked_for_ends_the_connection() -> None:
    async def script(connection: ServiceConnection) -> None:
        await asyncio.sleep(0.05)
        while True:
            await connection.send(silence(0.02), Interim("a"))

    bench = Bench()
    async with FakeService("tts", script) as bad, FakeService("tts") as good:
        async with running(bench.tts(bad, good)) as link:
            assert await bench.heard.until("service_lost") == ["lost"]
            link.speak(1, "Hello.")
            await bench.heard.until("done")
    assert bench.count("bad_frames_total", reason="flood") == 1


async def test_service_that_does_not_read_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(connection: ServiceConnection) -> None:
        connection.ws.transport.pause_reading()
        await asyncio.sleep(1)

    bench = Bench(timeout_s=0.3)
    async with FakeService("llm", script) as bad, FakeService("llm") as good:
        async with running(bench.llm(bad, good)) as link:
            await bench.heard.until("open")
            await asyncio.sleep(0.05)
            link.generate(1, [{"content": "x " * 200_000}, {"content": "hello"}])
            await bench.heard.until("done")
    assert bench.heard.of("service_lost") == ["timeout"]


async def test_service_that_lets_too_much_wait_is_cut_off() -> None:
    async def script(connection: ServiceConnection) -> None:
        connection.ws.transport.pause_reading()
        await asyncio.sleep(1)

    bench = Bench()
    async with FakeService("llm", script) as llm, running(bench.llm(llm)) as link:
        await bench.heard.until("open")
        await asyncio.sleep(0.05)
        for n in range(1, 3):  # less than 2 MiB
            link.generate(n, [{"content": "x " * 400_000}])
        assert bench.heard.of("service_lost") == []
        for n in range(3, 6):  # more, though the kernel holds some
            link.generate(n, [{"content": "x " * 400_000}])
        assert (await bench.heard.until("service_lost"))[0] == "lost"
    assert bench.count("closes_total", code="1006") >= 1


async def test_error_that_may_pass_is_asked_again_and_one_that_may_not_fails() -> None:
    def failing(retry: bool) -> Callable[[ServiceConnection], Any]:
        async def script(connection: ServiceConnection) -> None:
            await asked(connection)
            n = connection.asked(Generate)[0].n
            await connection.send(Failure(n, "rate_limit", "too fast", retry), Done(n, "error"))

        return script

    bench = Bench()
    scripts = (failing(True), failing(False))
    async with FakeService("llm", answer, scripts=scripts) as llm:
        async with running(bench.llm(llm)) as link:
            link.generate(1, [])
            assert await bench.heard.until("failed") == [(1, "error", False)]
            assert len(llm.connections) == 2
    assert bench.count("requests_total", outcome="error") == 1


# Addresses


async def test_stand_in_takes_over_when_the_first_cannot_be_reached() -> None:
    bench = Bench()
    async with FakeService("tts", refuses=(503, 503)) as down, FakeService("tts") as good:
        async with running(bench.tts(down, good)) as link:
            link.speak(1, "Hello.")
            await bench.heard.until("done")
            assert link.address == good.url
    assert bench.count("connects_total", outcome="503") == 1


async def test_address_is_told_without_what_may_be_a_key() -> None:
    bench = Bench()
    async with FakeService("tts") as tts:
        urls = [f"{tts.url}/x?key=sesame", f"{tts.url}/x?key=other", f"{tts.url}/{{call_id}}"]
        links = [
            TtsLink(bench.service("tts", url), CALL, Voice(), 8000, bench.heard) for url in urls
        ]
        addresses = [link.address for link in links]
        assert "sesame" not in "".join(addresses)
        assert len(set(addresses)) == 3
        async with running(links[2]) as link:
            link.speak(1, "Hello.")
            await bench.heard.until("done")
            request = tts.connections[0].ws.request
            assert request is not None
            assert request.path == f"/{CALL.call_id}"
        assert bench.heard.times[0].address == f"{tts.url}/{{call_id}}"  # of all calls


async def test_new_calls_begin_with_the_address_that_works() -> None:
    bench = Bench()
    async with FakeService("tts", refuses=(503,) * 9) as down, FakeService("tts") as good:
        service = bench.service("tts", down.url, good.url)
        for _ in range(3):
            link = TtsLink(service, CALL, Voice(), RATE_HZ, bench.heard)
            async with running(link):
                link.speak(1, "Hello.")
                await bench.heard.until("done")
            bench.heard.all.clear()
        assert down.handshakes == 1


async def test_service_that_is_not_ready_in_time_is_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "READY_S", 0.2)
    bench = Bench()
    async with FakeService("llm", is_ready=False) as bad, FakeService("llm") as good:
        async with running(bench.llm(bad, good)) as link:
            link.generate(1, [{"content": "hello"}])
            await bench.heard.until("done")
    assert bench.count("connects_total", outcome="not_ready") == 1


async def test_service_that_reports_an_error_is_passed_over_with_its_reason(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """And at once, though it leaves the connection open."""
    error = Failure(None, "bad_key", "the key\nis not known " + "x" * 1000, retry=True)
    bench = Bench()
    async with FakeService("llm", ready=error) as bad, FakeService("llm") as good:
        async with running(bench.llm(bad, good)) as link, asyncio.timeout(connections.READY_S / 2):
            link.generate(1, [{"content": "hello"}])
            await bench.heard.until("done")
    assert bench.count("connects_total", outcome="error") == 1
    (record,) = [record for record in caplog.records if "bad_key" in record.getMessage()]
    # The log counts repeats by this: a text that is never the same must not be in it.
    assert record.msg == "llm service at %s: it reports an error, code %s: %s"
    line = record.getMessage()
    assert r"it reports an error, code 'bad_key': 'the key\nis not known xxx" in line
    assert len(line) < 400


@pytest.mark.parametrize(
    ("ready", "outcome"),
    [
        (Ready(protocol=2), "protocol"),
        (Failure(None, "bad_key", "no such key", retry=False), "error"),
    ],
)
async def test_service_of_another_protocol_or_that_is_of_no_use_is_not_asked_again(
    ready: Ready | Failure, outcome: str
) -> None:
    bench = Bench()
    async with FakeService("llm", ready=ready) as odd:
        link = bench.llm(odd)
        link.generate(1, [])
        with pytest.raises(AgentUnavailable, match="every llm service refused"):
            await link.run()
        assert bench.heard.of("failed") == [(1, "unavailable", False)]
        link.generate(2, [])  # also what is asked when it is over has an end
        await bench.heard.until("failed", 2)
    assert bench.count("connects_total", outcome=outcome) == 1


async def test_no_service_at_all_is_told_after_a_while() -> None:
    bench = Bench()
    bench.patience_s = 0.4
    with pytest.raises(AgentUnavailable, match="no stt service was ready in time"):
        await SttLink(bench.service("stt", "ws://127.0.0.1:1"), CALL, "", bench.heard).run()


async def test_time_with_a_service_is_no_time_without_one() -> None:
    async def script(connection: ServiceConnection) -> None:
        await asyncio.sleep(3.0)
        await connection.cut()

    bench = Bench()
    bench.patience_s = 2.8
    async with FakeService("llm", answer, scripts=(script,)) as llm:
        async with running(bench.llm(llm)) as link:
            await bench.heard.until("service_lost")
            link.generate(1, [{"content": "hello"}])
            await bench.heard.until("done")


async def test_waiting_request_fails_within_its_budget_though_nobody_answers() -> None:
    bench = Bench(budget_s=0.2)
    link = TtsLink(bench.service("tts", "ws://127.0.0.1:1"), CALL, Voice(), RATE_HZ, bench.heard)
    async with running(link):
        link.speak(1, "Hello.")
        assert await bench.heard.until("failed") == [(1, "unavailable", False)]


async def test_service_over_tls_is_trusted_by_the_same_authorities(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    stranger = Authority(tmp_path / "stranger")
    bench = Bench()
    bench.tls = client_tls(config.Ai(ca_file=authority.certificate)).ours
    async with (
        FakeService("llm", tls=stranger.issue().server()) as bad,
        FakeService("llm", tls=authority.issue().server()) as good,
        running(bench.llm(bad, good)) as link,
    ):
        link.generate(1, [{"content": "x" * 200_000}, {"content": "hello"}])
        await bench.heard.until("done")
        assert link.address == good.url
    assert bench.count("connects_total", outcome="tls_unknown_ca") == 1


# Bounds, and the end


async def test_more_than_may_wait_fails() -> None:
    bench = Bench()
    async with FakeService("tts", hang) as tts, running(bench.tts(tts)) as link:
        for n in range(1, MAX_ASKED + 2):
            link.speak(n, "x")
        assert bench.heard.of("failed") == []  # not from within
        await bench.heard.until("failed")
        link.cancel(MAX_ASKED)
        link.speak(MAX_ASKED + 2, "x" * frames.MAX_MESSAGE_SIZE)
        await bench.heard.until("failed", 2)
    ends = [(MAX_ASKED + 1, "too_much", False), (MAX_ASKED + 2, "too_much", False)]
    assert bench.heard.of("failed") == ends


async def test_connection_that_is_let_go_finishes_what_is_spoken_on_it() -> None:
    may_go_on = asyncio.Event()

    async def script(connection: ServiceConnection) -> None:
        await asked(connection, 2)
        await connection.send(silence(0.1))
        await may_go_on.wait()
        await connection.send(silence(0.1), Done(1), silence(0.1), Done(2))

    bench = Bench()
    async with FakeService("tts", answer, scripts=(script,)) as tts:
        async with running(bench.tts(tts)) as link:
            link.speak(1, "One.")
            link.speak(2, "Two.")
            await bench.heard.until("audio")
            link.let_go(1)
            link.cancel(2)
            link.speak(3, "Three.")
            await bench.heard.until("done")
            assert bench.heard.of("done") == [3]
            may_go_on.set()
            await bench.heard.until("done", 2)
            await eventually(lambda: tts.connections[0].is_over)
    assert bench.heard.of("done") == [3, 1]
    assert [n for n, _ in bench.heard.of("audio")] == [1, 3, 1]
    assert bench.heard.of("failed") == []


async def test_end_of_the_call_closes_with_1000_and_leaves_no_task() -> None:
    bench = Bench()
    tasks = len(asyncio.all_tasks())
    async with FakeService("tts") as tts:
        async with running(bench.tts(tts)) as link:
            link.speak(1, "Hello.")
            await bench.heard.until("done")
        assert tts.connections[0].ws.close_code == 1000
    await eventually(lambda: len(asyncio.all_tasks()) <= tasks)
    assert bench.heard.of("service_lost") == []


def moody(random: Random) -> Callable[[ServiceConnection], Any]:
    """Return a script of a service that does anything to each request."""

    async def script(connection: ServiceConnection) -> None:
        at = 0

        def has_more(connection: ServiceConnection) -> bool:
            return len(connection.asked(Text)) > at

        while True:
            await connection.wait(has_more)
            if connection.is_over:
                return
            n = connection.asked(Text)[at].id
            at += 1
            mood = random.choice(("good", "good", "good", "slow", "half", "hang", "cut", "error"))
            connection.cancels = random.random() < 0.8
            if mood == "cut":
                await connection.cut()
            elif mood == "error":
                retry = random.random() < 0.5
                await connection.send(b"\xff", Failure(n, "odd", "", retry), Done(n, "error"))
            elif mood != "hang":
                await connection.send(silence(0.02), Word(n, "x", 0))
                await asyncio.sleep(0.03 if mood == "slow" else 0)
                if mood != "half":
                    await connection.send(silence(0.02), Done(n))

    return script


@pytest.mark.parametrize("seed", range(4))
async def test_every_request_has_one_end_whatever_the_service_does(seed: int) -> None:
    random = Random(seed)
    bench = Bench(timeout_s=0.08, budget_s=0.25)
    cancelled: dict[int, int] = {}
    count = 60
    async with FakeService("tts", moody(random)) as one, FakeService("tts", moody(random)) as two:
        async with running(bench.tts(one, two)) as link:
            for n in range(1, count + 1):
                link.speak(n, "x")
                await asyncio.sleep(random.choice((0, 0, 0.01, 0.1)))
                if random.random() < 0.2:
                    link.cancel(n)
                    new = set(range(1, n + 1)) - set(ends_of(bench.heard)) - cancelled.keys()
                    cancelled |= dict.fromkeys(new, len(bench.heard.all))
            link.speak(count + 1, "x")
            await eventually(lambda: count + 1 in ends_of(bench.heard))
    ends = ends_of(bench.heard)
    assert len(ends) == len(set(ends))
    assert set(ends) | cancelled.keys() == set(range(1, count + 2))
    for n, at in cancelled.items():
        assert all(what[1] != n for what in bench.heard.all[at:] if what[0] in NUMBERED)
    told = [what[1] for what in bench.heard.all if what[0] in NUMBERED]
    assert told == sorted(told)  # in the order in which they were asked


NUMBERED = ("audio", "word", "done", "failed")


def ends_of(heard: Heard) -> list[int]:
    return [what[1] for what in heard.all if what[0] in ("done", "failed")]
