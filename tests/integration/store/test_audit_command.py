"""``mediad audit verify``, run as a program over a log that somebody has tampered with."""

import asyncio
import json
import os
import sys
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner
from sqlalchemy import insert, select, text

from mediad import config
from mediad.metrics import Metrics
from mediad.store import audit, audit_command
from mediad.store.audit import MEDIAD, Actor, Change, hash_of
from mediad.store.database import Database
from mediad.store.tables import audit_chains, audit_logs
from mediad.store.types import utc_now

ENTRIES = 130  # more than a page


class Ran(NamedTuple):
    """What a program has come to."""

    status: int
    output: str
    errors: str


@pytest.fixture
async def written(settings: config.Database) -> config.Database:
    """A database with a log of two customers."""
    changes = [
        Change("c1", "update", "agent", f"a{number}", {"n": number}, {"n": number + 1})
        for number in range(ENTRIES)
    ]
    database = Database(settings, Metrics())
    await database.open()
    try:
        async with database.write() as connection:
            await audit.record(connection, Actor("ann", "192.0.2.7", "curl", "r", 0.0), changes)
            await audit.record(connection, MEDIAD, [Change("c2", "create", "flow", "f")])
    finally:
        await database.close()
    return settings


async def run(settings: config.Database, *arguments: str) -> Ran:
    """Run ``mediad audit verify``."""
    environment = {"MEDIAD_DATABASE__DIRECTORY": str(settings.directory)}
    if settings.url is not None:
        environment["MEDIAD_DATABASE__URL"] = settings.url.get_secret_value()
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mediad", "audit", "verify", *arguments),
        env=os.environ | environment,
        stdout=pipe,
        stderr=pipe,
    )
    output, errors = await process.communicate()
    assert process.returncode is not None
    return Ran(process.returncode, output.decode(), errors.decode())


async def tamper(settings: config.Database, *statements: str) -> None:
    """Do what only somebody with all rights can."""
    database = Database(settings, Metrics())
    try:
        async with database.write() as connection:
            for statement in statements:
                await connection.execute(text(statement))
    finally:
        await database.close()


async def rows_of(settings: config.Database) -> list[dict[str, Any]]:
    """Return the first customer's log as it is in the database."""
    database = Database(settings, Metrics())
    try:
        async with database.read() as connection:
            query = select(audit_logs).where(audit_logs.c.customer_id == "c1")
            result = await connection.execute(query.order_by(audit_logs.c.sequence))
            return [dict(row) for row in result.mappings()]
    finally:
        await database.close()


async def rewrite(settings: config.Database, rows: list[dict[str, Any]]) -> None:
    """Put other rows in the place of the first customer's, well hashed, with their end."""
    before = "0" * 64
    for number, row in enumerate(rows, 1):
        row |= {"sequence": number, "prev_hash": before}
        row["hash"] = before = hash_of(row)
    await tamper(settings, "DELETE FROM audit_logs WHERE customer_id = 'c1'")
    database = Database(settings, Metrics())
    try:
        async with database.write() as connection:
            await connection.execute(insert(audit_logs), rows)
            await connection.execute(
                audit_chains.update()
                .where(audit_chains.c.customer_id == "c1")
                .values(sequence=len(rows), hash=before)
            )
    finally:
        await database.close()


async def test_a_whole_log(written: config.Database) -> None:
    status, output, errors = await run(written)
    hashes = [row["hash"] for row in await rows_of(written)]
    assert (status, errors) == (0, "")
    first, second = output.splitlines()
    assert first == f"c1: {ENTRIES} good, ends with {ENTRIES}:{hashes[-1]}"
    assert second.startswith("c2: 1 good, ends with 1:")
    status, output, _ = await run(written, "--json")
    documents = [json.loads(line) for line in output.splitlines()]
    assert documents[0] == {
        "customer_id": "c1",
        "good": ENTRIES,
        "head": {"sequence": ENTRIES, "hash": hashes[-1]},
        "broken": None,
    }
    for number in (1, 100, ENTRIES):
        noted = f"{number}:{hashes[number - 1]}"
        status, output, _ = await run(written, "--customer", "c1", "--expect", noted)
        assert (status, len(output.splitlines())) == (0, 1)


@pytest.mark.parametrize(
    "change",
    ["actor_id = 'bob'", "tm_create = '2026-01-02 03:04:05.000001'", "hash = customer_id"],
)
async def test_a_changed_entry(written: config.Database, change: str) -> None:
    await tamper(
        written, f"UPDATE audit_logs SET {change} WHERE customer_id = 'c1' AND sequence = 117"
    )
    status, output, _ = await run(written)
    assert status == 1
    first, second = output.splitlines()
    assert first == "c1: 116 good, number 117 is changed: its hash is not that of what it has"
    assert second.startswith("c2: 1 good, ends with 1:")
    assert (await run(written, "--customer", "c2")).status == 0


@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)  # MariaDB keeps no such thing
@pytest.mark.parametrize(
    "change",
    [
        "before_state = '{'",
        "tm_create = 'now'",
        "tm_create = x'61'",
        "actor_id = x'61'",
        "sequence = x'61'",
        "sequence = 'last'",
    ],
)
async def test_an_entry_that_cannot_be_read(written: config.Database, change: str) -> None:
    which = f"customer_id = 'c1' AND sequence = {ENTRIES}"
    await tamper(written, f"UPDATE audit_logs SET {change} WHERE {which}")
    status, output, errors = await run(written, "--customer", "c1")
    found = f"c1: {ENTRIES - 1} good, number {ENTRIES} is changed: it cannot be read\n"
    assert (status, output, errors) == (1, found, "")


@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
async def test_an_entry_that_was_given_to_nobody(written: config.Database) -> None:
    which = "customer_id = 'c1' AND sequence = 117"
    await tamper(written, f"UPDATE audit_logs SET customer_id = x'61' WHERE {which}")
    status, output, errors = await run(written, "--json")
    assert (status, errors) == (1, "")
    first, second = (json.loads(line) for line in output.splitlines())
    assert first["broken"] == {
        "sequence": 117,
        "how": "missing",
        "why": "the next one is 118",
    }
    assert second["broken"] is None


@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
async def test_an_end_that_cannot_be_read(written: config.Database) -> None:
    await tamper(written, "UPDATE audit_chains SET sequence = x'61' WHERE customer_id = 'c1'")
    status, output, errors = await run(written, "--customer", "c1")
    assert (status, errors) == (1, "")
    assert "missing: what audit_chains has of the last one" in output


async def test_an_entry_that_was_changed_and_hashed_anew(written: config.Database) -> None:
    row = (await rows_of(written))[6]
    own = hash_of(row | {"actor_id": "bob"})
    await tamper(
        written,
        f"UPDATE audit_logs SET actor_id = 'bob', hash = '{own}' "
        "WHERE customer_id = 'c1' AND sequence = 7",
    )
    status, output, _ = await run(written, "--json", "--customer", "c1")
    assert (status, json.loads(output)) == (
        1,
        {
            "customer_id": "c1",
            "good": 6,
            "head": None,
            "broken": {
                "sequence": 7,
                "how": "changed",
                "why": "the one after it has another hash for it",
            },
        },
    )


async def test_the_last_entry_changed_and_hashed_anew(written: config.Database) -> None:
    row = (await rows_of(written))[-1]
    own = hash_of(row | {"actor_id": "bob"})
    await tamper(
        written,
        f"UPDATE audit_logs SET actor_id = 'bob', hash = '{own}' "
        f"WHERE customer_id = 'c1' AND sequence = {ENTRIES}",
    )
    status, output, _ = await run(written, "--customer", "c1")
    assert status == 1
    assert f"c1: {ENTRIES - 1} good, number {ENTRIES} is changed: audit_chains" in output


async def test_a_removed_entry(written: config.Database) -> None:
    await tamper(written, "DELETE FROM audit_logs WHERE customer_id = 'c1' AND sequence = 8")
    status, output, _ = await run(written)
    assert status == 1
    assert "c1: 7 good, number 8 is missing: the next one is 9\n" in output


async def test_an_end_that_was_cut_off(written: config.Database) -> None:
    await tamper(written, "DELETE FROM audit_logs WHERE customer_id = 'c1' AND sequence > 120")
    status, output, _ = await run(written)
    assert status == 1
    assert f"c1: 120 good, number 121 is missing: {ENTRIES} is the last one\n" in output


async def test_an_end_that_was_cut_off_and_set_back_shows_against_what_was_noted(
    written: config.Database,
) -> None:
    rows = await rows_of(written)
    noted = f"{ENTRIES}:{rows[-1]['hash']}"
    await rewrite(written, rows[:120])
    assert (await run(written)).status == 0
    status, output, _ = await run(written, "--customer", "c1", "--expect", noted)
    assert status == 1
    assert f"c1: 120 good, number 121 is missing: {ENTRIES} is expected\n" in output


async def test_a_log_that_was_hashed_anew_shows_against_what_was_noted(
    written: config.Database,
) -> None:
    rows = await rows_of(written)
    noted = f"{ENTRIES}:{rows[-1]['hash']}"
    rows[20]["actor_id"] = "bob"
    await rewrite(written, rows)
    assert (await run(written)).status == 0
    status, output, _ = await run(written, "--customer", "c1", "--expect", noted)
    assert (status, "another hash is expected" in output) == (1, True)


@pytest.mark.parametrize(
    ("number", "found"),
    [
        (ENTRIES + 1, f"number {ENTRIES + 1} is added: {ENTRIES} is the last one"),
        (0, "added: new has no number"),
        (-7, "added: new has no number"),
        (None, "added: new has no number"),
    ],
)
async def test_an_inserted_entry(written: config.Database, number: int | None, found: str) -> None:
    row = (await rows_of(written))[-1]
    row |= {"id": "new", "sequence": number, "prev_hash": row["hash"], "tm_create": utc_now()}
    row["hash"] = hash_of(row)
    database = Database(written, Metrics())
    try:
        async with database.write() as connection:
            await connection.execute(insert(audit_logs), row)
    finally:
        await database.close()
    status, output, _ = await run(written)
    assert status == 1
    assert f"c1: {ENTRIES} good, {found}" in output


async def test_the_end_itself_is_removed(written: config.Database) -> None:
    await tamper(written, "DELETE FROM audit_chains WHERE customer_id = 'c1'")
    status, output, _ = await run(written)
    assert (status, "missing: what audit_chains has of the last one" in output) == (1, True)


async def test_a_log_of_which_nothing_is_left(written: config.Database) -> None:
    await tamper(written, "DELETE FROM audit_logs WHERE customer_id = 'c1'")
    status, output, _ = await run(written)
    assert (status, f"c1: 0 good, number 1 is missing: {ENTRIES}" in output) == (1, True)


async def test_a_database_without_entries(settings: config.Database) -> None:
    assert await run(settings) == (0, "", "there are no entries\n")


async def test_a_customer_without_a_log(written: config.Database) -> None:
    status, _, errors = await run(written, "--customer", "nobody")
    assert (status, "there is no audit log of a customer nobody" in errors) == (1, True)


def test_wrong_arguments() -> None:
    hash = "0" * 64
    for arguments in (
        ("--expect", f"1:{hash}"),
        *(("--customer", "c1", "--expect", wrong) for wrong in ("1", f"x:{hash}", f"0:{hash}")),
    ):
        assert CliRunner().invoke(audit_command.audit, ("verify", *arguments)).exit_code == 2


async def test_a_database_that_does_not_answer(unused_tcp_port: int) -> None:
    url = f"mysql://mediad:secret@127.0.0.1:{unused_tcp_port}/mediad"
    settings = config.Database.model_validate({"url": url})
    status, output, errors = await run(settings)
    assert (status, output) == (2, "")
    assert "Can't connect" in errors
    assert "secret" not in errors
