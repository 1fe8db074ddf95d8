"""Speech from the cache, over real WebSockets and with a real Redis on a thread of its own: one
synthesis for all who ask at once, and nobody who waits for the cache.
"""

import asyncio
import contextlib
import gc
import time
from collections.abc import AsyncIterator, Callable, Iterator
from random import Random
from typing import Any
from uuid import uuid4

import pytest
from pydantic import SecretStr

from mediad import config
from mediad.ai import tts_cache
from mediad.ai.connect import CallInfo
from mediad.ai.services.connection import Connection
from mediad.ai.services.counts import Counts, ServiceMetrics
from mediad.ai.services.service import Service
from mediad.ai.services.tts import TtsLink
from mediad.ai.socket import AgentSocket
from mediad.ai.speaker import Speaker
from mediad.ai.tts_cache import Flight, NoStore, SpeechStore, TtsCache
from mediad.cache import open_cache
from mediad.cache import speech as speech_module
from mediad.cache.cache import Cache
from mediad.cache.speech import WAIT_S, SpeechCache
from mediad.errors import AgentUnavailable
from mediad.loop_thread import LoopThread
from mediad.metrics import Metrics
from mediad.wire.frames import AudioFrame, Interruption, Text
from mediad.wire.service import Done, Voice, Word
from tests.fakes.service import RATE_HZ, FakeService, ServiceConnection, answer, pcm_of
from tests.integration.test_service_links import NUMBERED, Heard, ends_of, eventually
from tests.own_stalls import no_longer_than
from tests.redis_server import RedisServer

SLOW_S = 0.25  # more than any answer takes on a machine that is busy with other things


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(params=["memory", "redis"])
def redis_url(request: pytest.FixtureRequest) -> str | None:
    if request.param == "memory":
        return None
    server: RedisServer = request.getfixturevalue("redis")
    return server.url


class Store(SpeechCache):
    """A cache on its thread; `cache` is only to be looked at from there."""

    thread: LoopThread
    cache: Cache


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no answer of the cache be late."""
    monkeypatch.setattr(speech_module, "WAIT_S", 10.0)


@contextlib.asynccontextmanager
async def store(url: str | None, prefix: str, metrics: Metrics) -> AsyncIterator[Store]:
    """Open the cache on a thread of its own, as control does."""
    settings = config.Redis(url=SecretStr(url) if url else None, timeout_s=10)
    speech = Store(metrics)
    speech.thread = thread = LoopThread("control")
    thread.start()

    async def start() -> None:
        cache = config.Cache(prefix=prefix, environment="test")
        speech.cache = open_cache(settings, cache, metrics)
        speech.open(speech.cache)

    async def stop() -> None:
        await speech.close()
        await speech.cache.close()

    await thread.run(start())
    try:
        yield speech
    finally:
        await thread.run(stop())
        await thread.stop()


async def fetch(speech: SpeechCache, digest: str) -> bytes | None:
    """Ask and wait."""
    future: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
    speech.fetch(digest, future.set_result)
    assert not future.done()
    async with asyncio.timeout(10):
        return await future


async def stored(speech: SpeechCache, digest: str) -> bytes:
    """Wait until something is there."""
    async with asyncio.timeout(10):
        while (value := await fetch(speech, digest)) is None:  # noqa: ASYNC110 (it has no event)
            await asyncio.sleep(0.01)
    return value


def given_up(metrics: Metrics, operation: str, reason: str) -> float:
    labels = {"operation": operation, "reason": reason}
    name = "mediad_speech_cache_given_up_total"
    return metrics.registry.get_sample_value(name, labels) or 0


def stored_bytes(metrics: Metrics) -> float:
    return metrics.registry.get_sample_value("mediad_speech_cache_stored_bytes_total") or 0


# The way to the cache


async def test_value_is_made_and_stored_on_another_thread(redis_url: str | None) -> None:
    metrics = Metrics()
    async with store(redis_url, uuid4().hex, metrics) as speech:
        assert await fetch(speech, "a") is None
        speech.keep("a", lambda: b"spoken")
        assert await stored(speech, "a") == b"spoken"
        speech.keep("b", lambda: None)
        speech.keep("c", lambda: 1 / 0)  # type: ignore[arg-type, return-value]
        speech.keep("d", lambda: b"last")
        assert await stored(speech, "d") == b"last"
        assert await fetch(speech, "b") is None
        assert stored_bytes(metrics) == len(b"spoken" + b"last")


async def test_cache_that_is_not_open_has_nothing() -> None:
    speech = SpeechCache(Metrics())
    speech.keep("a", lambda: b"spoken")
    assert await fetch(speech, "a") is None
    async with store(None, "x", Metrics()) as opened:
        pass
    opened.keep("a", lambda: b"spoken")  # its loop has ended
    assert await fetch(opened, "a") is None


async def test_slow_redis_is_a_miss(redis: RedisServer) -> None:
    metrics = Metrics()
    async with store(redis.url, uuid4().hex, metrics) as speech:
        speech.keep("a", lambda: b"spoken")
        await stored(speech, "a")
        with redis.frozen():
            started = time.monotonic()
            async with no_longer_than(SLOW_S):
                assert await fetch(speech, "a") is None
            assert time.monotonic() - started >= WAIT_S * 0.9
        assert given_up(metrics, "read", "late") >= 1
        assert await stored(speech, "a") == b"spoken"


async def test_more_questions_than_may_wait_are_misses(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speech_module, "MAX_QUESTIONS", 3)
    monkeypatch.setattr(speech_module, "MAX_STORING", 2)
    metrics = Metrics()
    async with store(redis.url, uuid4().hex, metrics) as speech:
        answers = await asyncio.gather(*(fetch(speech, "a") for _ in range(5)))
        assert answers == [None] * 5
        assert given_up(metrics, "read", "busy") == 2
        for digest in "abc":
            speech.keep(digest, lambda: b"spoken")
        assert given_up(metrics, "write", "busy") == 1
        await stored(speech, "a")


# Calls that speak


class Caller:
    """A call, its voice, and what it hears."""

    def __init__(self, bench: "Bench", number: int) -> None:
        self.heard = Heard()
        self.has_left = False
        call = CallInfo(f"11111111-2222-3333-4444-{number:012}")
        voice = Voice("anna", "en-US", 1.0)
        self.speaker = Speaker(bench.cache, bench.service, call, voice, RATE_HZ, self.heard)
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        with contextlib.suppress(AgentUnavailable):
            await self.speaker.run()

    @property
    def pcm(self) -> bytes:
        return b"".join(pcm for _, pcm in self.heard.of("audio"))

    async def hears_ends(self, wanted: set[int]) -> None:
        """Wait until these texts are over."""
        await eventually(lambda: wanted <= set(ends_of(self.heard)))

    async def leave(self) -> None:
        """Hang up, if not yet."""
        if self.has_left:
            return
        self.has_left = True
        self.speaker.close()
        self.task.cancel()
        await asyncio.wait([self.task])
        await self.speaker.closed()
        del self.task, self.speaker


class Bench:
    """One process: what its calls share."""

    def __init__(self, tts: FakeService, store: SpeechStore, metrics: Metrics) -> None:
        self.metrics = metrics
        counts = Counts(ServiceMetrics(metrics.registry), "tts")
        settings = config.Tts(url=(tts.url,), timeout_s=10, budget_s=20)
        self.service = Service("tts", settings, counts, None)
        self.cache = TtsCache(store, metrics)
        self._callers: list[Caller] = []

    async def callers(self, count: int) -> list[Caller]:
        """Return calls whose service is ready."""
        callers = [Caller(self, number) for number in range(count)]
        self._callers += callers
        for caller in callers:
            await caller.heard.until("open")
        return callers

    async def end(self) -> None:
        """Let all calls hang up."""
        callers, self._callers = self._callers, []
        await asyncio.gather(*(caller.leave() for caller in callers))


@contextlib.asynccontextmanager
async def process(
    tts: FakeService, store: SpeechStore | None = None, metrics: Metrics | None = None
) -> AsyncIterator[Bench]:
    bench = Bench(tts, store or NoStore(), metrics or Metrics())
    try:
        yield bench
    finally:
        await bench.end()


def open_connections(tts: FakeService) -> int:
    return sum(not connection.is_over for connection in tts.connections)


async def slowly(connection: ServiceConnection) -> None:
    """Speak in parts, of which the last comes later."""
    at = 0

    def has_more(connection: ServiceConnection) -> bool:
        return len(connection.asked(Text)) > at

    while not connection.is_over:
        await connection.wait(has_more)
        for text in connection.asked(Text)[at:]:
            at += 1
            for letter in text.text:
                if not connection.is_cancelled(text.id):
                    await connection.send(AudioFrame(pcm_of(letter), RATE_HZ, 1))
                    await asyncio.sleep(0.01)
            if not connection.is_cancelled(text.id):
                await connection.send(Word(text.id, text.text, 0), Done(text.id))


async def test_two_hundred_calls_make_one_synthesis_and_redis_may_die(redis: RedisServer) -> None:
    prefix = uuid4().hex
    async with FakeService("tts", slowly) as tts:
        metrics = Metrics()
        async with store(redis.url, prefix, metrics) as speech:
            async with process(tts, speech, metrics) as bench:
                callers = await bench.callers(200)
                for caller in callers:
                    caller.speaker.speak(1, "Welcome to all of you.")
                await asyncio.gather(*(caller.heard.until("done") for caller in callers))
                assert len(tts.asked(Text)) == 1
                pcm = pcm_of("Welcome to all of you.")
                assert all(caller.pcm == pcm for caller in callers)
                assert all(caller.heard.of("word")[0][0] == 1 for caller in callers)

                # Redis dies while the next text is being spoken, and another is asked for after it.
                for caller in callers[:100]:
                    caller.speaker.speak(2, "Please wait.")
                await callers[0].heard.until("audio", len("Welcome to all of you.") + 2)
                await asyncio.to_thread(redis.kill)
                for caller in callers[100:]:
                    caller.speaker.speak(2, "Please wait.")
                await asyncio.gather(*(caller.heard.until("done", 2) for caller in callers))
                assert len(tts.asked(Text)) == 2
                for caller in callers:
                    caller.speaker.speak(3, "Good bye.")
                await asyncio.gather(*(caller.heard.until("done", 3) for caller in callers))
                assert len(tts.asked(Text)) == 3
                # One question a text, which waits WAIT_S at the most; the others wait for that.
                assert given_up(metrics, "read", "late") <= 3
            await asyncio.to_thread(redis.start)


async def test_two_hundred_calls_some_ms_apart_make_one_synthesis_a_sentence() -> None:
    sentences = ["Welcome to all of you.", "How can I help?"]
    async with FakeService("tts", slowly) as tts, process(tts) as bench:
        callers = await bench.callers(200)
        for caller in callers:
            for n, sentence in enumerate(sentences, start=1):
                caller.speaker.speak(n, sentence)
            await asyncio.sleep(0.001)
        await asyncio.gather(*(caller.heard.until("done", 2) for caller in callers))
        assert [text.text for text in tts.asked(Text)] == sentences
        assert all(caller.pcm == pcm_of("".join(sentences)) for caller in callers)


@pytest.mark.usefixtures("patient")
async def test_each_process_makes_its_own_when_redis_is_dead(redis: RedisServer) -> None:
    prefix = uuid4().hex
    all_of_both = "Welcome to all of you."
    async with FakeService("tts", slowly) as tts, contextlib.AsyncExitStack() as stack:
        metrics = [Metrics(), Metrics()]
        stores = [
            await stack.enter_async_context(store(redis.url, prefix, counts)) for counts in metrics
        ]
        benches = [
            await stack.enter_async_context(process(tts, speech, counts))
            for speech, counts in zip(stores, metrics, strict=True)
        ]
        first, second = [await bench.callers(100) for bench in benches]
        for caller in first:
            caller.speaker.speak(1, all_of_both)
        await asyncio.gather(*(caller.heard.until("done") for caller in first))
        await eventually(lambda: stored_bytes(metrics[0]) > 0)
        for caller in second:  # another process has made it
            caller.speaker.speak(1, all_of_both)
        await asyncio.gather(*(caller.heard.until("done") for caller in second))
        assert len(tts.asked(Text)) == 1

        await asyncio.to_thread(redis.kill)
        for caller in (*first, *second):
            caller.speaker.speak(2, "Please wait.")
        await asyncio.gather(*(caller.heard.until("done", 2) for caller in (*first, *second)))
        assert len(tts.asked(Text)) == 1 + 2  # one a process
        assert all(caller.pcm == pcm_of(all_of_both + "Please wait.") for caller in first)
        assert all(caller.pcm == pcm_of(all_of_both + "Please wait.") for caller in second)
        await asyncio.to_thread(redis.start)


@pytest.mark.usefixtures("patient")
async def test_calls_that_end_do_not_push_prompts_out_of_a_process_without_redis(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tts_cache, "LINGER_S", 0.05)
    metrics = Metrics()
    async with FakeService("tts") as tts, store(None, "x", metrics) as speech:

        async def end_calls() -> None:
            for number in range(3000):
                await speech.cache.set(speech.cache.keys.call_summary(f"{number}"), bytes(1000))

        async with process(tts, speech, metrics) as bench:
            first, second = await bench.callers(2)
            first.speaker.speak(1, "Welcome to all of you.")
            await first.heard.until("done")
            await eventually(lambda: stored_bytes(metrics) > 0)
            await speech.thread.run(end_calls())
            await asyncio.sleep(0.1)  # what lingers is forgotten
            second.speaker.speak(1, "Welcome to all of you.")
            await second.heard.until("done")
            assert second.pcm == pcm_of("Welcome to all of you.")
            assert len(tts.asked(Text)) == 1
            hits = {"outcome": "hit"}
            assert metrics.registry.get_sample_value("mediad_tts_cache_reads_total", hits) == 1
            evicted = metrics.registry.get_sample_value("mediad_cache_evicted_total")
            assert evicted is not None
            assert evicted > 1000


@pytest.mark.usefixtures("patient")
async def test_other_process_has_it_from_redis(redis: RedisServer) -> None:
    prefix = uuid4().hex

    async def speak(tts: FakeService) -> int:
        """Speak in a process of its own; return the services asked."""
        metrics = Metrics()
        async with (
            store(redis.url, prefix, metrics) as speech,
            process(tts, speech, metrics) as bench,
        ):
            (caller,) = await bench.callers(1)
            caller.speaker.speak(1, "Hello   there.")
            await caller.heard.until("done")
            assert caller.pcm == pcm_of("Hello there.")
            assert caller.heard.of("word") == [(1, "Hello there.", 0)]
            (times,) = caller.heard.times
            await eventually(lambda: not times.tries or stored_bytes(metrics) > 0)
            return times.tries

    async with FakeService("tts") as tts:
        assert [await speak(tts), await speak(tts)] == [1, 0]
        assert len(tts.asked(Text)) == 1


@pytest.mark.usefixtures("patient")
async def test_texts_are_heard_in_their_order_though_some_are_kept(redis: RedisServer) -> None:
    metrics = Metrics()
    async with FakeService("tts", slowly) as tts, store(None, "x", metrics) as speech:
        async with process(tts, speech, metrics) as bench:
            (caller,) = await bench.callers(1)
            caller.speaker.speak(1, "Two.")
            await caller.heard.until("done")
            for n, text in enumerate(("One.", "Two.", "Three.", "Two."), start=2):
                caller.speaker.speak(n, text)
            await caller.heard.until("done", 5)
            assert caller.heard.of("done") == [1, 2, 3, 4, 5]
            assert caller.pcm == pcm_of("Two.One.Two.Three.Two.")
            assert [text.text for text in tts.asked(Text)] == ["Two.", "One.", "Three."]


async def test_cancelled_by_its_first_caller_it_goes_on_for_the_others() -> None:
    async with FakeService("tts", slowly) as tts, process(tts) as bench:
        first, second = await bench.callers(2)
        text = "This text is rather long."
        first.speaker.speak(1, text)
        second.speaker.speak(1, text)
        await first.heard.until("audio", 3)
        first.speaker.cancel(1)
        first.speaker.speak(2, "Oh.")
        heard = len(first.heard.of("audio"))
        await first.heard.until("done")  # while the other is still being spoken
        assert second.heard.of("done") == []
        await second.heard.until("done")
        assert second.pcm == pcm_of(text)
        assert [n for n, _ in first.heard.of("audio")] == [1] * heard + [2] * 3
        assert first.heard.of("failed") == second.heard.of("failed") == []
        assert [text.text for text in tts.asked(Text)] == [text, "Oh."]
        assert tts.asked(Interruption) == []


async def test_hung_up_by_its_first_caller_it_goes_on_for_the_others() -> None:
    async with FakeService("tts", slowly) as tts, process(tts) as bench:
        first, second = await bench.callers(2)
        first.speaker.speak(1, "This text is rather long.")
        second.speaker.speak(1, "This text is rather long.")
        await second.heard.until("audio", 2)
        await first.leave()
        await second.heard.until("done")
        assert second.pcm == pcm_of("This text is rather long.")
        assert len(tts.asked(Text)) == 1
        await eventually(lambda: open_connections(tts) == 1)


async def test_cancelled_by_all_it_is_stopped() -> None:
    async with FakeService("tts", slowly) as tts, process(tts) as bench:
        first, second = await bench.callers(2)
        for caller in (first, second):
            caller.speaker.speak(1, "This text is rather long.")
            caller.speaker.speak(2, "This one is rather long, too.")
        await second.heard.until("audio", 2)
        spoken = [connection.asked(Text) for connection in tts.connections]
        assert [len(texts) for texts in spoken] == [1, 1]  # each call's service does its part
        second.speaker.cancel(2)
        first.speaker.cancel(2)
        first.speaker.speak(3, "Oh.")
        await first.heard.until("done")
        assert tts.asked(Interruption) == [Interruption(1)]
        await eventually(lambda: open_connections(tts) == 2)  # one has taken a new one
        assert len(tts.connections) == 3
    assert second.heard.of("done") == []


async def test_what_ends_with_its_first_caller_s_service_is_spoken_by_another() -> None:
    async def dying(connection: ServiceConnection) -> None:
        await connection.until(lambda connection: connection.got != [])
        await may_die.wait()
        await connection.cut()

    may_die = asyncio.Event()
    async with FakeService("tts", answer, scripts=(dying,)) as tts, process(tts) as bench:
        (first,), (second,) = await bench.callers(1), await bench.callers(1)
        first.speaker.speak(1, "Hello.")
        second.speaker.speak(1, "Hello.")
        await tts.connections[0].until(lambda connection: connection.got != [])
        await first.leave()
        may_die.set()
        await second.heard.until("done")
        assert second.pcm == pcm_of("Hello.")


async def test_text_whose_first_caller_hangs_up_without_a_service_is_not_lost() -> None:
    async with FakeService("tts") as tts, process(tts) as bench:
        (second,) = await bench.callers(1)
        first = Caller(bench, 7)
        first.task.cancel()
        first.speaker.speak(1, "Hello.")
        await asyncio.sleep(0.05)  # it is asked of a service that never comes
        second.speaker.speak(1, "Hello.")
        await first.leave()
        await second.heard.until("done")
        assert second.pcm == pcm_of("Hello.")


async def test_more_texts_than_may_wait_fail() -> None:
    async def hang(connection: ServiceConnection) -> None:
        """Say nothing."""

    async with FakeService("tts", hang) as tts, process(tts) as bench:
        (caller,) = await bench.callers(1)
        for n in range(1, 66):
            caller.speaker.speak(n, f"{n}")
        assert await caller.heard.until("failed") == [(65, "too_much", False)]


@pytest.mark.parametrize("is_shared", [False, True])
async def test_call_leaves_no_garbage(is_shared: bool) -> None:
    kinds = (Speaker, TtsLink, Connection, Flight, AgentSocket)

    def leftovers() -> int:
        return sum(type(thing) in kinds for thing in gc.get_objects())

    async with FakeService("tts", slowly) as tts, process(tts) as bench:
        gc.collect()
        before = leftovers()  # of a process that another test has ended
        gc.disable()  # so that what only the collector would free is found
        try:
            for caller in await bench.callers(1 + is_shared):
                caller.speaker.speak(1, "Hello.")
                caller.speaker.speak(2, "How are you?")
            await caller.heard.until("done")
            await bench.end()
            del caller
            await eventually(lambda: leftovers() <= before)
        finally:
            gc.enable()


def moody(random: Random) -> Callable[[ServiceConnection], Any]:
    """Return a script of a service that mostly speaks, letter by letter, and sometimes dies."""

    async def script(connection: ServiceConnection) -> None:
        at = 0

        def has_more(connection: ServiceConnection) -> bool:
            return len(connection.asked(Text)) > at

        while True:
            await connection.wait(has_more)
            if connection.is_over:
                return
            text = connection.asked(Text)[at]
            at += 1
            dies_at = random.randrange(8) if random.random() < 0.1 else -1
            for place, letter in enumerate(text.text):
                if connection.is_cancelled(text.id):
                    break
                if place == dies_at:
                    await connection.cut()
                await connection.send(AudioFrame(pcm_of(letter), RATE_HZ, 1))
                await asyncio.sleep(random.choice((0, 0, 0.005)))
            else:
                await connection.send(Done(text.id))

    return script


@pytest.mark.parametrize("seed", range(4))
async def test_calls_that_share_texts_hear_each_whole_or_that_it_failed(seed: int) -> None:
    random = Random(seed)
    texts = ("Hello there.", "How are you?", "Please wait.", "Good bye.")
    async with FakeService("tts", moody(random)) as tts, process(tts) as bench:
        callers = await bench.callers(6)
        asked: dict[Caller, dict[int, str]] = {caller: {} for caller in callers}
        cancelled: dict[Caller, int] = dict.fromkeys(callers, 0)
        for _ in range(120):
            caller = random.choice(callers)
            if random.random() < 0.02 and len(callers) > 3:
                await caller.leave()
                callers.remove(caller)
                continue
            n = len(asked[caller]) + 1
            asked[caller][n] = random.choice(texts)
            caller.speaker.speak(n, asked[caller][n])
            if random.random() < 0.15:
                caller.speaker.cancel(n)
                cancelled[caller] = n
            await asyncio.sleep(random.choice((0, 0.005, 0.02)))
        for caller in callers:
            wanted = set(asked[caller]) - set(range(1, cancelled[caller] + 1))
            await caller.hears_ends(wanted)
        for caller, spoken in asked.items():
            ends = ends_of(caller.heard)
            assert ends == sorted(set(ends))
            for n in caller.heard.of("done"):
                pcm = b"".join(pcm for number, pcm in caller.heard.of("audio") if number == n)
                assert pcm == pcm_of(spoken[n])
            numbers = [what[1] for what in caller.heard.all if what[0] in NUMBERED]
            assert numbers == sorted(numbers)
        assert len(tts.asked(Text)) < sum(map(len, asked.values()))
