"""Lists and look-ups go by an index: EXPLAIN says so, on 100,000 calls, segments and events."""

import hashlib
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import uvloop
from sqlalchemy import (
    ColumnElement,
    Integer,
    String,
    Table,
    case,
    cast,
    column,
    event,
    func,
    insert,
    literal,
    literal_column,
    select,
    table,
    text,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from mediad import config
from mediad.store import (
    audit,
    calls,
    events,
    numbers,
    recordings,
    tables,
    transcribes,
    transcripts,
)
from mediad.store.audit import EntryFilter
from mediad.store.calls import CallFilter
from mediad.store.engine import make_engine
from mediad.store.pages import Position
from mediad.store.types import NEVER
from tests.integration.store.conftest import migrate
from tests.mariadb import MariaDb

ROWS = 100_000
CUSTOMERS = 20
START = datetime(2026, 1, 1, tzinfo=UTC)
MIDDLE = START + timedelta(seconds=ROWS // 2)
TOKEN = Position.at(MIDDLE, "m").token()
OWNER = "customer-7"
SEVENTH = hashlib.md5(b"7").hexdigest()  # an id in MariaDB, which does not plan for what is missing
FEW = dict.fromkeys(
    (tables.transcribes, tables.recordings, tables.numbers, tables.audit_logs), 2_000
)
SEEDED = {tables.calls: ROWS, tables.transcripts: ROWS, tables.events: ROWS} | FEW

N = column("n", Integer)
COUNTED = table("counted", N)
_DIGITS = " UNION ALL ".join(f"SELECT {digit} d" for digit in range(10))
COUNT = (
    "INSERT INTO counted SELECT a.d + 10 * b.d + 100 * c.d + 1000 * e.d + 10000 * f.d FROM "
    + ", ".join(f"({_DIGITS}) {name}" for name in "abcef")
)

Query = Callable[[AsyncConnection], Awaitable[object]]
R = pytest.param


def named(name: str, n: ColumnElement[int] = N) -> ColumnElement[str]:
    return literal(name).concat(cast(n, String(20)))


def row(table: Table, is_sqlite: bool) -> dict[str, ColumnElement[Any]]:
    """Return what the columns of row number N have, for the database to work out."""
    if is_sqlite:
        time = f"strftime('%Y-%m-%d %H:%M:%f000', n + {START.timestamp():.0f}, 'unixepoch')"
    else:
        time = f"TIMESTAMPADD(SECOND, n, '{START:%Y-%m-%d}')"
    at: ColumnElement[Any] = literal_column(time)
    values: dict[str, ColumnElement[Any]] = {
        # In no order, as ids are.
        "id": func.hex(func.randomblob(16)) if is_sqlite else func.md5(N),
        "customer_id": named("customer-", N % CUSTOMERS),
        "name": literal(""),
        "detail": literal(""),
        "status": case((N % 10 == 0, "failed"), else_="completed"),
        "direction": case((N % 4 == 3, "outbound"), else_="inbound"),
        "source": named("+4930", N % 997),
        "destination": named("+4930", N % 499),
        "number": named("+49", N),
        "agent_id": named("agent-", N % 110),
        "reference_type": literal("call"),
        "reference_id": named("call-"),
        "call_id": named("call-", N % 2000),
        "transcribe_id": named("transcribe-", N % 2000),
        "language": literal("en-US"),
        "format": literal("wav"),
        "path": literal("/tmp/a.wav"),
        "message": literal("some words"),
        "tm_transcript": N,
        "sequence": N,
        "action": literal("update"),
        "resource_type": literal("agent"),
        "resource_id": named("agent-", N % 110),
        "actor_id": named("key-", N % 30),
        "type": literal("call_created"),
        "offset_us": N,
        "data": literal_column("'{}'"),
        "tm_start": at,
        "tm_create": at,
        "tm_update": at,
        "tm_delete": literal(NEVER, tables.calls.c.tm_delete.type),
    }
    if table is tables.transcribes:
        values["id"] = named("transcribe-")
    return {name: value for name, value in values.items() if name in table.c}


async def seed(connection: AsyncConnection) -> None:
    is_sqlite = connection.dialect.name == "sqlite"
    await connection.execute(text("CREATE TEMPORARY TABLE counted (n INTEGER PRIMARY KEY)"))
    await connection.execute(text(COUNT))
    await connection.execute(text("BEGIN"))
    for seeded, count in SEEDED.items():
        values = row(seeded, is_sqlite)
        rows = select(*values.values()).select_from(COUNTED).where(count > N)
        await connection.execute(insert(seeded).from_select(list(values), rows, False))
    await connection.execute(text("COMMIT"))
    names = ", ".join(seeded.name for seeded in SEEDED)
    await connection.execute(text("ANALYZE" if is_sqlite else f"ANALYZE TABLE {names}"))


@pytest.fixture(scope="module", params=["sqlite", "mariadb"])
def seeded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> config.Database:
    """A database with many rows."""
    if request.param == "sqlite":
        settings = config.Database(directory=tmp_path_factory.mktemp("seeded"))
    else:
        server: MariaDb = request.getfixturevalue("mariadb")
        settings = config.Database.model_validate({"url": server.new_database()})
    migrate(settings)

    async def fill() -> None:
        engine = make_engine(settings)
        async with engine.connect() as connection:
            await seed(connection)
        await engine.dispose()

    with ThreadPoolExecutor(1) as pool:  # a fixture must not touch the test's loop
        pool.submit(uvloop.run, fill()).result()
    return settings


@dataclass(frozen=True, slots=True)
class Step:
    """A part of a plan, as one of the engines tells it."""

    index: str | None
    is_scan: bool
    is_sort: bool


@contextmanager
def recorded(connection: AsyncConnection) -> Iterator[list[tuple[str, Any]]]:
    """Record the statements that a query sends."""
    statements: list[tuple[str, Any]] = []

    def record(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        statements.append((statement, parameters))

    engine = connection.engine.sync_engine
    event.listen(engine, "before_cursor_execute", record)
    try:
        yield statements
    finally:
        event.remove(engine, "before_cursor_execute", record)


async def explain(connection: AsyncConnection, query: Query) -> list[Step]:
    """Return the plans of all statements of a query."""
    with recorded(connection) as statements:
        await query(connection)
    steps = []
    for statement, parameters in statements:
        if connection.dialect.name == "sqlite":
            result = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            steps += [_sqlite_step(line.detail) for line in result]
        else:
            result = await connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)
            steps += [_mariadb_step(dict(line)) for line in result.mappings()]
    return steps


def _sqlite_step(detail: str) -> Step:
    _, uses, index = detail.partition("INDEX ")
    is_scan = detail.startswith("SCAN ") and not uses
    return Step(index.split()[0] if uses else None, is_scan, "TEMP B-TREE" in detail)


def _mariadb_step(line: dict[str, Any]) -> Step:
    extra = line["Extra"] or ""
    is_scan = line["type"] in ("ALL", "index") and not str(line["table"]).startswith("<")
    return Step(line["key"], is_scan, "filesort" in extra or "temporary" in extra)


def list_calls(token: str | None = None, **which: Any) -> Query:
    return lambda connection: calls.list_calls(connection, OWNER, CallFilter(**which), token=token)


def list_entries(**which: Any) -> Query:
    return lambda connection: audit.list_entries(connection, OWNER, EntryFilter(**which))


def of_call(token: str | None = None) -> Query:
    return lambda connection: transcripts.list_of_call(connection, OWNER, "call-7", token=token)


@pytest.mark.parametrize(
    ("query", "indexes"),
    [
        R(list_calls(), {"customer"}, id="calls"),
        R(list_calls(TOKEN), {"customer"}, id="next calls"),
        R(list_calls(since=MIDDLE, until=MIDDLE + timedelta(hours=1)), {"customer"}, id="time"),
        R(list_calls(status="failed"), {"customer_status"}, id="status"),
        R(list_calls(TOKEN, status="failed"), {"customer_status"}, id="next of a status"),
        R(list_calls(direction="outbound"), {"customer_direction"}, id="direction"),
        R(list_calls(agent_id="agent-7"), {"customer_agent"}, id="agent"),
        R(lambda c: calls.get(c, OWNER, SEVENTH), {"PRIMARY"}, id="a call"),
        R(of_call(), {"reference", "transcribe"}, id="segments"),
        R(of_call(Position(50_000, "m").token()), {"reference", "transcribe"}, id="more segments"),
        R(lambda c: transcripts.get(c, OWNER, SEVENTH), {"PRIMARY"}, id="a segment"),
        R(lambda c: events.after(c, OWNER, 50_000, 100), {"sequence"}, id="events"),
        R(
            lambda c: transcribes.list_transcribes(c, OWNER, call_id="call-7"),
            {"reference"},
            id="transcribes of a call",
        ),
        R(lambda c: transcribes.list_transcribes(c, OWNER), {"customer"}, id="transcribes"),
        R(lambda c: recordings.list_recordings(c, OWNER), {"customer"}, id="recordings"),
        R(lambda c: numbers.find_called(c, "+497"), {"number"}, id="a called number"),
        R(lambda c: numbers.list_numbers(c, OWNER), {"customer"}, id="numbers"),
        R(list_entries(), {"logs_customer"}, id="audit log"),
        R(
            list_entries(since=START + timedelta(minutes=9)),
            {"logs_customer"},
            id="audit log of a time",
        ),
        R(list_entries(actor_id="key-7"), {"logs_customer_actor"}, id="audit log of a key"),
    ],
)
async def test_a_query_goes_by_its_index(
    seeded: config.Database, query: Query, indexes: set[str]
) -> None:
    engine = make_engine(seeded)
    async with engine.connect() as connection:
        steps = await explain(connection, query)
    await engine.dispose()
    print(steps)
    assert not [step for step in steps if step.is_scan or step.is_sort]
    assert {subject(step.index) for step in steps if step.index} == indexes


@pytest.mark.parametrize("token", [None, TOKEN], ids=["calls of a number", "next calls"])
async def test_a_callers_or_called_number_goes_by_two_indexes(
    seeded: config.Database, token: str | None
) -> None:
    engine = make_engine(seeded)
    async with engine.connect() as connection:
        steps = await explain(connection, list_calls(token, number="+4930123"))
    await engine.dispose()
    print(steps)  # the two pages, already in order, are sorted into one
    assert {subject(step.index) for step in steps if step.index} == {
        "customer_source",
        "customer_destination",
    }
    assert not [step for step in steps if step.is_scan and step.index]


def subject(index: str) -> str:
    """Return what an index is about, from a name such as idx_calls_customer_status."""
    if index == "PRIMARY" or index.startswith("sqlite_autoindex"):
        return "PRIMARY"
    return index.split("_", 2)[2]
