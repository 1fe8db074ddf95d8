"""The audit log: what an entry has, that secrets are in none, and that each customer's entries are
one chain, whoever writes at the same time.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from mediad import config
from mediad.metrics import Metrics
from mediad.store import (
    accesskeys,
    agents,
    audit,
    customers,
    numbers,
    rows,
    tables,
    webhook_deliveries,
    webhooks,
)
from mediad.store.accesskeys import AccessKeyFields, hash_key
from mediad.store.agents import AgentConfig, AgentFields
from mediad.store.apply import apply
from mediad.store.audit import MEDIAD, NO_HASH, Actor, Change, Entry, EntryFilter
from mediad.store.audit_chain import Head, list_customers, verify
from mediad.store.customers import CustomerFields
from mediad.store.database import Database
from mediad.store.numbers import NumberFields
from mediad.store.types import NEVER, new_id, utc_now
from mediad.store.webhooks import WebhookFields
from tests.facts import CallFacts
from tests.integration.store.conftest import clear
from tests.mariadb import MariaDb

CONFIG = AgentConfig(prompt="You are a helpful agent.", first_message="Zoë 👩🏽‍🚀")
WAIT_S = 0.3
"""For another process to come as far as it gets while something is locked."""
ANN = Actor("ann", "192.0.2.7", "Zoë/1.0", "shop/4711", time.monotonic())


async def add_agent(database: Database, customer_id: str = "c1", actor: Actor = ANN) -> str:
    """Make an agent; return its id."""
    async with database.write() as connection:
        fields = AgentFields(name="a", config=CONFIG)
        return (await agents.create(connection, customer_id, fields, actor)).id


async def entries_of(database: Database, customer_id: str = "c1", **which: Any) -> list[Entry]:
    """Return a customer's entries, oldest first."""
    async with database.read() as connection:
        page = await audit.list_entries(connection, customer_id, EntryFilter(**which), limit=500)
    return sorted(page.items, key=lambda entry: entry.sequence or 0)


async def test_an_entry_says_who_and_what(database: Database) -> None:
    id = await add_agent(database)
    async with database.write() as connection:
        await agents.update(connection, "c1", id, {"name": "b", "detail": "new"}, ANN)
        await agents.update(connection, "c1", id, {}, ANN)
        await agents.delete(connection, "c1", id, MEDIAD)
    made, changed, same, deleted = await entries_of(database)
    for entry in (made, changed, same):
        assert (entry.actor_id, entry.ip, entry.user_agent) == ("ann", "192.0.2.7", "Zoë/1.0")
        assert entry.request_id == "shop/4711"
        assert entry.duration_ms is not None
        assert 0 <= entry.duration_ms < 1000 * (time.monotonic() - (ANN.started or 0)) + 1
        assert (entry.success, entry.error, entry.resource_type) == (True, None, "agent")
    assert (deleted.actor_id, deleted.ip, deleted.duration_ms) == (None, None, None)
    assert [one.action for one in (made, changed, same, deleted)] == [
        "create",
        "update",
        "update",
        "delete",
    ]
    assert (made.before_state, made.changed_fields) == (None, None)
    assert made.after_state == changed.before_state
    assert made.after_state is not None
    assert made.after_state["config"] == CONFIG.model_dump(mode="json")
    assert changed.after_state is not None
    assert (changed.after_state["name"], changed.after_state["detail"]) == ("b", "new")
    assert changed.changed_fields == ["detail", "name"]
    assert same.changed_fields == []
    assert deleted.before_state == same.after_state
    assert (deleted.after_state, deleted.changed_fields) == (None, None)


async def test_what_differs_in_json_is_told(database: Database) -> None:
    """Python takes 1 for True."""
    async with database.write() as connection:
        fields = NumberFields(number="+49301", provider_data={"a": [1], "b": 0.5})
        id = (await numbers.create(connection, "c1", fields, ANN)).id
        for value in ({"b": 0.5, "a": [1]}, {"a": [True], "b": 0.5}):
            await numbers.update(connection, "c1", id, {"provider_data": value}, ANN)
    _, same, changed = await entries_of(database)
    assert (same.changed_fields, changed.changed_fields) == ([], ["provider_data"])


async def test_secrets_are_in_no_entry(database: Database) -> None:
    async with database.write() as connection:
        key = await accesskeys.create(connection, "c1", AccessKeyFields(name="k"), ANN)
        options: dict[str, Any] = {"changes": {}, "overlap_s": 60, "actor": ANN}
        new = await accesskeys.rotate(connection, "c1", key.row.id, **options)
        assert new is not None
        await accesskeys.delete(connection, "c1", new.row.id, ANN)
        fields = WebhookFields(url="https://example.com/hook")
        hook = await webhooks.create(connection, "c1", fields, "whsec_first", ANN)
        await webhooks.change(connection, "c1", hook.id, {"name": "n"}, ANN)
        await webhooks.rotate_secret(connection, "c1", hook.id, "whsec_second", 60, ANN)
        await webhook_deliveries.add_test(connection, "c1", hook.id, ANN)
        await webhooks.delete(connection, "c1", hook.id, ANN)
    entries = await entries_of(database)
    actions = ["create", "update", "create", "delete"]
    actions += ["create", "update", "rotate_secret", "test", "delete"]
    assert [entry.action for entry in entries] == actions
    assert entries[1].changed_fields == ["tm_expire"]
    assert entries[6].changed_fields == ["secret"]
    text = str(entries)
    for secret in (key.key, new.key):
        assert secret not in text
        assert hash_key(secret) not in text
        assert secret[:9] in text  # how it begins, which is shown
    assert "whsec" not in text
    assert "key_hash" not in text
    names = {
        name for one in entries for name in (*(one.before_state or ()), *(one.after_state or ()))
    }
    assert names.isdisjoint({"key", "key_hash", "secret", "old_secret"})


async def test_entries_are_found_by_what_is_known_of_them(database: Database) -> None:
    id = await add_agent(database)
    middle = utc_now()
    refused = Change("c1", "delete", "agent", id, error="forbidden")
    async with database.write() as connection:
        await agents.update(connection, "c1", id, {"name": "b"}, Actor("bob"))
        await audit.record(connection, Actor("bob"), [refused])
    made, changed, failed = await entries_of(database)
    assert (failed.success, failed.error) == (False, "forbidden")
    for which, found in (
        ({"resource_id": id}, [made, changed, failed]),
        ({"resource_id": "x"}, []),
        ({"resource_type": "agent"}, [made, changed, failed]),
        ({"resource_type": "flow"}, []),
        ({"actor_id": "bob"}, [changed, failed]),
        ({"action": "delete"}, [failed]),
        ({"success": True}, [made, changed]),
        ({"success": False, "actor_id": "bob"}, [failed]),
        ({"since": middle}, [changed, failed]),
        ({"until": middle}, [made]),
        ({"since": middle, "until": middle + timedelta(microseconds=1)}, []),
    ):
        assert await entries_of(database, **which) == found, which


# The chain


async def test_entries_are_a_chain(database: Database) -> None:
    for _ in range(3):
        await add_agent(database)
    await add_agent(database, "c2")
    entries = await entries_of(database)
    assert [entry.sequence for entry in entries] == [1, 2, 3]
    assert entries[0].prev_hash == NO_HASH
    for before, after in pairwise(entries):
        assert after.prev_hash == before.hash
    verdict = await verify(database, "c1")
    assert (verdict.good, verdict.broken) == (3, None)
    assert verdict.head == Head(3, str(entries[-1].hash))
    assert [one async for one in list_customers(database)] == ["c1", "c2"]


async def test_a_change_that_comes_to_nothing_leaves_no_gap(database: Database) -> None:
    await add_agent(database)

    async def fail() -> None:
        async with database.write() as connection:
            fields = AgentFields(name="a", config=CONFIG)
            await agents.create(connection, "c1", fields, ANN)
            raise RuntimeError("on second thoughts")

    with pytest.raises(RuntimeError):
        await fail()
    await add_agent(database)
    assert (await verify(database, "c1")).good == 2


@asynccontextmanager
async def processes(settings: config.Database, count: int) -> AsyncIterator[list[Database]]:
    """Open a database as so many processes do, each with connections of its own."""
    async with AsyncExitStack() as stack:
        opened = []
        for _ in range(count):
            database = Database(settings, Metrics())
            await database.open()
            stack.push_async_callback(database.close)
            opened.append(database)
        yield opened


async def change_much(database: Database, number: int) -> None:
    """Change things of the customer, as the API and the journal's writer do."""
    id = await add_agent(database)
    async with database.write() as connection:
        fields = NumberFields(number=f"+49301{number:04}", agent_id=id)
        await numbers.check_targets(connection, "c1", fields.model_dump())
        made = await numbers.create(connection, "c1", fields, ANN)
    async with database.write() as connection:
        await customers.update(connection, "c1", {"detail": f"{number}"}, ANN)
    async with database.write() as connection:
        await agents.update(connection, "c1", id, {"name": "b"}, ANN)
        await numbers.update(connection, "c1", made.id, {"name": "b"}, ANN)


async def lose_call(database: Database) -> None:
    """Write the facts of a call that a crash has ended."""
    call = CallFacts(customer_id="c1")
    facts = [call.created(), call.hungup("failed", "recovery_on_timer_expiry")]
    for fact in facts:
        async with database.write() as connection:
            await apply(connection, [fact])


async def test_twenty_at_once_write_one_chain(settings: config.Database) -> None:
    """Nobody's change fails either, as a deadlock would make it."""
    async with processes(settings, 3) as (first, second, third):
        async with first.write() as connection:
            now = utc_now()
            times = {"tm_create": now, "tm_update": now, "tm_delete": NEVER}
            row = {"id": "c1", "name": "c", "detail": "", "status": "active", **times}
            await connection.execute(insert(tables.customers), row)
        work: list[Awaitable[None]] = []
        for number in range(20):
            work.append(change_much((first, second, third)[number % 3], number))
            if number % 4 == 0:
                work.append(lose_call((second, third)[number % 2]))
        await asyncio.gather(*work)
        verdict = await verify(first, "c1")
        assert (verdict.good, verdict.broken) == (20 * 5 + 5, None)
        entries = await entries_of(second)
        assert [entry.sequence for entry in entries] == list(range(1, 106))


async def test_a_customer_is_deleted_while_it_is_changed(settings: config.Database) -> None:
    """Both take the same rows, and the end of the same chain."""
    async with processes(settings, 2) as (first, second):
        for round_ in range(10):
            async with first.write() as connection:
                fields = CustomerFields(name="Ann")
                id = (await customers.create(connection, fields, ANN)).id
                made = [
                    await numbers.create(
                        connection, id, NumberFields(number=f"+493{round_:02}{digit}"), ANN
                    )
                    for digit in range(5)
                ]

            async def delete(id: str) -> None:
                async with first.write() as connection:
                    assert await customers.delete(connection, id, ANN) is not None

            async def rename(customer_id: str, number_id: str) -> None:
                async with second.write() as connection:
                    await numbers.update(connection, customer_id, number_id, {"name": "n"}, ANN)

            async def rename_customer(id: str) -> None:
                async with second.write() as connection:
                    await customers.update(connection, id, {"name": "n"}, ANN)

            renaming = [rename(id, row.id) for row in made]
            await asyncio.gather(delete(id), rename_customer(id), *renaming)
            verdict = await verify(first, id)
            assert verdict.broken is None
            deleted = await entries_of(first, id, action="delete")
            assert len(deleted) == 6


async def made_webhook(database: Database) -> str:
    """Make a webhook; return its id."""
    async with database.write() as connection:
        fields = WebhookFields(url="https://example.com/hook")
        return (await webhooks.create(connection, "c1", fields, "whsec_first", ANN)).id


async def test_a_webhook_that_is_being_deleted_gets_no_secret(settings: config.Database) -> None:
    async with processes(settings, 2) as (first, second):
        id = await made_webhook(first)

        async def rotate() -> object:
            async with second.write() as connection:
                return await webhooks.rotate_secret(connection, "c1", id, "whsec_new", 60, ANN)

        async with first.write() as connection:
            await webhooks.delete(connection, "c1", id, ANN)
            rotating = asyncio.create_task(rotate())
            await asyncio.sleep(WAIT_S)
        assert await rotating is None
        assert [one.action for one in await entries_of(first)] == ["create", "delete"]


async def test_a_delivery_is_told_as_it_was_when_it_was_made_again(
    settings: config.Database,
) -> None:
    async with processes(settings, 2) as (first, second):
        webhook_id = await made_webhook(first)
        async with first.write() as connection:
            id = (await webhook_deliveries.add_test(connection, "c1", webhook_id, ANN)).id

        async def redeliver() -> None:
            async with second.write() as connection:
                assert await webhook_deliveries.redeliver(connection, "c1", id, ANN)

        async with first.write() as connection:  # it is sent meanwhile
            await connection.execute(update(tables.webhook_deliveries).values(attempts=3))
            again = asyncio.create_task(redeliver())
            await asyncio.sleep(WAIT_S)
        await again
        entry = (await entries_of(first))[-1]
        assert entry.action == "redeliver"
        assert entry.before_state is not None
        assert entry.before_state["attempts"] == 3


async def test_what_comes_while_a_customers_numbers_are_deleted_stays(
    mariadb: MariaDb, mariadb_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that is deleted is told."""
    settings = config.Database.model_validate({"url": mariadb_url})
    clear(settings)
    async with processes(settings, 1) as (database,):
        async with database.write() as connection:
            for customer_id, number in (("c1", "+49301"), ("c2", "+49302")):
                await numbers.create(connection, customer_id, NumberFields(number=number), ANN)
        new = {"id": "'new'", "customer_id": "'c1'", "number": "'+49303'"}
        names = tables.numbers.c.keys()
        values = ", ".join(new.get(name, name) for name in names)
        table = f"{mariadb_url.rpartition('/')[2]}.numbers"

        def add_another() -> datetime:
            mariadb.execute(
                f"INSERT INTO {table} ({', '.join(names)}) "
                f"SELECT {values} FROM {table} WHERE customer_id = 'c2'"
            )
            return utc_now()

        async with database.write() as connection:
            with monkeypatch.context() as patched:
                patched.setattr(rows, "utc_now", add_another)
                deleted = await rows.mark_deleted(connection, tables.numbers, numbers.Number, "c1")
        async with database.read() as connection:
            left = await numbers.list_numbers(connection, "c1")
        assert [after.number for _, after in deleted] == ["+49301"]
        assert [row.number for row in left.items] == ["+49303"]


async def test_a_log_is_checked_while_it_is_written(database: Database) -> None:
    is_over = False

    async def write() -> None:
        nonlocal is_over
        for _ in range(30):
            await add_agent(database)
        is_over = True

    async def check() -> int:
        times = 0
        while not is_over:
            assert (await verify(database, "c1")).broken is None
            times += 1
            await asyncio.sleep(0)
        return times

    _, times = await asyncio.gather(write(), check())
    assert times > 1


async def test_a_log_is_checked_page_by_page(database: Database) -> None:
    changes = [Change("c1", "test", "webhook", new_id()) for _ in range(250)]
    async with database.write() as connection:
        await audit.record(connection, MEDIAD, changes)
    told: list[int] = []
    verdict = await verify(database, "c1", tell=told.append)
    assert (verdict.good, verdict.broken) == (250, None)
    assert told == [100, 200, 250]


async def test_who_has_written_nothing_has_no_chain(database: Database) -> None:
    assert [one async for one in list_customers(database)] == []
    verdict = await verify(database, "nobody")
    assert (verdict.good, verdict.broken) == (0, None)
    expected = await verify(database, "nobody", Head(1, "0" * 64))
    assert expected.broken is not None
    assert expected.broken.how == "missing"
    async with database.read() as connection:
        assert (await connection.execute(select(tables.audit_chains))).first() is None
