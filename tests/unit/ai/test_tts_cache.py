"""Texts that several calls ask for at once: spoken once, heard by all, kept when it went well."""

import asyncio
import functools
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any

import pytest

from mediad.ai import tts_cache
from mediad.ai.spoken import Item, Said, SpeechKey, unpack
from mediad.ai.tts_cache import LINGER_S, Flight, NoStore, TtsCache
from mediad.cache.cache import Cache
from mediad.cache.keys import Key, Keys
from mediad.cache.speech import WAIT_S, SpeechCache
from mediad.metrics import Metrics
from mediad.wire import frames
from tests import virtual_time

KEY = SpeechKey("ws://tts", "anna", "en-US", 1.0, 8000, "Hello.")
PARTS: list[Item] = [frames.encode_audio(bytes([n]) * 320, 8000) for n in range(5)]


class FakeStore:
    """Answers when its time has come."""

    def __init__(self, delay_s: float = 0.001) -> None:
        self.values: dict[str, bytes] = {}
        self.questions = 0
        self.delay_s = delay_s

    def fetch(self, digest: str, on_value: Callable[[bytes | None], None]) -> None:
        self.questions += 1
        loop = asyncio.get_running_loop()
        loop.call_later(self.delay_s, lambda: on_value(self.values.get(digest)))

    def keep(self, digest: str, make: Callable[[], bytes | None]) -> None:
        value = make()
        if value is not None:
            self.values[digest] = value


class Caller:
    """One text of one call, that plays at once what there is."""

    def __init__(self, cache: TtsCache, key: SpeechKey = KEY, backlog: int = 0) -> None:
        self.heard: list[Item] = []
        self.must_speak = 0
        self.is_over = self.may_stop = False
        self.backlog = backlog
        self.ahead: Flight | None = None
        self._is_joining = True
        self.flight: Flight = cache.join(key, self)
        self._is_joining = False

    def on_progress(self) -> None:
        assert not self._is_joining
        self.heard += self.flight.items[len(self.heard) :]
        self.is_over = self.flight.is_over

    def on_missing(self) -> None:
        assert not self._is_joining
        self.must_speak += 1

    def on_unwanted(self) -> None:
        self.may_stop = True

    def leave(self) -> None:
        self.flight.leave(self)


class Bench:
    def __init__(self, store: FakeStore | NoStore | None = None) -> None:
        self.store = store or FakeStore()
        self.metrics = Metrics()
        self.cache = TtsCache(self.store, self.metrics)

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"mediad_tts_cache_{name}", labels) or 0

    def reads(self) -> dict[str, int]:
        outcomes = ("hit", "miss", "joined", "alone")
        return {name: int(self.count("reads_total", outcome=name)) for name in outcomes}

    def caller(self, key: SpeechKey = KEY, backlog: int = 0) -> Caller:
        return Caller(self.cache, key, backlog)


def in_virtual_time(
    test: Callable[..., Coroutine[Any, Any, None]],
) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        virtual_time.run(test(*args, **kwargs))

    return run


async def spoken(bench: Bench) -> Caller:
    """Have the text spoken and kept, and forgotten by the process."""
    caller = bench.caller()
    await asyncio.sleep(0.01)
    for part in PARTS:
        caller.flight.add(part)
    caller.flight.finish(KEY.provider)
    await asyncio.sleep(2 * LINGER_S)
    return caller


@in_virtual_time
async def test_what_nobody_has_is_spoken_streamed_and_kept() -> None:
    bench = Bench()
    caller = bench.caller()
    assert caller.must_speak == 0
    await asyncio.sleep(0.01)
    assert caller.must_speak == 1
    caller.flight.add(PARTS[0])
    assert caller.heard == PARTS[:1]  # at once
    caller.flight.add(Said("Hello.", 0))
    caller.flight.finish(KEY.provider)
    assert caller.is_over
    assert isinstance(bench.store, FakeStore)
    assert unpack(bench.store.values[KEY.digest()]) == [Said("Hello.", 0), PARTS[0]]
    assert bench.reads() == {"hit": 0, "miss": 1, "joined": 0, "alone": 0}


@in_virtual_time
async def test_what_is_kept_is_not_spoken_again() -> None:
    bench = Bench()
    await spoken(bench)
    later = bench.caller()
    await asyncio.sleep(0.01)
    assert later.is_over
    assert later.must_speak == 0
    pcm = b"".join(bytes([n]) * 320 for n in range(5))
    assert later.heard == [frames.encode_audio(pcm, 8000)]
    assert bench.reads() == {"hit": 1, "miss": 1, "joined": 0, "alone": 0}


@in_virtual_time
async def test_two_hundred_at_once_are_one() -> None:
    bench = Bench()
    callers = [bench.caller() for _ in range(200)]
    await asyncio.sleep(0.01)
    assert sum(caller.must_speak for caller in callers) == 1
    for part in PARTS:
        callers[0].flight.add(part)
    await asyncio.sleep(0)
    callers[0].flight.finish(KEY.provider)
    await asyncio.sleep(0.001)
    assert all(caller.heard == PARTS and caller.is_over for caller in callers)
    assert isinstance(bench.store, FakeStore)
    assert bench.store.questions == 1
    assert bench.reads() == {"hit": 0, "miss": 1, "joined": 199, "alone": 0}


class NeverAnswers(Cache):
    """A cache that hangs."""

    async def _read(self, keys: Sequence[Key]) -> list[bytes | None]:
        await asyncio.sleep(3600)
        raise AssertionError

    async def _write(
        self, values: Mapping[Key, bytes], gone: Collection[Key], *, are_copies: bool
    ) -> bool:
        await asyncio.sleep(3600)
        raise AssertionError


@in_virtual_time
async def test_two_hundred_wait_for_a_cache_that_hangs_as_long_as_one() -> None:
    metrics = Metrics()
    speech = SpeechCache(metrics)
    speech.open(NeverAnswers(Keys("mediad", "test"), metrics))
    cache = TtsCache(speech, metrics)
    callers = [Caller(cache) for _ in range(200)]
    await asyncio.sleep(WAIT_S * 0.99)
    assert sum(caller.must_speak for caller in callers) == 0
    await asyncio.sleep(WAIT_S * 0.02)
    assert sum(caller.must_speak for caller in callers) == 1
    callers[0].flight.add(PARTS[0])
    await asyncio.sleep(0.001)
    assert all(caller.heard == PARTS[:1] for caller in callers)
    await speech.close()


@in_virtual_time
async def test_many_are_told_a_few_in_each_turn_of_the_loop() -> None:
    bench = Bench()
    callers = [bench.caller() for _ in range(100)]
    await asyncio.sleep(0.01)
    callers[0].flight.add(PARTS[0])
    told = [sum(bool(caller.heard) for caller in callers)]
    while told[-1] < 100:
        await asyncio.sleep(0)
        told.append(sum(bool(caller.heard) for caller in callers))
    assert max(after - before for before, after in zip(told, told[1:], strict=False)) <= 16
    assert callers[0].heard  # who had it spoken is among the first


@in_virtual_time
async def test_who_comes_later_hears_it_from_the_start() -> None:
    bench = Bench()
    first = bench.caller()
    await asyncio.sleep(0.01)
    first.flight.add(PARTS[0])
    second = bench.caller()
    assert second.heard == []  # not from within
    await asyncio.sleep(0)
    assert second.heard == PARTS[:1]
    first.flight.add(PARTS[1])
    assert second.heard == PARTS[:2]
    first.flight.finish(KEY.provider)
    third = bench.caller()
    await asyncio.sleep(0)
    assert third.heard == PARTS[:2]
    assert third.is_over


@in_virtual_time
async def test_text_lingers_until_the_store_has_it_and_no_longer() -> None:
    bench = Bench(NoStore())
    await spoken(bench)
    assert bench.count("flights") == 0
    again = bench.caller()
    await asyncio.sleep(0.01)
    assert again.must_speak == 1


@in_virtual_time
async def test_what_lingers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tts_cache, "MAX_LINGERING_BYTES", 700)
    bench = Bench(NoStore())
    for number in range(3):
        caller = bench.caller(KEY._replace(text=str(number)))
        await asyncio.sleep(0)
        caller.flight.add(PARTS[0])
        caller.flight.finish(KEY.provider)
    assert bench.count("flights") == 2
    await asyncio.sleep(2 * LINGER_S)
    assert bench.count("flights") == 0


@in_virtual_time
async def test_cancelled_text_is_forgotten_and_not_kept() -> None:
    bench = Bench()
    caller = bench.caller()
    await asyncio.sleep(0.01)
    caller.flight.add(PARTS[0])
    caller.leave()
    assert bench.count("flights") == 0
    assert bench.count("unfinished_total", reason="cancelled") == 1
    assert isinstance(bench.store, FakeStore)
    assert bench.store.values == {}


@in_virtual_time
async def test_text_goes_on_without_its_first_caller() -> None:
    bench = Bench()
    first, second = bench.caller(), bench.caller()
    await asyncio.sleep(0.01)
    first.flight.add(PARTS[0])
    first.leave()
    second.flight.add(PARTS[1])
    second.flight.finish(KEY.provider)
    assert (first.heard, second.heard) == (PARTS[:1], PARTS[:2])
    assert isinstance(bench.store, FakeStore)
    assert len(bench.store.values) == 1


@in_virtual_time
async def test_first_caller_s_service_may_stop_when_the_last_listener_has_left() -> None:
    bench = Bench()
    first, second = bench.caller(), bench.caller()
    await asyncio.sleep(0.01)
    first.leave()
    assert not first.may_stop
    second.leave()
    assert first.may_stop
    assert bench.count("unfinished_total", reason="cancelled") == 1


@in_virtual_time
async def test_text_that_was_not_begun_falls_to_the_next_caller() -> None:
    bench = Bench()
    first, second = bench.caller(), bench.caller()
    await asyncio.sleep(0.01)
    first.leave()
    second.flight.pass_on()
    assert (first.must_speak, second.must_speak) == (1, 1)


@in_virtual_time
async def test_nobody_speaks_what_everybody_has_left_meanwhile() -> None:
    bench = Bench()
    caller = bench.caller()
    caller.leave()
    await asyncio.sleep(0.01)
    assert caller.must_speak == 0
    assert bench.count("flights") == 0
    assert bench.count("unfinished_total", reason="cancelled") == 0  # nothing was begun


@in_virtual_time
async def test_failed_text_is_told_to_all_and_not_kept() -> None:
    bench = Bench()
    first, second = bench.caller(), bench.caller()
    await asyncio.sleep(0.01)
    first.flight.add(PARTS[0])
    first.flight.fail("lost", "")
    assert (first.is_over, second.is_over) == (True, True)
    assert second.flight.failure == ("lost", "")
    again = bench.caller()
    assert again.flight is not first.flight
    await asyncio.sleep(0.01)
    assert again.must_speak == 1
    assert isinstance(bench.store, FakeStore)
    assert bench.store.values == {}


@in_virtual_time
async def test_voice_of_a_stand_in_is_not_kept() -> None:
    bench = Bench()
    caller = bench.caller()
    await asyncio.sleep(0.01)
    caller.flight.add(PARTS[0])
    caller.flight.finish("ws://stand-in")
    assert caller.is_over
    assert isinstance(bench.store, FakeStore)
    assert bench.store.values == {}


@in_virtual_time
async def test_caller_whose_service_is_free_speaks_for_the_others() -> None:
    bench = Bench()
    busy, free = bench.caller(backlog=3), bench.caller()
    await asyncio.sleep(0.01)
    assert (busy.must_speak, free.must_speak) == (0, 1)


@in_virtual_time
async def test_nobody_waits_for_a_text_behind_others() -> None:
    bench = Bench()
    busy = bench.caller(backlog=3)
    await asyncio.sleep(0.01)
    free = bench.caller()
    await asyncio.sleep(0.01)
    assert (busy.must_speak, free.must_speak) == (1, 1)
    later = bench.caller()
    assert later.flight is free.flight
    assert bench.reads() == {"hit": 0, "miss": 1, "joined": 1, "alone": 1}


@in_virtual_time
async def test_text_behind_others_is_joined_when_its_turn_comes_though_others_wait_as_well() -> (
    None
):
    bench = Bench()
    first = bench.caller(backlog=3)
    await asyncio.sleep(0.01)
    second = bench.caller(backlog=3)
    await asyncio.sleep(0.01)
    assert (first.must_speak, second.must_speak) == (1, 1)
    first.flight.add(PARTS[0])
    assert bench.caller().flight is first.flight


@in_virtual_time
async def test_what_the_store_has_spoiled_is_a_miss() -> None:
    bench = Bench()
    assert isinstance(bench.store, FakeStore)
    bench.store.values[KEY.digest()] = b"\0\0\0\x09rubbish"
    caller = bench.caller()
    await asyncio.sleep(0.01)
    assert caller.must_speak == 1


class Refuser(Caller):
    """A text whose call has no service that may be asked."""

    def on_missing(self) -> None:
        self.flight = self.flight.refuse(self)


@in_virtual_time
async def test_who_has_no_service_to_ask_leaves_it_to_the_others() -> None:
    bench = Bench()
    refuser = Refuser(bench.cache)
    other = bench.caller(backlog=1)
    await asyncio.sleep(0.01)
    assert other.must_speak == 1
    assert refuser.flight.is_over
    assert refuser.flight.failure is not None
    other.flight.add(PARTS[0])
    other.flight.finish(KEY.provider)
    assert other.is_over
    assert other.flight.failure is None
    refuser.leave()
    assert bench.count("unfinished_total", reason="cancelled") == 0


@in_virtual_time
async def test_what_nobody_may_ask_for_is_forgotten() -> None:
    bench = Bench()
    refusers = [Refuser(bench.cache) for _ in range(3)]
    await asyncio.sleep(0.01)
    assert all(refuser.flight.failure is not None for refuser in refusers)
    later = bench.caller()
    await asyncio.sleep(0.01)
    assert later.must_speak == 1
