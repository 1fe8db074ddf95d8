"""What a cache promises, of the one in the process and of a real Redis."""

import asyncio
import logging
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from pydantic import SecretStr

from mediad import config
from mediad.cache import open_cache
from mediad.cache.cache import MAX_VALUE_BYTES, Cache
from mediad.cache.memory import MemoryCache
from mediad.errors import ConfigError
from mediad.metrics import Metrics
from tests.redis_server import RedisServer, redis_server

EVERY_BYTE = bytes(range(256))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture(params=["memory", "redis"])
async def cache(request: pytest.FixtureRequest, metrics: Metrics) -> AsyncIterator[Cache]:
    """A cache with keys of its own."""
    url = None
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("server")
        url = SecretStr(server.url)
    settings = config.Cache(prefix=uuid4().hex, environment="test")
    # Long enough for a machine that is busy with other things.
    cache = open_cache(config.Redis(url=url, timeout_s=10), settings, metrics)
    yield cache
    problem = cache.problem
    await cache.close()
    assert problem is None


async def test_value_comes_back_byte_by_byte(cache: Cache) -> None:
    key = cache.keys.call("c1")
    assert await cache.get(key) is None
    assert await cache.set(key, EVERY_BYTE)
    assert await cache.get(key) == EVERY_BYTE


async def test_empty_value_is_a_value(cache: Cache) -> None:
    await cache.set(cache.keys.call("c1"), b"")
    assert await cache.get(cache.keys.call("c1")) == b""


async def test_newer_value_takes_the_place_of_the_older(cache: Cache) -> None:
    key = cache.keys.call("c1")
    await cache.set(key, b"a longer one")
    await cache.set(key, b"short")
    assert await cache.get(key) == b"short"


async def test_keys_of_one_id_are_apart(cache: Cache) -> None:
    await cache.set(cache.keys.call("1"), b"record")
    await cache.set(cache.keys.call_session("1"), b"session")
    assert await cache.get(cache.keys.call("1")) == b"record"
    assert await cache.get(cache.keys.agent("1")) is None


async def test_ids_from_outside_make_no_trouble(cache: Cache) -> None:
    for number in ("", " ", "*", "a:b", "\r\nFLUSHALL\r\n", "+49 30\0", "é☎", "\udcff"):
        await cache.set(cache.keys.number(number), number.encode(errors="surrogatepass"))
        value = await cache.get(cache.keys.number(number))
        assert value == number.encode(errors="surrogatepass")


async def test_many_are_read_in_their_order(cache: Cache) -> None:
    keys = [cache.keys.call(f"c{number}") for number in range(100)]
    await cache.update({key: key.text.encode() for key in keys[::2]})
    values = await cache.get_many(keys)
    assert values[::2] == [key.text.encode() for key in keys[::2]]
    assert values[1::2] == [None] * 50


async def test_nothing_is_read_of_no_keys(cache: Cache) -> None:
    assert await cache.get_many([]) == []
    assert await cache.update({})


async def test_deleted_is_gone_and_may_be_gone_before(cache: Cache) -> None:
    first, second = cache.keys.call("c1"), cache.keys.call("c2")
    await cache.set(first, b"row")
    await cache.delete(first, second)
    await cache.delete(first)
    await cache.delete()
    assert await cache.get_many([first, second]) == [None, None]


async def test_update_stores_and_forgets_at_once(cache: Cache) -> None:
    keys = cache.keys
    await cache.set(keys.call_session("c1"), b"session")
    assert await cache.update({keys.call_summary("c1"): b"summary"}, [keys.call_session("c1")])
    read = await cache.get_many([keys.call_session("c1"), keys.call_summary("c1")])
    assert read == [None, b"summary"]


async def test_value_over_a_megabyte_is_refused_and_counted(cache: Cache, metrics: Metrics) -> None:
    key, other = cache.keys.call("c1"), cache.keys.call("c2")
    await cache.set(key, bytes(MAX_VALUE_BYTES))
    assert await cache.get(key) == bytes(MAX_VALUE_BYTES)
    assert await cache.update({key: bytes(MAX_VALUE_BYTES + 1), other: b"row"})
    assert await cache.get_many([key, other]) == [None, b"row"]
    labels = {"kind": "call:record"}
    assert metrics.registry.get_sample_value("mediad_cache_too_large_total", labels) == 1


async def test_hits_and_misses_are_counted(cache: Cache, metrics: Metrics) -> None:
    await cache.set(cache.keys.call("c1"), b"row")
    await cache.get_many([cache.keys.call("c1"), cache.keys.call("c2")])
    for outcome in ("hit", "miss"):
        labels = {"kind": "call:record", "outcome": outcome}
        assert metrics.registry.get_sample_value("mediad_cache_reads_total", labels) == 1


async def test_hundreds_at_once_get_what_is_theirs(cache: Cache) -> None:
    async def one(number: int) -> bool:
        key, value = cache.keys.call(f"c{number}"), b"%d" % number * 50
        await cache.set(key, value)
        return await cache.get(key) == value

    assert all(await asyncio.gather(*(one(number) for number in range(400))))


async def test_cancelled_readers_get_nobody_anothers_value(cache: Cache) -> None:
    keys = [cache.keys.call(f"c{number}") for number in range(50)]
    await cache.update({key: key.text.encode() for key in keys})
    for delay in range(40):
        reading = [asyncio.create_task(cache.get(key)) for key in keys]
        for _ in range(delay):
            await asyncio.sleep(0)
        for task in reading[::2]:
            task.cancel()
        values = await asyncio.gather(*reading, return_exceptions=True)
        for key, value in zip(keys, values, strict=True):
            assert value == key.text.encode() or isinstance(value, asyncio.CancelledError)


async def test_cancelled_write_is_stored_or_not_but_never_halfway(cache: Cache) -> None:
    key, value = cache.keys.call("c1"), bytes(100_000)
    for delay in range(20):
        writing = asyncio.create_task(cache.set(key, value))
        for _ in range(delay):
            await asyncio.sleep(0)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        assert await cache.get(key) in (None, value)
    async with asyncio.timeout(10):
        # A Redis is asked what became of the last one.
        while cache.problem is not None:  # noqa: ASYNC110 (it has no event)
            await asyncio.sleep(0.02)
    await cache.set(key, value)
    assert await cache.get(key) == value


async def test_what_one_process_stores_another_finds(server: RedisServer) -> None:
    redis = config.Redis(url=SecretStr(server.url), timeout_s=10)
    settings = config.Cache(prefix=uuid4().hex)
    one, other = (open_cache(redis, settings, Metrics()) for _ in range(2))
    await one.set(one.keys.call_session("c1"), b"session")
    await one.close()  # its connections are gone, as after kill -9
    assert await other.get(other.keys.call_session("c1")) == b"session"
    await other.close()


async def test_each_is_counted_once_until_the_key_ends(cache: Cache) -> None:
    key, other = cache.keys.rate_limit("k1", "calls:create"), cache.keys.rate_limit("k1", "x:y")
    counts = await asyncio.gather(*(cache.count(key) for _ in range(200)))
    assert sorted(count.number for count in counts) == list(range(1, 201))
    assert all(key.ttl_s - 60 < count.ends_in_s <= key.ttl_s for count in counts)
    assert (await cache.count(other)).number == 1


async def test_processes_count_together(server: RedisServer) -> None:
    redis = config.Redis(url=SecretStr(server.url), timeout_s=10)
    settings = config.Cache(prefix=uuid4().hex)
    one, other = (open_cache(redis, settings, Metrics()) for _ in range(2))
    key = one.keys.rate_limit("k1", "calls:create")
    numbers = [(await cache.count(key)).number for cache in (one, other, other, one)]
    assert numbers == [1, 2, 3, 4]
    with server.client() as client:
        client.pexpire(key.text, 2000)
        ends_in_s = (await other.count(key)).ends_in_s  # counting on does not make it longer
        client.delete(key.text)
    assert ends_in_s <= 2
    assert (await one.count(key)).number == 1
    await one.close()
    await other.close()


async def test_every_key_in_redis_ends_when_it_should(server: RedisServer) -> None:
    """Those that the other tests have left, too."""
    settings = config.Cache(prefix=uuid4().hex, environment="test")
    metrics = Metrics()
    redis = config.Redis(url=SecretStr(server.url), timeout_s=10)
    cache = open_cache(redis, settings, metrics)
    make = cache.keys
    keys = [
        *(make.call("1"), make.call_session("1"), make.call_summary("1")),
        *(make.conversation_context("1"), make.conversation_history("1")),
        *(make.agent("1"), make.number("1"), make.flow("1")),
    ]
    await cache.set(keys[0], b"row")
    await cache.update({key: b"row" for key in keys[1:]})
    keys.append(make.rate_limit("1", "calls:create"))
    await cache.count(keys[-1])
    with server.client() as client:
        left = {text.decode(): client.ttl(text) for text in client.scan_iter(count=1000)}
    await cache.close()
    assert [text for text, ttl_s in left.items() if ttl_s < 0] == []
    for key in keys:
        assert key.ttl_s - 5 <= left[key.text] <= key.ttl_s


async def test_without_an_address_the_cache_is_in_the_process(metrics: Metrics) -> None:
    cache = open_cache(config.Redis(), config.Cache(max_bytes=1 << 20), metrics)
    assert isinstance(cache, MemoryCache)
    await cache.update({cache.keys.call(f"c{n}"): bytes(10_000) for n in range(200)})
    assert cache.size_bytes <= 1 << 20


async def test_unknown_option_in_the_address_is_an_error_without_the_password() -> None:
    for option in ("db=x", "no_such_option=1", "max_connections=-1"):
        url = SecretStr(f"redis://:secret@127.0.0.1:6379/0?{option}")
        with pytest.raises(ConfigError, match=r"\[redis\] url: ") as caught:
            open_cache(config.Redis(url=url), config.Cache(), Metrics())
        assert "secret" not in str(caught.value)


async def test_tls_is_spoken_to_whom_the_authority_knows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=tmp_path, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    name = ("-subj", "/CN=redis", "-addext", "subjectAltName=IP:127.0.0.1")
    openssl("req", *key, "-x509", *name, "-keyout", "key", "-out", "cert", "-days", "2")
    tls = ("--tls-cert-file", f"{tmp_path}/cert", "--tls-key-file", f"{tmp_path}/key")
    no_clients = ("--tls-auth-clients", "no", "--port", "0")
    async with redis_server(tmp_path, *tls, *no_clients, scheme="rediss") as server:
        url = SecretStr(f"{server.url}?ssl_ca_certs={tmp_path}/cert")
        cache = open_cache(config.Redis(url=url, timeout_s=10), config.Cache(), Metrics())
        assert await cache.set(cache.keys.call("c1"), bytes(500_000))
        assert await cache.get(cache.keys.call("c1")) == bytes(500_000)
        await cache.close()

        caplog.set_level(logging.WARNING)
        stranger = config.Redis(url=SecretStr(server.url), timeout_s=10)
        cache = open_cache(stranger, config.Cache(), Metrics())
        assert await cache.get(cache.keys.call("c1")) is None
        assert "certificate verify failed" in (cache.problem or "")
        await cache.close()
