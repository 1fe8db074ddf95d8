"""The writer: safe facts reach the database in order, whatever the database does meanwhile."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from sqlalchemy import select

from mediad import config
from mediad.bus.events import Event
from mediad.metrics import Metrics
from mediad.store import events, writer
from mediad.store.apply import Applied, apply
from mediad.store.database import Database
from mediad.store.journal import Journal
from mediad.store.journal_reader import Reader
from mediad.store.tables import calls, transcripts
from mediad.store.writer import Writer
from tests.facts import CallFacts
from tests.integration.store.conftest import migrate
from tests.mariadb import MariaDb, running_mariadb
from tests.own_stalls import no_longer_than


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def journal(tmp_path: Path, metrics: Metrics) -> Iterator[Journal]:
    journal = Journal(tmp_path / "journal.db", 1 << 30, False, metrics)
    journal.open()
    yield journal
    journal.close(5.0)


class Listener:
    """What the writer tells, in order."""

    def __init__(self) -> None:
        self.told: list[Event | set[str]] = []

    async def invalidate(self, call_ids: Iterable[str]) -> None:
        self.told.append(set(call_ids))

    def announce(self, event: Event) -> None:
        self.told.append(event)

    @property
    def announced(self) -> list[Event]:
        return [event for event in self.told if isinstance(event, Event)]


@asynccontextmanager
async def writing(
    journal: Journal,
    database: Database,
    metrics: Metrics,
    *,
    invalidate: Callable[[Iterable[str]], Awaitable[None]] | None = None,
    announce: Callable[[Event], None] = lambda _: None,
) -> AsyncIterator[Writer]:
    """Run a writer while the block lasts."""
    writer = Writer(journal, database, invalidate or Listener().invalidate, announce, metrics)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(writer.run())
        yield writer
        task.cancel()


def offer(journal: Journal, facts: Iterable[Event]) -> None:
    for fact in facts:
        assert journal.offer(fact)


async def until(condition: Callable[[], object], timeout_s: float = 10.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110  # nobody tells the test
            await asyncio.sleep(0.005)


def longer(items: Sequence[object], by: int = 0) -> Callable[[], bool]:
    """Return whether a list is longer than now."""
    count = len(items) + by
    return lambda: len(items) > count


async def messages(database: Database) -> list[str]:
    """Return the texts, in the order of their events."""
    async with database.read() as connection:
        rows = await connection.execute(select(transcripts.c.id, transcripts.c.message))
        texts = {row.id: row.message for row in rows}
        said = await events.after(connection, "default", 0, 100_000)
    return [texts[event.event_id] for event in said if event.type == "transcript_created"]


async def test_facts_become_rows_and_events_in_order(
    journal: Journal, database: Database, metrics: Metrics
) -> None:
    facts = [fact for _ in range(20) for fact in CallFacts().whole(60)]
    listener = Listener()
    async with writing(
        journal, database, metrics, invalidate=listener.invalidate, announce=listener.announce
    ) as writer:
        offer(journal, facts)
        assert await writer.drain(60.0)
    announced = listener.announced
    assert [event.event_id for event in announced] == [fact.event_id for fact in facts]
    assert [event.sequence for event in announced] == list(range(1, len(facts) + 1))
    async with database.read() as connection:
        assert await events.after(connection, "default", 0, 10_000) == announced


async def test_row_is_there_before_copies_are_dropped_and_events_are_told(
    journal: Journal, database: Database, metrics: Metrics
) -> None:
    listener = Listener()
    seen: list[str] = []

    async def invalidate(call_ids: Iterable[str]) -> None:
        await listener.invalidate(call_ids)
        async with database.read() as connection:
            seen.extend((await connection.execute(select(calls.c.id))).scalars())

    call = CallFacts()
    async with writing(
        journal, database, metrics, invalidate=invalidate, announce=listener.announce
    ) as writer:
        offer(journal, call.whole(1))
        assert await writer.drain(5.0)
    assert seen[0] == call.call_id
    assert listener.told[0] == {call.call_id}
    assert len(listener.announced) == 5


async def test_fact_is_visible_soon(journal: Journal, database: Database, metrics: Metrics) -> None:
    announced: list[float] = []
    async with writing(
        journal, database, metrics, announce=lambda _: announced.append(time.monotonic())
    ) as writer:
        offer(journal, [CallFacts().digit()])  # the first one also opens connections
        assert await writer.drain(5.0)
        for _ in range(5):
            await asyncio.sleep(0.05)
            started, is_announced = time.monotonic(), longer(announced)
            async with no_longer_than(0.5):  # in truth about 0.03; here are other programs
                offer(journal, [CallFacts().digit()])
                await until(is_announced)
            assert announced[-1] >= started


async def test_what_the_journal_had_before_is_written(
    journal: Journal, database: Database, metrics: Metrics
) -> None:
    offer(journal, CallFacts().whole(3))
    await until(lambda: journal.depth == 7)
    async with writing(journal, database, metrics) as writer:
        assert await writer.drain(5.0)
    assert len(await messages(database)) == 3


async def test_writer_that_is_stopped_anywhere_loses_and_repeats_nothing(
    journal: Journal, database: Database, tmp_path: Path
) -> None:
    facts = [fact for _ in range(40) for fact in CallFacts().whole(20)]
    announced: list[Event] = []
    offer(journal, facts)
    for number in range(12):
        async with writing(journal, database, Metrics(), announce=announced.append):
            await asyncio.sleep(0.02 + number * 0.004)
    async with writing(journal, database, Metrics(), announce=announced.append) as writer:
        assert await writer.drain(60.0)
    async with database.read() as connection:
        kept = await events.after(connection, "default", 0, 10_000)
    assert [event.event_id for event in kept] == [fact.event_id for fact in facts]
    assert len({event.event_id for event in announced}) == len(announced)


# Facts that the database refuses


def strange(database_url: object) -> Event:
    """Return a fact that cannot be written: no column is that long, and no fact of that type."""
    return CallFacts("x" * 100).digit() if database_url else CallFacts().fact("unheard_of")


@pytest.mark.parametrize("place", [0, 3, 499, 1000])
async def test_refused_fact_is_put_aside_and_others_are_written(
    journal: Journal, database: Database, settings: config.Database, metrics: Metrics, place: int
) -> None:
    call = CallFacts()
    facts = [call.said(str(number)) for number in range(1000)]
    bad = strange(settings.url)
    async with writing(journal, database, metrics) as writer:
        offer(journal, [*facts[:place], bad, *facts[place:]])
        assert await writer.drain(60.0)
        assert writer.problem is None
        assert writer.rejected == 1
    assert await messages(database) == [str(number) for number in range(1000)]
    with closing(Reader(journal.path)) as reader:
        (rejected,) = reader.summary().rejected
    assert rejected.position == place + 1
    assert "DataError" in rejected.reason if settings.url else "unheard_of" in rejected.reason
    assert metrics.registry.get_sample_value("mediad_writer_rejected_facts_total") == 1


async def test_refused_fact_alone_is_put_aside(
    journal: Journal, database: Database, settings: config.Database, metrics: Metrics
) -> None:
    async with writing(journal, database, metrics) as writer:
        offer(journal, [strange(settings.url)])
        assert await writer.drain(5.0)
        assert writer.rejected == 1


class Moody:
    """An `apply` that fails in a way nobody foresaw."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.refused: set[str] | None = None
        """Event ids; None is all."""
        monkeypatch.setattr(writer, "apply", self._apply)

    async def _apply(self, connection: object, facts: Sequence[Event]) -> Applied:
        if self.refused is None or any(fact.event_id in self.refused for fact in facts):
            raise RuntimeError("out of order")
        return await apply(connection, facts)  # type: ignore[arg-type]


async def test_nothing_is_put_aside_while_the_database_takes_nothing(
    journal: Journal, database: Database, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    moody = Moody(monkeypatch)
    facts = CallFacts().whole(10)
    async with writing(journal, database, metrics) as writer:
        offer(journal, facts)
        await until(lambda: writer.problem)
        assert writer.problem is not None
        assert "out of order" in writer.problem
        assert writer.rejected == 0
        moody.refused = {facts[3].event_id}
        assert await writer.drain(5.0)
        assert writer.rejected == 1
    assert writer.problem is None
    assert len(await messages(database)) == 9


# What follows a transaction


async def test_cache_that_fails_does_not_stop_the_writing(
    journal: Journal,
    database: Database,
    metrics: Metrics,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def invalidate(_: Iterable[str]) -> None:
        raise OSError("no cache")

    listener = Listener()
    async with writing(
        journal, database, metrics, invalidate=invalidate, announce=listener.announce
    ) as writer:
        offer(journal, CallFacts().whole())
        assert await writer.drain(5.0)
    assert len(listener.announced) == 7
    assert "cached calls could not be dropped" in caplog.text


@pytest.mark.parametrize(("failures", "missed"), [(1, 0), (4, 0), (5, 1)])
async def test_event_that_cannot_be_announced_is_tried_again_before_the_next(
    journal: Journal,
    database: Database,
    metrics: Metrics,
    monkeypatch: pytest.MonkeyPatch,
    failures: int,
    missed: int,
) -> None:
    monkeypatch.setattr(writer, "_ANNOUNCE_RETRY_S", 0.01)
    announced: list[Event] = []
    tries = iter(range(100))

    def announce(event: Event) -> None:
        if len(announced) == 2 and next(tries) < failures:
            raise OSError("no bus")
        announced.append(event)

    facts = CallFacts().whole()
    async with writing(journal, database, metrics, announce=announce):
        offer(journal, facts)
        await until(lambda: len(announced) == len(facts) - missed)
    expected = [fact.event_id for fact in facts]
    if missed:
        del expected[2]
    assert [event.event_id for event in announced] == expected


# A database that is away


async def test_draining_ends_in_time_when_the_database_is_away(
    journal: Journal, metrics: Metrics, tmp_path: Path
) -> None:
    url = {"url": "mysql://nobody@127.0.0.1:1/nothing", "directory": tmp_path}
    database = Database(config.Database.model_validate(url), metrics)
    async with writing(journal, database, metrics) as writer:
        offer(journal, CallFacts().whole())
        async with no_longer_than(2):
            assert not await writer.drain(0.5)
        assert writer.problem is not None
    await database.close()
    assert journal.depth == 7


async def test_server_that_dies_and_comes_back_under_load_misses_nothing(
    journal: Journal, metrics: Metrics, mariadb: MariaDb
) -> None:
    assert mariadb  # there is one; this test stops one of its own
    with running_mariadb() as server:
        settings = config.Database.model_validate({"url": server.new_database()})
        migrate(settings)
        database = Database(settings, metrics)
        announced: list[Event] = []
        call = CallFacts()
        said: list[str] = []

        async def talk() -> None:
            while True:
                said.append(str(len(said)))
                assert journal.offer(call.said(said[-1]))
                await asyncio.sleep(0.002)

        async with (
            writing(journal, database, metrics, announce=announced.append) as writer,
            asyncio.TaskGroup() as group,
        ):
            talking = group.create_task(talk())
            await until(lambda: len(announced) > 50, 10.0)
            for end in (server.kill, server.stop, server.pause):
                await asyncio.to_thread(end)
                await until(lambda: journal.depth > 100 and journal.oldest_s > 0.3, 10.0)
                restart = server.resume if end == server.pause else server.start
                await asyncio.to_thread(restart)
                await until(longer(announced, 50), 20.0)
            talking.cancel()
            assert await writer.drain(20.0)
            assert writer.problem is None
        assert await messages(database) == said
        assert [event.sequence for event in announced] == list(range(1, len(said) + 1))
        await database.close()
