"""The cache in Redis. When Redis is down, slow, full or refuses us, an answer takes longer and a
counter goes up.

Two states:

- *up*: commands are sent, each with one deadline for all of it: a free connection, connecting, the
  answer.
- *down*: nothing is sent, so that nobody waits for a deadline in vain; a task asks Redis once a
  second. The first command without an answer leads here. Usually that was one connection, and the
  task, which asks at once, leads back within a millisecond.

A delete that Redis has not confirmed is *owed*, and so is that of a copy of which nobody knows
whether it was stored: the task makes up for it before it leads back. So what is read is never what
was deleted before.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar, cast

from prometheus_client import Counter, Gauge, Histogram
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError, ResponseError

from mediad import blot, config
from mediad.cache.cache import Cache
from mediad.cache.counts import Count
from mediad.cache.keys import Key, Keys
from mediad.errors import ConfigError
from mediad.metrics import Metrics

__all__ = ["MAX_CONNECTIONS", "MAX_OWED", "RedisCache"]

logger = logging.getLogger(__name__)

MAX_CONNECTIONS = 20
"""Connections in use at once; more commands wait, within their deadline."""

MAX_OWED = 10_000
"""Keys that are owed; one more, and the oldest is counted as an error and may come back stale."""

_PROBE_S = 1.0  # between two attempts while it is down
_CHECK_S = 15.0  # between two looks at it while it is up
_BUCKETS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)

T = TypeVar("T")


class RedisCache(Cache):
    """Values in a Redis that other processes share. Make it on the loop it serves and `start` it.

    Its user needs no more than MGET, SET and DEL. Who may MULTI, EXEC, INCRBY and PTTL, too, shares
    its counts, and else is warned once; who may INFO sees how many keys there are.

    Args:
        settings: Where Redis is, with an url, and how long to wait for it.
        keys: As for every cache.
        metrics: As for every cache.

    Raises:
        ConfigError: If the url has options that there are not.
    """

    def __init__(self, settings: config.Redis, keys: Keys, metrics: Metrics) -> None:
        super().__init__(keys, metrics)
        pool = _make_pool(settings)
        self._client: Redis = Redis.from_pool(pool)
        self._where = _describe(pool.connection_kwargs)
        self._database = pool.connection_kwargs.get("db", 0)
        self._timeout_s = settings.timeout_s
        # The library's own blocking pool loses a wake-up when a waiter is cancelled (before 3.13).
        self._slots = asyncio.Semaphore(MAX_CONNECTIONS)
        self._is_up = True
        self._trouble: str | None = None  # why it is down
        self._refusals: dict[str, str] = {}  # by operation: what it said to the last one
        self._owed: dict[str, float] = {}  # text of a key → when it ends by itself; oldest first
        self._task: asyncio.Task[None] | None = None
        self._went_down = asyncio.Event()
        self._declare(metrics)

    def _declare(self, metrics: Metrics) -> None:
        registry = metrics.registry
        self._errors = Counter(
            "mediad_cache_errors",
            "Commands that Redis did not answer or refused",
            ("operation",),
            registry=registry,
        )
        self._skipped = Counter(
            "mediad_cache_skipped",
            "Commands not sent because Redis was down",
            ("operation",),
            registry=registry,
        )
        self._seconds = Histogram(
            "mediad_cache_seconds",
            "From a command to Redis to its answer",
            ("operation",),
            registry=registry,
            buckets=_BUCKETS,
        )
        self._stored = Gauge(
            "mediad_cache_keys", "Keys in the Redis database, whoever made them", registry=registry
        )
        self._endless = Gauge(
            "mediad_cache_keys_without_ttl", "Those of them that never end", registry=registry
        )
        metrics.watch("cache_up", "Whether Redis answers", lambda: self._is_up)

    @property
    def problem(self) -> str | None:
        """Why Redis cannot be used, or does not take or tell what it should. It need not count."""
        return self._trouble or self._refusals.get("write") or self._refusals.get("read")

    def start(self) -> None:
        """Begin to look after Redis: once now, and from then on."""
        self._task = asyncio.get_running_loop().create_task(self._look_after())

    async def close(self) -> None:
        """Close all connections."""
        self._is_up = False
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        with contextlib.suppress(RedisError, OSError):
            async with asyncio.timeout(self._timeout_s):
                await self._client.aclose()

    async def _read(self, keys: Sequence[Key]) -> list[bytes | None]:
        texts = [key.text for key in keys]
        answer = await self._ask("read", lambda: self._client.mget(texts))
        if answer is None:
            return [None] * len(texts)
        self._refusals.pop("read", None)
        return cast("list[bytes | None]", answer)  # never str: the client does not decode

    async def _write(
        self, values: Mapping[Key, bytes], gone: Collection[Key], *, are_copies: bool
    ) -> bool:
        if not self._is_up:
            self._skipped.labels("write").inc()
            self._owe(gone)
            return False
        pipeline = self._client.pipeline(transaction=False)
        for key, value in values.items():
            pipeline.set(key.text, value, ex=key.ttl_s)
        if gone:
            pipeline.delete(*(key.text for key in gone))
        answers: list[Any] | None = None
        try:
            # Errors are read off the answers: the one it would raise quotes the value.
            answers = await self._ask("write", lambda: pipeline.execute(raise_on_error=False))
        finally:
            if answers is None:  # lost or cancelled on the way
                self._owe((*values, *gone) if are_copies else gone)
        return answers is not None and self._check(answers, gone)

    async def _count(self, key: Key) -> Count | None:
        # As one: else the key might end after the SET, and INCRBY would make one without an end.
        pipeline = self._client.pipeline(transaction=True)
        pipeline.set(key.text, 0, ex=key.ttl_s, nx=True)
        pipeline.incrby(key.text, 1)
        pipeline.pttl(key.text)
        answers = await self._ask("count", pipeline.execute)
        if answers is None:
            return None
        self._refusals.pop("count", None)
        _, number, ends_in_ms = answers
        return Count(number, ends_in_ms / 1000)

    async def _ask(self, operation: str, command: Callable[[], Awaitable[T]]) -> T | None:
        """Return what Redis answers; None when it does not, or need not be asked."""
        if not self._is_up:
            self._skipped.labels(operation).inc()
            return None
        started_at = time.perf_counter()
        try:
            async with asyncio.timeout(self._timeout_s), self._slots:
                answer = await command()
        except ResponseError as exc:
            self._errors.labels(operation).inc()
            self._refuse(operation, exc)
        except Exception as exc:
            # The library's errors, the socket's, uvloop's for a closed transport, the parser's
            # about a peer that is no Redis: whatever it is, no caller fails because of the cache.
            self._errors.labels(operation).inc()
            self._go_down(self._explain(exc))
        else:
            self._seconds.labels(operation).observe(time.perf_counter() - started_at)
            return answer
        return None

    def _check(self, answers: Sequence[Any], gone: Collection[Key]) -> bool:
        """Look for refusals among the answers to a write; return whether there is none."""
        refusals = [answer for answer in answers if isinstance(answer, Exception)]
        if not refusals:
            self._refusals.pop("write", None)
            return True
        self._errors.labels("write").inc()
        self._refuse("write", refusals[0])
        if gone and isinstance(answers[-1], Exception):  # the delete comes last
            self._owe(gone)
        return False

    def _refuse(self, operation: str, exc: Exception) -> None:
        text = f"Redis at {self._where} refuses a command: {_shorten(exc)}"
        if operation not in self._refusals:
            logger.warning("%s", text)
        self._refusals[operation] = text

    def _owe(self, keys: Iterable[Key]) -> None:
        """Have keys deleted before anything is read again."""
        now = time.monotonic()
        for key in keys:
            self._owed.pop(key.text, None)
            self._owed[key.text] = now + key.ttl_s
        while len(self._owed) > MAX_OWED:
            del self._owed[next(iter(self._owed))]
            self._errors.labels("delete").inc()
        if self._owed:
            self._go_down(f"Redis at {self._where} has not confirmed a write")

    def _go_down(self, why: str) -> None:
        if self._is_up:
            self._is_up = False
            self._trouble = why
            self._went_down.set()
            logger.warning("%s; doing without it", why)

    async def _look_after(self) -> None:
        while True:
            await self._probe()
            if not self._is_up:
                await asyncio.sleep(_PROBE_S)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CHECK_S):
                    await self._went_down.wait()

    async def _probe(self) -> None:
        """Ask Redis how it is, pay what is owed, and go up or down by its answer."""
        self._went_down.clear()
        now = time.monotonic()
        self._owed = {text: end for text, end in self._owed.items() if end > now}
        owed = dict(self._owed)
        pipeline = self._client.pipeline(transaction=False)
        pipeline.info("keyspace")
        if owed:
            pipeline.delete(*owed)
        try:
            async with asyncio.timeout(self._timeout_s):
                answers = await pipeline.execute(raise_on_error=False)
        except Exception as exc:  # as in `_ask`
            self._errors.labels("probe").inc()
            why = self._explain(exc)
            self._go_down(why)
            self._trouble = why
            return
        if owed and isinstance(answers[-1], Exception):
            self._trouble = f"Redis at {self._where} refuses a delete: {_shorten(answers[-1])}"
            return
        for text, end in owed.items():
            if self._owed.get(text) == end:  # else it is owed again since
                del self._owed[text]
        self._note(answers[0])
        if not self._owed and not self._is_up:
            self._is_up = True
            self._trouble = None
            logger.info("Redis at %s answers again", self._where)

    def _note(self, keyspace: Mapping[str, Mapping[str, int]] | Exception) -> None:
        if not isinstance(keyspace, Exception):  # not every user may ask for it
            database = keyspace.get(f"db{self._database}", {})
            self._stored.set(database.get("keys", 0))
            self._endless.set(database.get("keys", 0) - database.get("expires", 0))

    def _explain(self, exc: Exception) -> str:
        if isinstance(exc, AuthenticationError):
            return (
                f"Redis at {self._where} refuses the user or password in [redis] url: "
                f"{_shorten(exc)}"
            )
        if isinstance(exc, TimeoutError):
            return f"Redis at {self._where} has not answered within {self._timeout_s:g} s"
        return f"Redis at {self._where} does not answer: {_shorten(exc)}"


def _make_pool(settings: config.Redis) -> ConnectionPool:
    assert settings.url is not None
    try:
        pool: ConnectionPool = ConnectionPool.from_url(
            settings.url.get_secret_value(),
            max_connections=MAX_CONNECTIONS + 1,  # one for the probe
            # `_ask` has one deadline for all of a command; a time-out here is per step, and each
            # would take a task of its own.
            socket_timeout=None,
            socket_connect_timeout=None,
            retry=Retry(NoBackoff(), 0),
            # RESP 3 would add a question to every connection, and the library's check that a
            # connection has no answer left over from before is off with it.
            protocol=2,
        )
        pool.connection_class(**pool.connection_kwargs)  # only this looks at all of the options
    except (TypeError, ValueError):
        # Without what the library says: it might quote the url, and that may have a password.
        raise ConfigError("[redis] url: an option behind the question mark is wrong") from None
    return pool


def _describe(options: Mapping[str, Any]) -> str:
    """Where a server is, without user and password."""
    return f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"


def _shorten(exc: BaseException) -> str:
    text = " ".join(str(exc).split()).rstrip(".") or type(exc).__name__
    return blot.words(text)
