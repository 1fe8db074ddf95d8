"""The cache when Redis is down, slow, full, or refuses us: misses and counters, never an error, and
nobody waits long.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr

from mediad import config
from mediad.cache import open_cache, redis
from mediad.cache.cache import Cache
from mediad.cache.counts import Count
from mediad.metrics import Metrics
from tests.own_stalls import no_longer_than
from tests.redis_server import RedisServer, redis_server

TIMEOUT_S = 0.3
WAIT_S = 10.0


@pytest.fixture(autouse=True)
def short_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis, "_PROBE_S", 0.05)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RedisServer]:
    async with redis_server(tmp_path) as server:
        yield server


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@asynccontextmanager
async def opened(url: str, metrics: Metrics, timeout_s: float = 10.0) -> AsyncIterator[Cache]:
    settings = config.Redis(url=SecretStr(url), timeout_s=timeout_s)
    cache = open_cache(settings, config.Cache(environment="test"), metrics)
    try:
        yield cache
    finally:
        await cache.close()


@pytest.fixture
async def cache(server: RedisServer, metrics: Metrics) -> AsyncIterator[Cache]:
    async with opened(server.url, metrics, TIMEOUT_S) as cache:
        yield cache


async def until(is_so: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while True:
        if is_so():
            return
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        await asyncio.sleep(0.005)


async def recovered(cache: Cache) -> None:
    await until(lambda: cache.problem is None, "Redis to be up again")


def count(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(f"mediad_cache_{name}", labels) or 0.0


async def use(cache: Cache) -> tuple[bytes | None, bool]:
    """Do all that can be done."""
    key = cache.keys.call("c1")
    stored = await cache.update({key: b"row"}, [cache.keys.call("c2")])
    value = await cache.get(key)
    await cache.delete(key)
    return value, stored


# Down


async def test_redis_that_is_not_there_is_a_miss_and_a_counter(
    server: RedisServer, metrics: Metrics
) -> None:
    server.kill()
    async with opened(server.url, metrics) as cache:
        for _ in range(100):
            assert await use(cache) == (None, False)
        assert f"Redis at 127.0.0.1:{server.port} does not answer: " in (cache.problem or "")
        assert count(metrics, "up") == 0
        assert 1 <= count(metrics, "errors_total", operation="write") <= 2
        assert count(metrics, "skipped_total", operation="read") >= 98


async def test_redis_killed_in_use_hurts_nobody_and_is_used_again(
    server: RedisServer, cache: Cache, metrics: Metrics
) -> None:
    stop = asyncio.Event()

    async def worker(number: int) -> None:
        key = cache.keys.call(f"c{number}")
        while not stop.is_set():
            await cache.set(key, b"%d" % number)
            assert await cache.get(key) in (None, b"%d" % number)
            await asyncio.sleep(0)

    def hits() -> float:
        return count(metrics, "reads_total", kind="call:record", outcome="hit")

    async def more_hits() -> None:
        before = hits()
        await until(lambda: hits() > before + 100, "hits")

    async with asyncio.TaskGroup() as tasks:
        for number in range(30):
            tasks.create_task(worker(number))
        for _ in range(3):
            await more_hits()
            server.kill()
            await until(lambda: cache.problem, "Redis to be found down")
            await asyncio.to_thread(server.start)
        await more_hits()
        stop.set()
    await recovered(cache)
    assert count(metrics, "up") == 1


async def test_restart_while_nobody_asks_is_not_noticed(
    server: RedisServer, cache: Cache, metrics: Metrics
) -> None:
    await asyncio.gather(*(cache.get(cache.keys.call("c1")) for _ in range(10)))
    server.kill()
    await asyncio.to_thread(server.start)
    await asyncio.sleep(0.05)
    assert await use(cache) == (b"row", True)
    assert count(metrics, "errors_total", operation="write") == 0


async def test_redis_that_dies_while_nobody_asks_is_a_problem(
    server: RedisServer, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis, "_CHECK_S", 0.05)
    async with opened(server.url, metrics) as cache:
        await asyncio.sleep(0.1)
        assert cache.problem is None
        server.kill()
        await until(lambda: cache.problem, "Redis to be found down")
        await asyncio.to_thread(server.start)
        await recovered(cache)


# Slow


async def test_redis_that_does_not_answer_is_waited_for_once(
    server: RedisServer, cache: Cache, metrics: Metrics
) -> None:
    key = cache.keys.call("c1")
    await cache.set(key, b"row")
    with server.frozen():
        async with no_longer_than(3 * TIMEOUT_S):  # of 200
            for _ in range(200):
                assert await cache.get(key) is None
                await asyncio.sleep(0)
        assert cache.problem is not None
        assert f"has not answered within {TIMEOUT_S} s" in cache.problem
        assert count(metrics, "errors_total", operation="read") == 1
        assert count(metrics, "skipped_total", operation="read") == 199
    await recovered(cache)
    assert await cache.get(key) == b"row"


async def test_many_who_ask_at_once_wait_at_the_same_time(
    server: RedisServer, cache: Cache
) -> None:
    key = cache.keys.call("c1")
    await cache.set(key, b"row")
    with server.frozen():
        async with no_longer_than(3 * TIMEOUT_S):
            # Many more than there are connections.
            assert await asyncio.gather(*(cache.get(key) for _ in range(300))) == [None] * 300
    await recovered(cache)
    assert await cache.get(key) == b"row"


async def test_what_was_deleted_while_redis_slept_is_never_read_again(
    server: RedisServer, cache: Cache
) -> None:
    deleted, kept = cache.keys.call("deleted"), cache.keys.call("kept")
    await cache.update({deleted: b"old", kept: b"row"})
    with server.frozen():
        await cache.delete(deleted)  # waits in vain
        await cache.delete(deleted)  # does not wait
        assert await cache.get(deleted) is None
    await until(lambda: cache.problem is None, "Redis to be up again")
    assert await cache.get_many([deleted, kept]) == [None, b"row"]


@pytest.mark.parametrize("are_copies", [True, False])
async def test_copy_that_nobody_confirmed_is_taken_back(
    are_copies: bool, server: RedisServer, cache: Cache
) -> None:
    key = cache.keys.call("c1")
    await cache.get(key)  # a connection is there, so that it gets to Redis
    with server.frozen():
        assert not (
            await cache.set(key, b"row") if are_copies else await cache.update({key: b"row"})
        )
    await recovered(cache)
    with server.client() as client:
        assert client.get(key.text) == (None if are_copies else b"row")


async def test_cancelled_delete_is_made_up_for(server: RedisServer, cache: Cache) -> None:
    key = cache.keys.agent("a1")
    await cache.set(key, b"old")
    with server.frozen():
        deleting = asyncio.create_task(cache.delete(key))
        await asyncio.sleep(0.01)
        deleting.cancel()
        await asyncio.wait([deleting])
        assert deleting.cancelled()
        assert await cache.get(key) is None
    await recovered(cache)
    assert await cache.get(key) is None


async def test_owed_deletes_are_bounded_and_the_lost_ones_counted(
    server: RedisServer, cache: Cache, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis, "MAX_OWED", 3)
    keys = [cache.keys.call(f"c{number}") for number in range(5)]
    await cache.update({key: b"old" for key in keys})
    with server.frozen():
        for key in keys:
            await cache.delete(key)
        assert count(metrics, "errors_total", operation="delete") == 2
    await recovered(cache)
    # The first one was sent; it is only not known here.
    assert await cache.get_many(keys) == [None, b"old", None, None, None]


async def test_connections_are_bounded(server: RedisServer, cache: Cache) -> None:
    await asyncio.gather(*(cache.get(cache.keys.call(f"c{n}")) for n in range(300)))
    with server.client() as client:
        clients = client.client_list()
    assert len(clients) <= redis.MAX_CONNECTIONS + 2  # the probe's, and the one that counts


# Counting


async def test_count_goes_on_without_redis_from_what_was_last_known(
    server: RedisServer, cache: Cache, metrics: Metrics
) -> None:
    key = cache.keys.rate_limit("k1", "calls:create")
    with server.client() as client:
        client.set(key.text, 40, ex=900)  # by others
    assert (await cache.count(key)).number == 41
    with server.frozen():
        async with no_longer_than(3 * TIMEOUT_S):  # of 200
            numbers = [(await cache.count(key)).number for _ in range(200)]
        assert numbers == list(range(42, 242))
        assert count(metrics, "errors_total", operation="count") == 1
        assert count(metrics, "skipped_total", operation="count") == 199
    await recovered(cache)
    # The one that it did not answer in time may be counted.
    assert (await cache.count(key)).number in (42, 43)


async def test_nothing_is_counted_without_an_end(server: RedisServer, cache: Cache) -> None:
    key = cache.keys.rate_limit("k1", "calls:create")
    for delay in range(40):
        counting = [asyncio.create_task(cache.count(key)) for _ in range(10)]
        for _ in range(delay):
            await asyncio.sleep(0)
        for task in counting[::2]:
            task.cancel()
        done = await asyncio.gather(*counting, return_exceptions=True)
        assert all(isinstance(one, (Count, asyncio.CancelledError)) for one in done)
        with server.client() as client:
            assert client.ttl(key.text) > 0 or not client.exists(key.text)
            client.delete(key.text)


async def test_to_count_in_redis_takes_five_commands(server: RedisServer, metrics: Metrics) -> None:
    with server.client() as client:
        commands = ["+set", "+multi", "+exec", "+incrby", "+pttl"]
        rights = {"enabled": True, "passwords": ["+pw"], "keys": ["mediad:*"], "commands": commands}
        client.acl_setuser("app", **rights)
        async with opened(f"redis://app:pw@127.0.0.1:{server.port}/0", metrics) as cache:
            key = cache.keys.rate_limit("k1", "calls:create")
            assert [(await cache.count(key)).number for _ in range(3)] == [1, 2, 3]
            assert cache.problem is None
        assert client.get(key.text) == b"3"


@pytest.mark.parametrize("commands", [["+mget", "+set", "+del"], ["+@all", "-incrby"]])
async def test_who_may_not_count_in_redis_counts_alone(
    commands: list[str],
    server: RedisServer,
    metrics: Metrics,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with server.client() as client:
        client.acl_setuser("app", enabled=True, passwords=["+pw"], keys=["*"], commands=commands)
        async with opened(f"redis://app:pw@127.0.0.1:{server.port}/0", metrics) as cache:
            key = cache.keys.rate_limit("k1", "calls:create")
            for number in (1, 2, 3):
                assert (await cache.count(key)).number == number
                assert cache.problem is None
                assert await use(cache) == (b"row", True)
            assert caplog.text.count("refuses a command: ") == 1
            assert count(metrics, "errors_total", operation="count") == 3
            assert count(metrics, "up") == 1
            assert client.ttl(key.text) != -1


# Full, or refusing


async def test_full_redis_still_reads_and_forgets(tmp_path: Path, metrics: Metrics) -> None:
    full = ("--maxmemory", "4mb", "--maxmemory-policy", "noeviction")
    async with redis_server(tmp_path, *full) as server, opened(server.url, metrics) as cache:
        keys = [cache.keys.call(f"c{number}") for number in range(60)]
        stored = [await cache.set(key, bytes(100_000)) for key in keys]
        assert stored[0]
        assert not stored[-1]
        assert count(metrics, "errors_total", operation="write") == stored.count(False)
        assert "used memory > 'maxmemory'" in (cache.problem or "")
        assert count(metrics, "up") == 1
        assert await cache.get(keys[0]) == bytes(100_000)
        assert await cache.get(keys[-1]) is None
        await cache.delete(*keys)
        assert await cache.get(keys[0]) is None
        assert await cache.set(keys[0], b"row")
        assert cache.problem is None


async def test_redis_that_refuses_deletes_is_not_read(
    server: RedisServer, cache: Cache, metrics: Metrics
) -> None:
    key = cache.keys.agent("a1")
    await cache.set(key, b"old")
    with server.client() as client:
        client.config_set("min-replicas-to-write", 1)
        assert await cache.get(key) == b"old"
        await cache.delete(key)
        assert await cache.get(key) is None
        await until(lambda: "refuses a delete" in (cache.problem or ""), "the reason")
        assert await cache.get(key) is None
        client.config_set("min-replicas-to-write", 0)
        await until(lambda: count(metrics, "up"), "Redis to be up again")
    assert await cache.get(key) is None
    assert await cache.set(key, b"new")
    assert cache.problem is None


@pytest.mark.parametrize("given", ["wr0ng-secret", None])
async def test_wrong_password_is_a_problem_in_words_without_it(
    given: str | None, tmp_path: Path, metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with redis_server(tmp_path, "--requirepass", "r1ght-secret") as server:
        url = server.url_for(given) if given else server.url
        async with opened(url, metrics) as cache:
            await until(lambda: cache.problem, "a problem, though nobody has asked for anything")
            assert await use(cache) == (None, False)
            assert "refuses the user or password in [redis] url: " in (cache.problem or "")
            shown = f"{cache.problem} {cache!r} {vars(cache)} {caplog.text}"
            assert "secret" not in shown
        async with opened(server.url_for("r1ght-secret"), Metrics()) as cache:
            assert await use(cache) == (b"row", True)


async def test_user_needs_three_commands_on_its_own_keys(
    server: RedisServer, metrics: Metrics
) -> None:
    with server.client() as client:
        commands = ["+mget", "+set", "+del"]
        rights = {"enabled": True, "passwords": ["+pw"], "keys": ["mediad:*"], "commands": commands}
        client.acl_setuser("app", **rights)
    async with opened(f"redis://app:pw@127.0.0.1:{server.port}/0", metrics) as cache:
        await asyncio.sleep(0.1)
        assert await use(cache) == (b"row", True)
        assert cache.problem is None


async def test_refused_read_is_a_miss_and_a_problem(server: RedisServer, metrics: Metrics) -> None:
    with server.client() as client:
        rights = {"enabled": True, "passwords": ["+pw"], "keys": ["*"], "commands": ["+set"]}
        client.acl_setuser("app", **rights)
    async with opened(f"redis://app:pw@127.0.0.1:{server.port}/0", metrics) as cache:
        for _ in range(3):
            assert await cache.get(cache.keys.call("c1")) is None
            assert await cache.set(cache.keys.call("c1"), b"row")
        assert "refuses a command: " in (cache.problem or "")
        assert count(metrics, "errors_total", operation="read") == 3


@pytest.mark.parametrize(
    ("says", "problem"),
    [
        (b"-LOADING Redis is loading the dataset in memory\r\n", "is loading the dataset"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "Protocol Error"),
        (b"-ERR max number of clients reached\r\n", "max number of clients reached"),
        (b"x" * 100_000, "does not answer"),
        (b"$5\r\nab", "does not answer"),
        (b"+OK\r\n" * 10, "does not answer"),
        (b"", "does not answer"),
    ],
)
async def test_whatever_is_said_there_is_no_error(
    says: bytes, problem: str, metrics: Metrics
) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10_000)
        writer.write(says)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        async with opened(f"redis://127.0.0.1:{port}", metrics) as cache:
            assert (await cache.count(cache.keys.rate_limit("k1", "calls:create"))).number == 1
            for _ in range(5):
                assert await use(cache) == (None, False)
            assert problem in (cache.problem or "")
            assert len(cache.problem or "") < 400


# What is shown of it


async def test_keys_that_others_made_without_an_end_are_shown(
    server: RedisServer, metrics: Metrics
) -> None:
    with server.client() as client:
        client.set("endless", "1")
        client.set("ending", "1", ex=100)
    async with opened(server.url, metrics):
        await until(lambda: count(metrics, "keys"), "the first look at Redis")
        assert (count(metrics, "keys"), count(metrics, "keys_without_ttl")) == (2, 1)


async def test_waiting_for_redis_is_measured(cache: Cache, metrics: Metrics) -> None:
    await use(cache)
    assert count(metrics, "seconds_count", operation="read") == 1
    assert count(metrics, "seconds_count", operation="write") == 2


async def test_being_down_and_up_again_is_one_line_each(
    server: RedisServer, cache: Cache, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mediad.cache")
    await use(cache)
    server.kill()
    for _ in range(20):
        await use(cache)
    await asyncio.to_thread(server.start)
    await recovered(cache)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "doing without it" in caplog.records[0].message
    assert caplog.records[1].message == f"Redis at 127.0.0.1:{server.port} answers again"
