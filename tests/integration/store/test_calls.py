"""Calls, what was said on them, and recordings, as they are listed and read."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import insert, update

from mediad.store import calls, recordings, tables, transcribes, transcripts
from mediad.store.calls import CallFilter
from mediad.store.database import Database
from mediad.store.types import new_id

START = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
ALICE, BOB, CAROL = "+4930111", "+4930222", "+4930333"


def times(second: int) -> dict[str, datetime]:
    at = START + timedelta(seconds=second)
    return {"tm_create": at, "tm_update": at}


async def add_call(database: Database, second: int, customer_id: str = "c1", **others: Any) -> str:
    """Insert a call; later ones have higher seconds."""
    row = {"id": f"call-{second}", "customer_id": customer_id, "status": "completed"}
    row |= {"direction": "inbound", "source": ALICE, "destination": BOB, **others}
    async with database.write() as connection:
        values = row | times(second) | {"tm_start": times(second)["tm_create"]}
        await connection.execute(insert(tables.calls).values(values))
    return str(row["id"])


async def listed(database: Database, customer_id: str = "c1", **which: Any) -> list[str]:
    """Return the ids of a list, put together from pages of two."""
    ids, token = [], None
    while True:
        async with database.read() as connection:
            page = await calls.list_calls(
                connection, customer_id, CallFilter(**which), token=token, limit=2
            )
        ids += [call.id for call in page.items]
        if page.next_token is None:
            return ids
        token = page.next_token


async def test_a_call_is_read_as_it_was_written(database: Database) -> None:
    others: dict[str, Any] = {
        "tm_hangup": START + timedelta(seconds=61.5),
        "duration_ms": 61_500,
        "hangup_by": "caller",
        "hangup_cause": "normal_clearing",
        "agent_config": {"prompt": "Grüße 🍣"},
        "counters": {"underruns": 0},
        "cost": {"stt": 0.01, "total": 0.01},
        "metadata": {"a": [1, None, "x"]},
        "error": None,
    }
    call_id = await add_call(database, 1, **others)
    async with database.read() as connection:
        call = await calls.get(connection, "c1", call_id)
        assert await calls.get(connection, "c2", call_id) is None
        assert await calls.get(connection, "c1", "call-2") is None
    assert call is not None
    assert call.model_dump(include=set(others)) == others
    assert call.tm_start == START + timedelta(seconds=1)
    assert calls.Call.model_validate_json(call.model_dump_json()) == call


async def test_calls_are_listed_newest_first(database: Database) -> None:
    ids = [await add_call(database, second) for second in range(5)]
    await add_call(database, 9, customer_id="c2")
    assert await listed(database) == ids[::-1]


async def test_lists_of_some_calls(database: Database) -> None:
    await add_call(database, 1, agent_id="agent-1")
    await add_call(database, 2, status="failed")
    await add_call(database, 3, direction="outbound", source=BOB, destination=ALICE)
    await add_call(database, 4, source=CAROL, status="failed")
    await add_call(database, 5, source=BOB, destination=BOB)
    at = START + timedelta(seconds=3)
    for which, seconds in (
        ({"status": "failed"}, [4, 2]),
        ({"status": "busy"}, []),
        ({"direction": "outbound"}, [3]),
        ({"direction": "inbound", "status": "failed"}, [4, 2]),
        ({"agent_id": "agent-1"}, [1]),
        ({"since": at}, [5, 4, 3]),
        ({"until": at}, [2, 1]),
        ({"since": at, "until": at + timedelta(seconds=1)}, [3]),
        ({"number": ALICE}, [3, 2, 1]),
        ({"number": BOB}, [5, 4, 3, 2, 1]),
        ({"number": CAROL}, [4]),
        ({"number": BOB, "status": "failed", "since": at}, [4]),
        ({"number": "+1"}, []),
    ):
        assert await listed(database, **which) == [f"call-{second}" for second in seconds]
    assert await listed(database, "c2") == []


async def test_a_deleted_call_is_in_no_list(database: Database) -> None:
    call_id = await add_call(database, 1)
    async with database.write() as connection:
        await connection.execute(
            update(tables.calls)
            .where(tables.calls.c.id == call_id)
            .values(tm_delete=START + timedelta(days=1))
        )
        assert await calls.get(connection, "c1", call_id) is None
    assert await listed(database) == []
    assert await listed(database, number=ALICE) == []


# Transcripts


async def add_transcribe(database: Database, call_id: str, customer_id: str = "c1") -> str:
    transcribe_id = new_id()
    row = {"id": transcribe_id, "customer_id": customer_id, "status": "running"}
    row |= {"reference_type": "call", "reference_id": call_id, "language": "en-US"}
    async with database.write() as connection:
        await connection.execute(insert(tables.transcribes).values(row | times(0)))
    return transcribe_id


async def add_segments(database: Database, transcribe_id: str, *offsets_us: int) -> None:
    rows = [
        {"id": new_id(), "customer_id": "c1", "transcribe_id": transcribe_id, **times(0)}
        | {"direction": "in" if offset % 2 else "out", "message": f"🍣 {offset}"}
        | {"tm_transcript": offset}
        for offset in offsets_us
    ]
    async with database.write() as connection:
        await connection.execute(insert(tables.transcripts), rows)


async def test_what_was_said_is_listed_in_its_order(database: Database) -> None:
    first = await add_transcribe(database, "call-1")
    second = await add_transcribe(database, "call-1")
    await add_segments(database, first, 30, 10, 20, 20)
    await add_segments(database, second, 25, 5)
    await add_segments(database, await add_transcribe(database, "call-2"), 1)
    said, token = [], None
    while True:
        async with database.read() as connection:
            page = await transcripts.list_of_call(connection, "c1", "call-1", token=token, limit=2)
        said += page.items
        if page.next_token is None:
            break
        token = page.next_token
    assert [segment.tm_transcript for segment in said] == [5, 10, 20, 20, 25, 30]
    assert transcripts.text(said[:2]) == "User: 🍣 5\nAgent: 🍣 10"
    async with database.read() as connection:
        assert await transcripts.get(connection, "c1", said[0].id) == said[0]
        assert await transcripts.get(connection, "c2", said[0].id) is None
        for customer_id, call_id in (("c2", "call-1"), ("c1", "call-3")):
            nothing = await transcripts.list_of_call(connection, customer_id, call_id)
            assert (nothing.items, nothing.next_token) == ([], None)


async def test_a_token_of_another_list_is_refused_or_harmless(database: Database) -> None:
    await add_call(database, 1)
    await add_call(database, 2)
    async with database.read() as connection:
        token = (await calls.list_calls(connection, "c1", limit=1)).next_token
        assert token is not None
        assert (await transcripts.list_of_call(connection, "c1", "x", token=token)).items == []
        with pytest.raises(ValueError, match="page token"):
            await transcripts.list_of_call(connection, "c1", "x", token=token[:-3] + "!")


async def test_transcribes(database: Database) -> None:
    ids = {await add_transcribe(database, "call-1"), await add_transcribe(database, "call-1")}
    other = await add_transcribe(database, "call-2")
    async with database.read() as connection:
        of_call = await transcribes.list_transcribes(connection, "c1", call_id="call-1")
        assert {transcribe.id for transcribe in of_call.items} == ids
        assert len((await transcribes.list_transcribes(connection, "c1")).items) == 3
        read = await transcribes.get(connection, "c1", other)
        assert read is not None
        assert (read.reference_id, read.status, read.language) == ("call-2", "running", "en-US")
        assert await transcribes.get(connection, "c2", other) is None


async def test_recordings(database: Database) -> None:
    row = {"id": "r1", "customer_id": "c1", "status": "running", "call_id": "call-1"}
    row |= {"format": "wav", "path": "/var/lib/mediad/ä 🍣.wav"}
    async with database.write() as connection:
        await connection.execute(insert(tables.recordings).values(row | times(0)))
        read = await recordings.get(connection, "c1", "r1")
        assert read is not None
        assert read.model_dump(include=set(row)) == row
        assert await recordings.get(connection, "c2", "r1") is None
        assert (await recordings.list_recordings(connection, "c1")).items == [read]
        of_call = await recordings.list_recordings(connection, "c1", call_id="call-1")
        assert of_call.items == [read]
        assert (await recordings.list_recordings(connection, "c1", call_id="x")).items == []
