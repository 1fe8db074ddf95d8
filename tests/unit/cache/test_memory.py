"""The cache in the process: its bound in bytes, and what it gives up first."""

import asyncio
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mediad.cache.cache import MAX_VALUE_BYTES
from mediad.cache.keys import Key, Keys
from mediad.cache.memory import ENTRY_BYTES, MemoryCache
from mediad.metrics import Metrics

KEYS = Keys("mediad", "test")


class Clock:
    """A clock that stands still until it is told otherwise."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def size_of(key: Key, value: bytes) -> int:
    return len(key.text) + len(value) + ENTRY_BYTES


def sample(metrics: Metrics, name: str) -> float | None:
    return metrics.registry.get_sample_value(f"mediad_cache_{name}")


async def test_value_ends_when_its_key_says(metrics: Metrics, clock: Clock) -> None:
    cache = MemoryCache(KEYS, metrics, 10_000, 10_000, clock)
    await cache.set(KEYS.call("c1"), b"row")
    clock.now += 59.9
    assert await cache.get(KEYS.call("c1")) == b"row"
    clock.now += 0.1
    assert await cache.get(KEYS.call("c1")) is None
    assert cache.size_bytes == 0


async def test_setting_a_value_again_begins_its_time_anew(metrics: Metrics, clock: Clock) -> None:
    cache = MemoryCache(KEYS, metrics, 10_000, 10_000, clock)
    await cache.set(KEYS.call("c1"), b"old")
    clock.now += 50
    await cache.set(KEYS.call("c1"), b"new")
    clock.now += 50
    assert await cache.get(KEYS.call("c1")) == b"new"


async def test_least_recently_used_goes_first(metrics: Metrics, clock: Clock) -> None:
    first, second, third = (KEYS.call(f"c{number}") for number in range(3))
    cache = MemoryCache(KEYS, metrics, 2 * size_of(first, b"row"), 0, clock)
    await cache.set(first, b"row")
    await cache.set(second, b"row")
    await cache.get(first)
    await cache.set(third, b"row")
    assert await cache.get_many([first, second, third]) == [b"row", None, b"row"]
    assert sample(metrics, "evicted_total") == 1
    assert sample(metrics, "size_bytes") == 2 * size_of(first, b"row")


async def test_value_that_alone_is_over_the_bound_is_not_kept(metrics: Metrics) -> None:
    cache = MemoryCache(KEYS, metrics, 1_000, 0)
    await cache.set(KEYS.call("c1"), bytes(1_001))
    assert await cache.get(KEYS.call("c1")) is None
    assert cache.size_bytes == 0


async def test_speech_and_all_else_do_not_take_each_other_s_room(metrics: Metrics) -> None:
    prompts = [KEYS.speech(f"{number}") for number in range(3)]
    room = 2 * size_of(prompts[0], bytes(1_000))
    cache = MemoryCache(KEYS, metrics, 10_000, room)
    for prompt in prompts[:2]:
        await cache.set(prompt, bytes(1_000))
    for number in range(1_000):  # calls that end
        await cache.set(KEYS.call_summary(f"c{number}"), bytes(500))
    assert await cache.get_many(prompts[:2]) == [bytes(1_000)] * 2
    await cache.set(prompts[2], bytes(1_000))
    assert await cache.get_many(prompts) == [None, bytes(1_000), bytes(1_000)]
    assert await cache.get(KEYS.call_summary("c999")) == bytes(500)
    assert room < cache.size_bytes <= room + 10_000


@dataclass
class Model:
    """The same, in lists and without a thought for speed."""

    max_bytes: int
    entries: list[tuple[Key, bytes, float]]  # least recently used first

    def get(self, key: Key, now: float) -> bytes | None:
        for entry in self.entries:
            if entry[0] == key:
                self.entries.remove(entry)
                if entry[2] <= now:
                    return None
                self.entries.append(entry)
                return entry[1]
        return None

    def set(self, key: Key, value: bytes, now: float) -> None:
        self.delete(key)
        self.entries.append((key, value, now + key.ttl_s))
        while self.size > self.max_bytes:
            self.entries.pop(0)

    def delete(self, key: Key) -> None:
        self.entries = [entry for entry in self.entries if entry[0] != key]

    @property
    def size(self) -> int:
        return sum(size_of(key, value) for key, value, _ in self.entries)


_keys = st.builds(
    lambda make, number: make(f"c{number}"),
    st.sampled_from([KEYS.call, KEYS.agent, KEYS.conversation_context]),
    st.integers(0, 3),
)
_steps = st.one_of(
    st.tuples(st.just("get"), _keys),
    st.tuples(st.just("set"), _keys, st.integers(0, 2_000)),
    st.tuples(st.just("delete"), _keys),
    st.tuples(st.just("wait"), st.sampled_from([1.0, 59.0, 60.0, 1_800.0, 4_000.0])),
)


@settings(deadline=None)
@given(st.lists(_steps, max_size=60))
def test_it_does_what_a_simple_model_does(steps: list[tuple[object, ...]]) -> None:
    clock = Clock()
    cache = MemoryCache(KEYS, Metrics(), 4_000, 0, clock)
    model = Model(4_000, [])

    async def run() -> None:
        for step in steps:
            match step:
                case ("get", Key() as key):
                    assert await cache.get(key) == model.get(key, clock.now)
                case ("set", Key() as key, int(length)):
                    await cache.set(key, bytes(length))
                    model.set(key, bytes(length), clock.now)
                case ("delete", Key() as key):
                    await cache.delete(key)
                    model.delete(key)
                case ("wait", float(seconds)):
                    clock.now += seconds
            assert cache.size_bytes == model.size <= 4_000

    asyncio.run(run())


async def test_too_large_a_value_takes_the_one_before_it_away(metrics: Metrics) -> None:
    cache = MemoryCache(KEYS, metrics, 10_000_000, 0)
    key = KEYS.call("c1")
    assert await cache.set(key, bytes(MAX_VALUE_BYTES))
    assert await cache.set(key, bytes(MAX_VALUE_BYTES + 1))
    assert await cache.get(key) is None
    count = metrics.registry.get_sample_value
    assert count("mediad_cache_too_large_total", {"kind": "call:record"}) == 1


async def test_hits_and_misses_are_counted_by_kind(metrics: Metrics) -> None:
    cache = MemoryCache(KEYS, metrics, 10_000, 10_000)
    await cache.set(KEYS.call("c1"), b"row")
    await cache.get_many([KEYS.call("c1"), KEYS.call("c2"), KEYS.agent("a1"), KEYS.call("c1")])

    def count(kind: str, outcome: str) -> float | None:
        labels = {"kind": kind, "outcome": outcome}
        return metrics.registry.get_sample_value("mediad_cache_reads_total", labels)

    assert count("call:record", "hit") == 2
    assert count("call:record", "miss") == 1
    assert count("agent:config", "miss") == 1
