"""The bench of what is kept: the journal, the database and the cache, all on this machine.

``python -m bench.store`` takes about a minute and prints the table; ``--write`` also writes it to
bench/STORE.md.
"""

import argparse
import asyncio
import logging
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import uvloop
from sqlalchemy import insert

from bench.table import describe_machine, markdown
from mediad import config
from mediad.bus.events import DEFAULT_CUSTOMER, Event, new_event_id
from mediad.cache import open_cache
from mediad.loop_thread import LoopThread
from mediad.metrics import Metrics
from mediad.store import calls, schema
from mediad.store.apply import apply
from mediad.store.database import Database
from mediad.store.engine import make_engine
from mediad.store.journal import Journal
from mediad.store.tables import transcripts
from mediad.store.types import NEVER, utc_now
from mediad.store.writer import Writer
from tests.mariadb import running_mariadb
from tests.redis_server import redis_server
from tests.servers import MissingProgramError

_RESULTS = Path(__file__).with_name("STORE.md")
_TEXT = "I would like to know when my parcel arrives, please."
_CALLS = 50
_SEGMENTS = 20_000
_ROWS = 1_000
_RATE = 500  # segments a second
_READS = 2_000
_DRAIN_S = 120.0


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table."""

    figure: str
    sqlite: str
    mariadb: str
    aim: str = "–"
    is_reached: bool = True


class Times:
    """Durations in seconds, as they were measured."""

    def __init__(self, seconds: Iterable[float]) -> None:
        self._sorted = sorted(seconds)

    def quantile(self, share: float) -> float:
        """Return the duration that this share of all is not above."""
        return self._sorted[min(len(self._sorted) - 1, int(share * len(self._sorted)))]

    def __str__(self) -> str:
        p50, p99 = (1000 * self.quantile(share) for share in (0.5, 0.99))
        return f"p50 {p50:.2f}, p99 {p99:.2f} ms"


class Delays(NamedTuple):
    """What was measured at a steady rate."""

    offer: Times
    """What `Journal.offer` took."""
    commit_s: float
    """A transaction of the journal, on average."""
    row: Times
    """From a fact until its row is visible."""


class Engine(NamedTuple):
    """What was measured with one database."""

    catch_up: float
    """Segments a second, journal to database, while others run."""
    drain: float
    """The same without a pause, as when mediad stops."""
    insert: Times
    """1,000 rows of transcripts, one transaction."""
    batch: Times
    """1,000 segments with their events and numbers, one transaction."""
    read: Times
    """A call by its key, with a connection from the pool."""
    delays: Delays


def main() -> None:
    """Parse the options, measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.store", description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"also write {_RESULTS.name}")
    parser.add_argument("--seconds", type=float, default=20.0, help="at a steady rate (20)")
    options = parser.parse_args()
    # The servers' remarks, such as that they ignore the name of a primary key.
    logging.getLogger("asyncmy").setLevel(logging.ERROR)
    directory = Path(tempfile.mkdtemp(prefix="mediad-bench-"))
    for name in ("sqlite", "mariadb"):
        (directory / name).mkdir()
    try:
        text = uvloop.run(_measure(directory, options.seconds))
    except MissingProgramError as exc:
        sys.exit(f"bench: {exc}")
    except KeyboardInterrupt:
        sys.exit("bench: stopped")
    finally:
        shutil.rmtree(directory)
    print(f"\n{text}")
    if options.write:
        _RESULTS.write_text(text + "\n")
        print(f"\nwritten to {_RESULTS}")


async def _measure(directory: Path, seconds: float) -> str:
    print("SQLite", flush=True)
    sqlite_ = await _measure_engine(directory / "sqlite", None, seconds)
    with running_mariadb() as server:
        print("MariaDB", flush=True)
        # As it is by default; the tests' server saves itself the disk.
        server.execute("SET GLOBAL innodb_flush_log_at_trx_commit = 1")
        mariadb = await _measure_engine(directory / "mariadb", server.new_database(), seconds)
        version = server.execute("SELECT VERSION()")[0][0]
    print("Redis", flush=True)
    cache, redis = await _measure_cache(directory)
    programs = f"MariaDB {version}, SQLite {sqlite3.sqlite_version}, Redis {redis}"
    return _report(_rows(sqlite_, mariadb, cache), programs, seconds)


async def _measure_engine(directory: Path, url: str | None, seconds: float) -> Engine:
    given = {"directory": directory} | ({"url": url} if url else {})
    settings = config.Database.model_validate(given)
    await _migrate(settings)
    return Engine(
        await _catch_up(settings, directory / "catch-up.db", is_draining=False),
        await _catch_up(settings, directory / "drain.db", is_draining=True),
        await _time_inserts(settings),
        await _time_batches(settings),
        await _time_reads(settings),
        await _time_delays(settings, directory / "delay.db", seconds),
    )


async def _migrate(settings: config.Database) -> None:
    engine = make_engine(settings)
    async with engine.connect() as connection:
        await connection.run_sync(schema.upgrade)
    await engine.dispose()


@asynccontextmanager
async def _opened(settings: config.Database) -> AsyncIterator[Database]:
    database = Database(settings, Metrics())
    await database.open()
    try:
        yield database
    finally:
        await database.close()


# Journal to database


async def _catch_up(settings: config.Database, path: Path, *, is_draining: bool) -> float:
    """Return how many segments a second go from a full journal to the database."""
    metrics = Metrics()
    journal = Journal(path, 1 << 30, False, metrics)
    journal.open()
    for fact in _conversation(_SEGMENTS):
        await _until(partial(journal.offer, fact))
    await _until(lambda: not journal.queued)
    async with _opened(settings) as database, asyncio.TaskGroup() as group:
        writer = Writer(journal, database, _keep_copies, lambda _: None, metrics)
        started = time.perf_counter()
        task = group.create_task(writer.run())
        if is_draining:
            await writer.drain(_DRAIN_S)
        await _until(lambda: journal.is_empty)
        seconds = time.perf_counter() - started
        task.cancel()
    journal.close(10.0)
    return _SEGMENTS / seconds


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  # other threads bring it about
        await asyncio.sleep(0.01)


async def _time_delays(settings: config.Database, path: Path, seconds: float) -> Delays:
    """Offer segments at a steady rate on this loop, and write them on another, as mediad does."""
    metrics = Metrics()
    journal = Journal(path, 1 << 30, False, metrics)
    journal.open()
    control = LoopThread("control")
    control.start()
    database = Database(settings, metrics)
    await control.run(database.open())
    delays: list[float] = []

    def announce(event: Event) -> None:  # its row is committed
        delays.append((utc_now() - event.timestamp).total_seconds())

    writer = Writer(journal, database, _keep_copies, announce, metrics)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(control.run(writer.run()))
        offers = await _offer_steadily(journal, int(_RATE * seconds))
        await control.run(writer.drain(10.0))
        task.cancel()
    await control.run(database.close())
    await control.stop()
    journal.close(10.0)
    value = metrics.registry.get_sample_value
    commits = value("mediad_journal_commit_seconds_count") or 1
    spent = value("mediad_journal_commit_seconds_sum") or 0
    # The first second opens connections and compiles statements.
    return Delays(Times(offers), spent / commits, Times(delays[_RATE:]))


async def _offer_steadily(journal: Journal, count: int) -> list[float]:
    transcribe_id = new_event_id()
    offers = []
    started = time.perf_counter()
    for number in range(count):
        await asyncio.sleep(max(0.0, started + number / _RATE - time.perf_counter()))
        fact = _segment("a-call", transcribe_id)
        before = time.perf_counter()
        journal.offer(fact)
        offers.append(time.perf_counter() - before)
    return offers


# The database


async def _time_inserts(settings: config.Database) -> Times:
    async with _opened(settings) as database:

        async def write() -> None:
            now = utc_now()
            row = {
                "customer_id": DEFAULT_CUSTOMER,
                "transcribe_id": new_event_id(),
                "direction": "in",
                "message": _TEXT,
                "tm_transcript": 0,
                "tm_create": now,
                "tm_update": now,
                "tm_delete": NEVER,
            }
            rows = [{"id": new_event_id()} | row for _ in range(_ROWS)]
            async with database.write() as connection:
                await connection.execute(insert(transcripts), rows)

        return await _repeat(write, 20)


async def _time_batches(settings: config.Database) -> Times:
    async with _opened(settings) as database:

        async def write() -> None:
            facts = list(_conversation(_ROWS))
            async with database.write() as connection:
                await apply(connection, facts)

        return await _repeat(write, 20)


async def _time_reads(settings: config.Database) -> Times:
    facts = list(_conversation(0))
    async with _opened(settings) as database:
        async with database.write() as connection:
            await apply(connection, facts)

        async def read() -> None:
            async with database.read() as connection:
                assert await calls.get(connection, DEFAULT_CUSTOMER, facts[0].call_id)

        return await _repeat(read, _READS)


async def _repeat(work: Callable[[], Awaitable[None]], count: int) -> Times:
    """Return how long each run took, after one that does not count."""
    await work()
    times = []
    for _ in range(count):
        started = time.perf_counter()
        await work()
        times.append(time.perf_counter() - started)
    return Times(times)


async def _measure_cache(directory: Path) -> tuple[Times, str]:
    """Return how long a get takes, and Redis's version."""
    async with redis_server(directory) as server:
        settings = config.Redis.model_validate({"url": server.url})
        cache = open_cache(settings, config.Cache(), Metrics())
        key = cache.keys.call("a-call")
        await cache.set(key, b"x" * 1_000)

        async def read() -> None:
            assert await cache.get(key)

        times = await _repeat(read, 10 * _READS)
        await cache.close()
        with server.client() as client:
            version: str = client.info("server")["redis_version"]
        return times, version


# Facts


def _conversation(segments: int) -> Iterable[Event]:
    """Return calls that begin, and what is said on them in turn."""
    talks = [(new_event_id(), new_event_id()) for _ in range(_CALLS)]
    for call_id, transcribe_id in talks:
        parties = {"direction": "inbound", "source": "alice", "destination": "bob"}
        yield Event("call_created", call_id, 0.0, {"status": "in-progress", **parties})
        started = {"transcribe_id": transcribe_id, "language": "und"}
        yield Event("transcribe_started", call_id, 0.0, started)
    for number in range(segments):
        yield _segment(*talks[number % _CALLS])


def _segment(call_id: str, transcribe_id: str) -> Event:
    data = {"transcribe_id": transcribe_id, "direction": "in", "text": _TEXT}
    return Event("transcript_created", call_id, 1.0, data)


async def _keep_copies(_: Iterable[str]) -> None:
    """There is no cache here."""


# The table


def _rows(lite: Engine, maria: Engine, cache: Times) -> list[Row]:
    slowest = max(engine.delays.row.quantile(0.99) for engine in (lite, maria))
    dearest = max(engine.delays.offer.quantile(0.5) for engine in (lite, maria))
    return [
        Row(
            "segments a second, from a full journal",
            f"{lite.catch_up:,.0f}",
            f"{maria.catch_up:,.0f}",
            "5,000 on MariaDB",
            maria.catch_up >= 5_000,
        ),
        Row("the same without pauses", f"{lite.drain:,.0f}", f"{maria.drain:,.0f}"),
        Row(f"a transaction of {_ROWS:,} segments", str(lite.batch), str(maria.batch)),
        Row(f"a transaction of {_ROWS:,} plain rows", str(lite.insert), str(maria.insert)),
        Row("read of a call by its key", str(lite.read), str(maria.read)),
        Row(
            f"fact → row, {_RATE} segments a second",
            str(lite.delays.row),
            str(maria.delays.row),
            "p99 ≤ 100 ms",
            slowest <= 0.1,
        ),
        Row(
            "what a fact costs the call",
            _microseconds(lite.delays.offer),
            _microseconds(maria.delays.offer),
            "p50 < 10 µs",
            dearest < 10e-6,
        ),
        Row(
            "a transaction of the journal, mean",
            f"{1e6 * lite.delays.commit_s:.0f} µs",
            f"{1e6 * maria.delays.commit_s:.0f} µs",
        ),
        Row("get of 1 kB from Redis", "–", str(cache), "p99 < 2 ms", cache.quantile(0.99) < 0.002),
    ]


def _microseconds(times: Times) -> str:
    return f"p50 {1e6 * times.quantile(0.5):.1f}, p99 {1e6 * times.quantile(0.99):.1f} µs"


def _report(rows: Sequence[Row], programs: str, seconds: float) -> str:
    # Here nothing is pinned to a core, and nothing was compiled for the measurement.
    machine = [
        line for line in describe_machine((0, 0)) if not line.startswith(("Cores:", "Compiler:"))
    ]
    return "\n\n".join(
        (
            "# What the store carries",
            "\n".join(f"- {line}" for line in (*machine, programs)),
            "Database, Redis and mediad's parts are on one machine and share its cores. Both "
            "databases sync each commit to the disk (innodb_flush_log_at_trx_commit = 1, "
            f"synchronous = FULL); the journal does not (journal.fsync = false). {_SEGMENTS:,} "
            f"segments from a full journal, {_CALLS} calls; {seconds:.0f} s at a steady rate, of "
            "which the first second does not count. A segment is a row of transcripts and one of "
            "events, with its number.",
            _render(rows),
        )
    )


def _render(rows: Sequence[Row]) -> str:
    cells = [("figure", "SQLite", "MariaDB", "aim")]
    for row in rows:
        judged = row.aim if row.aim == "–" else f"{row.aim}: {'yes' if row.is_reached else 'NO'}"
        cells.append((row.figure, row.sqlite, row.mariadb, judged))
    return markdown(cells)


if __name__ == "__main__":
    main()
