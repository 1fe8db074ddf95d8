"""Durable events: numbered without gaps, and a reader that resumes misses none."""

import asyncio
import random
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from mediad.bus.events import Event
from mediad.store import events
from mediad.store.database import Database

WRITERS = 16
BATCHES = 15
CUSTOMERS = ("a", "b", "default")


def event(customer_id: str = "default", text: str = "") -> Event:
    timestamp = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    data = {"text": text, "direction": "in"}
    return replace(
        Event("transcript_created", "call-1", 1.2345, data),
        customer_id=customer_id,
        timestamp=timestamp,
    )


async def append(database: Database, *facts: Event) -> list[Event]:
    async with database.write() as connection:
        return await events.append(connection, facts)


async def read(database: Database, customer_id: str, after: int, limit: int = 100) -> list[Event]:
    async with database.read() as connection:
        return await events.after(connection, customer_id, after, limit)


async def test_events_come_back_as_they_were(database: Database) -> None:
    first, second = event(text="Grüße 👩🏽‍🚀"), event()
    numbered = await append(database, first, second)
    assert numbered == [replace(first, sequence=1), replace(second, sequence=2)]
    assert await read(database, "default", 0) == numbered


async def test_each_customer_has_its_own_numbers(database: Database) -> None:
    numbered = await append(database, event("a"), event("b"), event("a"))
    assert [(e.customer_id, e.sequence) for e in numbered] == [("a", 1), ("b", 1), ("a", 2)]
    assert [e.sequence for e in await read(database, "a", 0)] == [1, 2]
    assert await read(database, "c", 0) == []


async def test_an_event_that_is_there_already_is_left_out(database: Database) -> None:
    facts = [event() for _ in range(3)]
    await append(database, facts[0], facts[1])
    numbered = await append(database, *facts, facts[2])
    assert [(e.event_id, e.sequence) for e in numbered] == [(facts[2].event_id, 3)]
    assert [e.event_id for e in await read(database, "default", 0)] == [e.event_id for e in facts]
    assert await append(database, *facts) == []
    assert await append(database) == []


async def test_numbers_of_a_transaction_that_fails_are_given_again(database: Database) -> None:
    async def fail() -> None:
        async with database.write() as connection:
            await events.append(connection, [event()])
            raise KeyError

    await append(database, event())
    with pytest.raises(KeyError):
        await fail()
    assert [e.sequence for e in await append(database, event())] == [2]


async def test_a_reader_takes_as_many_as_it_wants(database: Database) -> None:
    numbered = await append(database, *(event() for _ in range(5)))
    assert await read(database, "default", 1, limit=2) == numbered[1:3]


async def test_the_same_events_by_two_writers_at_once_are_there_once(database: Database) -> None:
    facts = [event(customer_id) for customer_id in CUSTOMERS for _ in range(20)]
    told = await asyncio.gather(*(append(database, *facts) for _ in range(4)))
    assert sorted(len(numbered) for numbered in told) == [0, 0, 0, len(facts)]
    for customer_id in CUSTOMERS:
        assert [e.sequence for e in await read(database, customer_id, 0)] == list(range(1, 21))


async def test_sixteen_writers_and_a_reader_that_resumes(database: Database) -> None:
    """Nothing is missed and there is no gap, whichever writer commits first."""
    written: dict[str, set[str]] = defaultdict(set)
    chance = random.Random(4)

    async def write() -> None:
        for _ in range(BATCHES):
            facts = [event(chance.choice(CUSTOMERS)) for _ in range(chance.randint(1, 5))]
            async with database.write() as connection:
                numbered = await events.append(connection, facts)
                await asyncio.sleep(chance.uniform(0, 0.002))  # and then they commit, in any order
            for e in numbered:
                written[e.customer_id].add(e.event_id)

    async def resume(customer_id: str) -> tuple[list[Event], int]:
        seen: list[Event] = []
        resumed = 0
        while resumed < 200 or not writers.done():
            seen += await read(database, customer_id, seen[-1].sequence or 0 if seen else 0, 3)
            resumed += 1
            await asyncio.sleep(0.001)
        while more := await read(database, customer_id, seen[-1].sequence or 0 if seen else 0):
            seen += more
        return seen, resumed

    writers = asyncio.gather(*(write() for _ in range(WRITERS)))
    readers = [await reader for reader in [asyncio.create_task(resume(c)) for c in CUSTOMERS]]
    await writers
    assert sum(len(ids) for ids in written.values()) >= WRITERS * BATCHES
    for customer_id, (seen, resumed) in zip(CUSTOMERS, readers, strict=True):
        assert resumed >= 200
        assert [e.sequence for e in seen] == list(range(1, len(seen) + 1))
        assert {e.event_id for e in seen} == written[customer_id]
