"""Reading through the cache: one load for all who ask, and nothing stored that is out of date."""

import asyncio
from collections.abc import Collection, Mapping

import pytest

from mediad.cache.aside import CacheAside
from mediad.cache.keys import Key, Keys
from mediad.cache.memory import MemoryCache
from mediad.metrics import Metrics

KEYS = Keys("mediad", "test")
KEY = KEYS.call("c1")


class Source:
    """What the cache stands before: it answers when it is let, and counts its answers."""

    def __init__(self, value: bytes | None = b"old") -> None:
        self.value = value
        self.error: Exception | None = None
        self.loads = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def load(self) -> bytes | None:
        self.loads += 1
        value = self.value  # as a query sees it when it begins
        await self.may_answer.wait()
        if self.error is not None:
            raise self.error
        return value


class SlowCache(MemoryCache):
    """A cache that takes a value when it is let, as a Redis far away."""

    def __init__(self) -> None:
        super().__init__(KEYS, Metrics(), 10_000, 10_000)
        self.may_store = asyncio.Event()

    async def _write(
        self, values: Mapping[Key, bytes], gone: Collection[Key], *, are_copies: bool
    ) -> bool:
        if values:
            await self.may_store.wait()
        return await super()._write(values, gone, are_copies=are_copies)


@pytest.fixture
def cache() -> MemoryCache:
    return MemoryCache(KEYS, Metrics(), 10_000, 10_000)


@pytest.fixture
async def source() -> Source:
    return Source()


async def turn() -> None:
    """Let everything that can go on go on."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_value_is_loaded_once_and_then_comes_from_the_cache(
    cache: MemoryCache, source: Source
) -> None:
    aside = CacheAside(cache)
    assert await aside.get(KEY, source.load) == b"old"
    await turn()
    source.value = b"new"
    assert await aside.get(KEY, source.load) == b"old"
    assert source.loads == 1


async def test_what_is_not_there_is_not_stored(cache: MemoryCache) -> None:
    aside, source = CacheAside(cache), Source(None)
    assert await aside.get(KEY, source.load) is None
    await turn()
    source.value = b"row"
    assert await aside.get(KEY, source.load) == b"row"


async def test_all_who_ask_at_once_share_one_load(cache: MemoryCache, source: Source) -> None:
    aside = CacheAside(cache)
    source.may_answer.clear()
    asking = [asyncio.create_task(aside.get(KEY, source.load)) for _ in range(100)]
    await turn()
    source.may_answer.set()
    assert await asyncio.gather(*asking) == [b"old"] * 100
    assert source.loads == 1


async def test_loads_of_different_keys_do_not_wait_for_each_other(
    cache: MemoryCache, source: Source
) -> None:
    aside, other = CacheAside(cache), Source(b"other")
    source.may_answer.clear()
    waiting = asyncio.create_task(aside.get(KEY, source.load))
    assert await aside.get(KEYS.call("c2"), other.load) == b"other"
    source.may_answer.set()
    assert await waiting == b"old"


async def test_cancelled_first_asker_takes_nobody_with_it(
    cache: MemoryCache, source: Source
) -> None:
    aside = CacheAside(cache)
    source.may_answer.clear()
    first, *others = (asyncio.create_task(aside.get(KEY, source.load)) for _ in range(5))
    await turn()
    first.cancel()
    await turn()
    assert first.cancelled()
    source.may_answer.set()
    async with asyncio.timeout(5):
        assert await asyncio.gather(*others) == [b"old"] * 4
    assert source.loads == 1


async def test_load_goes_on_when_all_who_asked_are_cancelled(
    cache: MemoryCache, source: Source
) -> None:
    aside = CacheAside(cache)
    source.may_answer.clear()
    asking = [asyncio.create_task(aside.get(KEY, source.load)) for _ in range(3)]
    await turn()
    for task in asking:
        task.cancel()
    source.may_answer.set()
    await turn()
    assert await cache.get(KEY) == b"old"


async def test_error_reaches_all_who_wait_and_is_not_kept(
    cache: MemoryCache, source: Source
) -> None:
    aside = CacheAside(cache)
    source.may_answer.clear()
    source.error = RuntimeError("the database is gone")
    asking = [asyncio.create_task(aside.get(KEY, source.load)) for _ in range(5)]
    await turn()
    source.may_answer.set()
    outcomes = await asyncio.gather(*asking, return_exceptions=True)
    assert [str(outcome) for outcome in outcomes] == ["the database is gone"] * 5
    source.error = None
    assert await aside.get(KEY, source.load) == b"old"


async def test_error_that_nobody_waits_for_any_more_is_no_noise(
    cache: MemoryCache, source: Source, caplog: pytest.LogCaptureFixture
) -> None:
    aside = CacheAside(cache)
    source.may_answer.clear()
    source.error = RuntimeError("the database is gone")
    asking = asyncio.create_task(aside.get(KEY, source.load))
    await turn()
    asking.cancel()
    source.may_answer.set()
    await turn()
    del asking
    assert await cache.get(KEY) is None
    assert not caplog.records


async def test_load_from_before_an_invalidation_is_not_stored(
    cache: MemoryCache, source: Source
) -> None:
    aside = CacheAside(cache)
    source.may_answer.clear()
    before = asyncio.create_task(aside.get(KEY, source.load))
    await turn()
    source.value = b"new"
    await aside.invalidate(KEY)
    after = asyncio.create_task(aside.get(KEY, source.load))
    await turn()
    source.may_answer.set()
    assert (await before, await after) == (b"old", b"new")
    await turn()
    assert await cache.get(KEY) == b"new"
    assert source.loads == 2


async def test_store_under_way_while_invalidating_leaves_nothing(source: Source) -> None:
    cache = SlowCache()
    aside = CacheAside(cache)
    assert await aside.get(KEY, source.load) == b"old"  # does not wait for the cache
    invalidating = asyncio.create_task(aside.invalidate(KEY))
    await turn()
    assert not invalidating.done()
    cache.may_store.set()
    await invalidating
    assert await cache.get(KEY) is None


async def test_cancelled_invalidation_leaves_nothing_old_either(source: Source) -> None:
    cache = SlowCache()
    aside = CacheAside(cache)
    await aside.get(KEY, source.load)
    invalidating = asyncio.create_task(aside.invalidate(KEY))
    await turn()
    invalidating.cancel()
    cache.may_store.set()
    await turn()
    assert await cache.get(KEY) is None


async def test_invalidating_forgets_what_is_stored(cache: MemoryCache, source: Source) -> None:
    aside = CacheAside(cache)
    await aside.get(KEY, source.load)
    await turn()
    source.value = b"new"
    await aside.invalidate(KEY, KEYS.call("c2"))
    assert await aside.get(KEY, source.load) == b"new"
