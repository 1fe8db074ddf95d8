"""A live call's state in the cache: of the one in the process and of a real Redis, also when that
is slow or away.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from mediad import config
from mediad.bus.bus import MAX_DURABLE, Bus
from mediad.bus.events import Event
from mediad.cache import open_cache, redis
from mediad.cache.cache import Cache
from mediad.cache.keys import Key, Keys
from mediad.cache.memory import MemoryCache
from mediad.metrics import Metrics
from mediad.store import sessions as module
from mediad.store.sessions import Sessions
from tests.redis_server import RedisServer, redis_server

WAIT_S = 10.0


async def until(is_so: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(WAIT_S):
        while True:
            if await is_so():
                return
            await asyncio.sleep(0.005)


class Calls:
    """Sessions that follow a bus, and a second reader of the same cache, as another process is."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.metrics = Metrics()
        self.bus = Bus(self.metrics)
        self.sessions = Sessions(cache, self.bus, self.metrics)
        self.others = Sessions(cache, Bus(self.metrics), Metrics())

    def tell(self, call_id: str, type_: str, **data: Any) -> Event:
        event = Event(type_, call_id, 0.0, data, customer_id="acme")
        self.bus.publish(event)
        return event

    def begin(self, call_id: str) -> None:
        self.tell(call_id, "call_created", direction="inbound", source="+49301", agent_id="a1")

    def say(self, call_id: str, text: str) -> Event:
        return self.tell(call_id, "transcript_created", direction="in", text=text)

    def end(self, call_id: str) -> Event:
        return self.tell(call_id, "call_hungup", status="completed", hangup_by="caller")

    async def said(self, call_id: str) -> list[str]:
        """What other processes find."""
        return [message.content for message in await self.others.history(call_id)]

    async def until_said(self, call_id: str, *texts: str) -> None:
        async def is_said() -> bool:
            return await self.said(call_id) == list(texts)

        await until(is_said)

    async def until_ended(self, call_id: str) -> None:
        async def is_ended() -> bool:
            return await self.others.summary(call_id) is not None

        await until(is_ended)


@asynccontextmanager
async def following(cache: Cache) -> AsyncIterator[Calls]:
    calls = Calls(cache)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(calls.sessions.run())
        await asyncio.sleep(0)
        yield calls
        running.cancel()


def redis_cache(server: RedisServer, timeout_s: float = 10.0) -> Cache:
    settings = config.Redis(url=SecretStr(server.url), timeout_s=timeout_s)
    return open_cache(settings, config.Cache(environment="test"), Metrics())


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RedisServer]:
    async with redis_server(tmp_path) as server:
        yield server


@pytest.fixture(params=["memory", "redis"])
async def calls(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Calls]:
    if request.param == "memory":
        cache = open_cache(config.Redis(), config.Cache(environment="test"), Metrics())
        async with following(cache) as calls:
            yield calls
        return
    async with redis_server(tmp_path) as server:
        cache = redis_cache(server)
        async with following(cache) as calls:
            yield calls
        problem = cache.problem
        await cache.close()
        assert problem is None


async def test_live_call_is_found_by_other_processes(calls: Calls) -> None:
    calls.begin("c1")
    calls.say("c1", "Hello?")
    await calls.until_said("c1", "Hello?")
    for reader in (calls.sessions, calls.others):
        session = await reader.session("c1")
        assert session is not None
        assert (session.customer_id, session.source, session.agent_id) == ("acme", "+49301", "a1")
        context = await reader.context("c1")
        assert context is not None
        assert context.phone_number == "+49301"
        assert [message.role for message in await reader.history("c1")] == ["user"]


async def test_nothing_is_found_of_an_unknown_call(calls: Calls) -> None:
    calls.say("c2", "Hello?")
    await asyncio.sleep(0.05)
    for reader in (calls.sessions, calls.others):
        assert await reader.session("c2") is None
        assert await reader.context("c2") is None
        assert await reader.history("c2") == []
        assert await reader.summary("c2") is None


async def test_what_another_version_left_is_as_if_it_were_not_there(calls: Calls) -> None:
    keys = calls.cache.keys
    left = (keys.call_session("c1"), keys.conversation_history("c1"), keys.call_summary("c1"))
    await calls.cache.update({key: b'{"from": "another version"}' for key in left})
    assert await calls.sessions.session("c1") is None
    assert await calls.sessions.history("c1") == []
    assert await calls.sessions.summary("c1") is None
    calls.end("c1")  # nor is it a call of ours
    calls.bus.announce(Event("call_hungup", "c1", 9.0, {"status": "failed"}, sequence=1))
    await asyncio.sleep(0.1)
    assert await calls.others.summary("c1") is None


async def test_summary_remains_of_a_call_that_is_over(calls: Calls) -> None:
    calls.begin("c1")
    calls.say("c1", "Hello?")
    await calls.until_said("c1", "Hello?")
    calls.end("c1")
    await calls.until_ended("c1")
    for reader in (calls.sessions, calls.others):
        assert await reader.session("c1") is None
        assert await reader.context("c1") is None
        assert await reader.history("c1") == []
        summary = await reader.summary("c1")
        assert summary is not None
        assert (summary.call_status, summary.hangup_by, summary.messages) == (
            *("completed", "caller"),
            1,
        )


async def test_call_that_is_over_at_once_leaves_only_its_summary(calls: Calls) -> None:
    calls.begin("c1")
    calls.say("c1", "Hello?")
    calls.end("c1")
    await calls.until_ended("c1")
    assert await calls.others.session("c1") is None


async def test_fact_told_again_with_its_number_is_taken_once(calls: Calls) -> None:
    calls.begin("c1")
    said = calls.say("c1", "Hello?")
    calls.bus.announce(replace(said, sequence=2))
    calls.say("c1", "Bye.")
    await calls.until_said("c1", "Hello?", "Bye.")
    ended = calls.end("c1")
    calls.bus.announce(replace(ended, sequence=4))
    await calls.until_ended("c1")
    await asyncio.sleep(0.1)
    summary = await calls.others.summary("c1")
    assert summary is not None
    assert summary.messages == 2


async def test_call_of_a_process_that_died_is_ended_by_the_next(calls: Calls) -> None:
    async with following(calls.cache) as dying:
        dying.begin("c1")
        dying.say("c1", "Hello?")
        await dying.until_said("c1", "Hello?")
    # The cache has the state; the process that comes next finds the call without an end.
    assert await calls.others.session("c1") is not None
    end = Event("call_hungup", "c1", 9.0, {"status": "failed", "hangup_by": "system"}, sequence=7)
    calls.bus.announce(end)
    await calls.until_ended("c1")
    summary = await calls.others.summary("c1")
    assert summary is not None
    assert (summary.call_status, summary.hangup_by, summary.messages) == ("failed", "system", 1)
    assert (await calls.others.session("c1"), await calls.said("c1")) == (None, [])


async def test_fact_that_is_none_does_not_end_the_others(
    calls: Calls, caplog: pytest.LogCaptureFixture
) -> None:
    calls.begin("c1")
    calls.tell("c2", "call_created", source=["not", "a", "number"])
    calls.tell("c1", "transcript_created", direction="in")
    calls.say("c1", "Hello?")
    await calls.until_said("c1", "Hello?")
    assert [record.message for record in caplog.records] == [
        "call c2: call_created is not as it should be: ValidationError",
        "call c1: transcript_created is not as it should be: 'text'",
    ]


async def test_number_of_sessions_is_shown(calls: Calls) -> None:
    for number in range(3):
        calls.begin(f"c{number}")
    calls.end("c0")
    await calls.until_ended("c0")
    assert calls.metrics.registry.get_sample_value("mediad_sessions") == 2


async def test_facts_that_were_missed_do_not_stop_what_comes(
    calls: Calls, caplog: pytest.LogCaptureFixture
) -> None:
    calls.begin("c1")
    await calls.until_said("c1")
    for sequence in range(MAX_DURABLE + 1):
        calls.bus.announce(Event("dtmf_received", "c9", 0.0, {"digit": "1"}, sequence=sequence))
    await asyncio.sleep(0.2)
    calls.begin("c2")
    calls.say("c2", "Hello?")
    await calls.until_said("c2", "Hello?")
    assert [record.message for record in caplog.records] == [
        "facts were missed: the sessions of live calls are not kept on"
    ]


async def test_silent_call_keeps_its_session(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_REFRESH_S", 0.2)
    cache = redis_cache(server)
    async with following(cache) as calls:
        calls.begin("c1")
        calls.say("c1", "Hello?")
        await calls.until_said("c1", "Hello?")
        key = cache.keys.call_session("c1")
        with server.client() as client:
            client.expire(key.text, 100)

            async def is_set_again() -> bool:
                return bool(client.ttl(key.text) > key.ttl_s - 10)

            await until(is_set_again)
            assert {client.ttl(text) > 1_700 for text in client.scan_iter()} == {True}
    await cache.close()


# A cache that is slow or away


class SlowCache(MemoryCache):
    """A cache that takes its time, or does not take anything; counts how often it is written."""

    def __init__(self) -> None:
        super().__init__(Keys("mediad", "test"), Metrics(), 10_000_000, 0)
        self.writes = 0
        self.takes_s = 0.0
        self.is_away = False

    async def _write(
        self, values: Mapping[Key, bytes], gone: Collection[Key], *, are_copies: bool
    ) -> bool:
        self.writes += 1
        await asyncio.sleep(self.takes_s)
        return not self.is_away and await super()._write(values, gone, are_copies=are_copies)


async def test_slow_cache_is_written_less_often_and_has_all_in_the_end() -> None:
    cache = SlowCache()
    cache.takes_s = 0.1
    async with following(cache) as calls:
        for number in range(10):
            calls.begin(f"c{number}")
        texts = [f"{turn}" for turn in range(100)]
        for text in texts:
            for number in range(10):
                calls.say(f"c{number}", text)
            await asyncio.sleep(0.002)
        for number in range(10):
            await calls.until_said(f"c{number}", *texts)
    assert cache.writes < 30  # of 1,010 facts


async def test_many_calls_are_written_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_CALLS", 10)
    cache = SlowCache()
    async with following(cache) as calls:
        for number in range(100):
            calls.begin(f"c{number}")
            calls.say(f"c{number}", "Hello?")
        for number in range(100):
            await calls.until_said(f"c{number}", "Hello?")
    assert 10 <= cache.writes <= 20


async def test_cache_that_was_away_has_everything_when_it_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_RETRY_S", 0.02)
    cache = SlowCache()
    async with following(cache) as calls:
        calls.begin("c1")
        calls.begin("c2")
        calls.say("c1", "Hello?")
        await calls.until_said("c1", "Hello?")
        cache.is_away = True
        calls.say("c1", "Are you there?")
        ended = calls.end("c2")
        await asyncio.sleep(0.1)
        calls.bus.announce(replace(ended, sequence=1))
        await asyncio.sleep(0.1)
        assert await calls.said("c1") == ["Hello?"]
        # Here it is known all the same.
        assert len(await calls.sessions.history("c1")) == 2
        cache.is_away = False
        await calls.until_said("c1", "Hello?", "Are you there?")
        await calls.until_ended("c2")


async def test_end_of_a_dead_process_call_waits_for_a_cache_that_is_away(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_RETRY_S", 0.05)
    monkeypatch.setattr(redis, "_PROBE_S", 0.05)
    cache = redis_cache(server, timeout_s=0.2)
    async with following(cache) as dying:
        dying.begin("c1")
        dying.say("c1", "Hello?")
        await dying.until_said("c1", "Hello?")
    async with following(cache) as calls:
        with server.frozen():
            end = {"status": "failed", "hangup_by": "system"}
            calls.bus.announce(Event("call_hungup", "c1", 9.0, end, sequence=7))
            await asyncio.sleep(0.5)
        await calls.until_ended("c1")
        summary = await calls.others.summary("c1")
    assert summary is not None
    assert summary.messages == 1
    await cache.close()


async def test_ends_that_wait_for_the_cache_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RETRY_S", 0.02)
    monkeypatch.setattr(module, "_MAX_ENDED", 5)
    cache = SlowCache()
    cache.is_away = True
    async with following(cache) as calls:
        for number in range(20):
            calls.begin(f"c{number}")
            calls.end(f"c{number}")
            await asyncio.sleep(0.005)
        cache.is_away = False
        await calls.until_ended("c19")
        await asyncio.sleep(0.1)
        found = [await calls.others.summary(f"c{number}") is not None for number in range(20)]
    assert sum(found) == 5


async def test_redis_that_dies_in_a_call_has_all_of_it_when_it_is_back(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_RETRY_S", 0.05)
    monkeypatch.setattr(redis, "_PROBE_S", 0.05)
    caplog.set_level(logging.ERROR)
    cache = redis_cache(server, timeout_s=0.3)

    async def has_problem() -> bool:
        return cache.problem is not None

    async with following(cache) as calls:
        calls.begin("c1")
        calls.say("c1", "one")
        await calls.until_said("c1", "one")
        server.kill()  # it keeps nothing on disk
        calls.say("c1", "two")
        await until(has_problem)
        assert [message.content for message in await calls.sessions.history("c1")] == ["one", "two"]
        await asyncio.to_thread(server.start)
        await calls.until_said("c1", "one", "two")
        assert await calls.others.session("c1") is not None

        with server.frozen():
            calls.say("c1", "three")
            await until(has_problem)
        await calls.until_said("c1", "one", "two", "three")
        calls.end("c1")
        await calls.until_ended("c1")
        assert await calls.others.session("c1") is None
    await cache.close()
    assert not caplog.records
