"""Facts become rows: the same ones however they are cut into batches, and come again."""

import asyncio
import random
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from mediad import config
from mediad.bus.events import Event
from mediad.metrics import Metrics
from mediad.store import agents, tables
from mediad.store.agents import AgentConfig, AgentFields
from mediad.store.apply import Applied, apply
from mediad.store.audit import MEDIAD
from mediad.store.database import Database
from tests.facts import CallFacts

_SHOWN = ("calls", "transcribes", "transcripts", "recordings", "events", "event_sequences")

Rows = dict[str, list[dict[str, Any]]]


async def write(database: Database, facts: Sequence[Event]) -> Applied:
    async with database.write() as connection:
        return await apply(connection, facts)


async def dump(database: Database) -> Rows:
    """Return what is in the tables, without what differs from one time to the next."""
    rows: Rows = {}
    async with database.read() as connection:
        for name in _SHOWN:
            table = tables.metadata.tables[name]
            query = select(table).order_by(*table.primary_key)
            rows[name] = [dict(row) for row in (await connection.execute(query)).mappings()]
        counts = select(tables.customers.c.id, tables.customers.c.total_calls)
        rows["customers"] = [dict(row) for row in (await connection.execute(counts)).mappings()]
        names = ("resource_id", "sequence", "before_state", "after_state", "changed_fields")
        audits = select(*(tables.audit_logs.c[name] for name in names))
        rows["audits"] = [dict(row) for row in (await connection.execute(audits)).mappings()]
    return rows


@asynccontextmanager
async def embedded(directory: Path) -> AsyncIterator[Database]:
    database = Database(config.Database(directory=directory), Metrics())
    await database.open()
    try:
        yield database
    finally:
        await database.close()


async def test_call_is_in_the_tables(database: Database) -> None:
    call = CallFacts()
    facts = [call.created("ringing"), call.updated("in-progress"), call.started()]
    facts += [call.said("hello 🙂"), call.said("hi", "out"), call.recording(), call.recorded()]
    facts += [call.digit(), call.done(), call.hungup()]
    applied = await write(database, facts)
    assert [event.sequence for event in applied.events] == list(range(1, 11))
    assert applied.call_ids == {call.call_id}
    rows = await dump(database)
    (row,) = rows["calls"]
    assert (row["status"], row["hangup_by"], row["counters"]) == (
        "completed",
        "caller",
        {"frames": 3},
    )
    assert (row["tm_start"], row["tm_answer"]) == (facts[0].timestamp, facts[1].timestamp)
    assert sorted(row["message"] for row in rows["transcripts"]) == ["hello 🙂", "hi"]
    assert [row["status"] for row in rows["transcribes"]] == ["completed"]
    assert [(row["status"], row["size_bytes"]) for row in rows["recordings"]] == [
        ("completed", 24_044)
    ]
    assert rows["customers"] == [{"id": "default", "total_calls": 1}]


async def test_batch_that_comes_again_changes_nothing(database: Database) -> None:
    facts = [*CallFacts().whole(), *CallFacts().whole()]
    await write(database, facts)
    rows = await dump(database)
    for again in (facts, facts[:5], facts[3:9], facts + facts):
        applied = await write(database, again)
        assert applied == Applied([], set())
        assert await dump(database) == rows


async def test_call_moves_on_in_later_batches(database: Database) -> None:
    call = CallFacts()
    created, updated = call.created("initiated"), call.updated("in-progress")
    started, done, hungup = call.started(), call.done(), call.hungup("failed")
    for fact in (created, updated, started, done, hungup):
        await write(database, [fact])
    await write(database, [call.updated("in-progress"), call.hungup("completed")])
    rows = await dump(database)
    (row,) = rows["calls"]
    assert (row["status"], row["tm_answer"]) == ("failed", updated.timestamp)
    assert [row["status"] for row in rows["transcribes"]] == ["completed"]
    assert len(rows["events"]) == 5


async def test_recovered_call_is_in_the_audit_log(database: Database) -> None:
    call = CallFacts()
    await write(database, [call.created()])
    end = call.hungup("failed", "recovery_on_timer_expiry")
    for _ in range(2):
        await write(database, [end])
    rows = await dump(database)
    assert rows["audits"] == [
        {
            "resource_id": call.call_id,
            "sequence": 1,
            "before_state": {"status": "in-progress"},
            "after_state": {"status": "failed"},
            "changed_fields": ["status"],
        }
    ]


async def test_ended_calls_are_counted_for_their_agent_once(database: Database) -> None:
    fields = AgentFields(name="a", config=AgentConfig(prompt="You are helpful."))
    async with database.write() as connection:
        ours = (await agents.create(connection, "ours", fields, MEDIAD)).id
    batches = []
    for customer_id, status in (("ours", "completed"), ("ours", "failed"), ("other", "completed")):
        call = CallFacts(customer_id=customer_id)
        batches += [[call.created("ringing", agent_id=ours)], [call.digit(), call.hungup(status)]]
    for batch in batches + batches:
        await write(database, batch)
    async with database.read() as connection:
        agent = await agents.get(connection, "ours", ours)
    assert agent is not None
    assert (agent.total_calls, agent.completed_calls) == (2, 1)
    assert agent.total_duration_ms == 4_000


async def test_customers_have_numbers_of_their_own(database: Database) -> None:
    facts = [fact for name in "ab" for fact in CallFacts(customer_id=name).whole()]
    random.Random(1).shuffle(facts)
    applied = await write(database, facts)
    for name in "ab":
        ours = [event.sequence for event in applied.events if event.customer_id == name]
        assert ours == list(range(1, len(ours) + 1))


async def test_refused_fact_leaves_nothing_behind(database: Database) -> None:
    call = CallFacts()
    before = await dump(database)
    with pytest.raises(KeyError):
        await write(database, [*call.whole(), call.fact("unheard_of")])
    assert await dump(database) == before


def made_up(rng: random.Random) -> list[Event]:
    """Return facts of some calls, each call's in order, and some that should not be there."""
    calls = [_facts_of(number, rng) for number in range(rng.randint(1, 3))]
    mixed = []
    while any(calls):
        mixed.append(rng.choice([facts for facts in calls if facts]).pop(0))
    return mixed


def _facts_of(number: int, rng: random.Random) -> list[Event]:
    call = CallFacts(f"call-{number}", rng.choice(["default", "other"]))
    call.transcribe_id, call.recording_id = f"transcribe-{number}", f"recording-{number}"
    statuses = ["initiated", "ringing", "in-progress"]
    causes = ["normal_clearing", "recovery_on_timer_expiry"]
    facts = [call.created(rng.choice(statuses))] if rng.random() < 0.9 else []
    begun = [call.started, call.done, call.recording, call.recorded]  # in this order, each once
    for _ in range(rng.randint(0, 12)):
        match rng.randint(0, 9):
            case 0 | 1:
                facts.append(call.updated(rng.choice(statuses)))
            case 2:
                facts.append(call.hungup(rng.choice(["completed", "failed"]), rng.choice(causes)))
            case 3 | 4 | 5 if begun:
                facts.append(begun.pop(0)())
            case 6:
                facts.append(call.digit())
            case _:
                facts.append(call.said("words"))
    return facts


@settings(max_examples=25, deadline=None)
@given(rng=st.randoms(use_true_random=False))
def test_cuts_and_repetitions_make_no_difference(
    sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory, rng: random.Random
) -> None:
    directory = tmp_path_factory.mktemp("rows")
    facts = made_up(rng)

    async def rows_of(batches: Sequence[Sequence[Event]]) -> Rows:
        shutil.copy(sqlite_file, directory)
        async with embedded(directory) as database:
            for batch in batches:
                await write(database, batch)
            return await dump(database)

    batches = []
    end = 0
    while end < len(facts):
        start, end = end, end + rng.randint(1, 6)
        batches.append(facts[start:end])
        if rng.random() < 0.5:
            again = rng.randrange(end)
            batches.append(facts[again : rng.randint(again, end)])
    assert asyncio.run(rows_of(batches)) == asyncio.run(rows_of([facts]))
