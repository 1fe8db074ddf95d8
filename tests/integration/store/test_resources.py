"""Customers, agents, numbers and flows: made, read, changed, deleted, and who did it."""

import random
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sqlalchemy import insert

from mediad.store import agents, audit, customers, flows, numbers, tables
from mediad.store.agents import AgentConfig, AgentFields
from mediad.store.audit import MEDIAD, Actor, EntryFilter
from mediad.store.customers import CustomerFields
from mediad.store.database import Database
from mediad.store.flows import FlowFields
from mediad.store.numbers import NumberFields, NumberTaken
from mediad.store.pages import MAX_LIMIT
from mediad.store.types import NEVER, new_id, utc_now

CONFIG = AgentConfig(prompt="You are a helpful agent.")
SOMEONE = Actor("someone")
EMOJI = "Zoë 👩🏽‍🚀🍣🍺 日本"


def agent_fields(**others: Any) -> AgentFields:
    return AgentFields(**{"name": "Zoë", "config": CONFIG, **others})


async def create_agent(database: Database, customer_id: str, **others: Any) -> agents.Agent:
    async with database.write() as connection:
        return await agents.create(connection, customer_id, agent_fields(**others), SOMEONE)


async def create_number(database: Database, customer_id: str, number: str) -> numbers.Number:
    async with database.write() as connection:
        fields = NumberFields(number=number, tags=["a", "b"])
        return await numbers.create(connection, customer_id, fields, MEDIAD)


async def test_what_is_created_can_be_read(database: Database) -> None:
    made = await create_agent(database, "c1")
    async with database.read() as connection:
        assert await agents.get(connection, "c1", made.id) == made
    assert (made.customer_id, made.name, made.tm_delete) == ("c1", "Zoë", NEVER)
    assert AgentConfig.model_validate(made.config) == CONFIG
    assert made.tm_create.tzinfo is not None


async def test_emoji_come_back(database: Database) -> None:
    """Also in JSON; and two of them are not the same."""
    config = AgentConfig(prompt=EMOJI * 2, first_message="🍣")
    made = await create_agent(database, "c1", name=EMOJI, detail=EMOJI, config=config)
    async with database.read() as connection:
        read = await agents.get(connection, "c1", made.id)
        assert read is not None
        assert (read.name, read.detail, read.config["first_message"]) == (EMOJI, EMOJI, "🍣")
        assert await numbers.find_called(connection, "🍺") is None


async def test_changes_are_kept_and_the_rest_stays(database: Database) -> None:
    made = await create_agent(database, "c1", detail="old")
    async with database.write() as connection:
        changes = {"name": "new", "status": "inactive"}
        changed = await agents.update(connection, "c1", made.id, changes, SOMEONE)
    assert changed is not None
    assert (changed.name, changed.status, changed.detail) == ("new", "inactive", "old")
    assert changed.tm_create == made.tm_create < changed.tm_update
    async with database.read() as connection:
        assert await agents.get(connection, "c1", made.id) == changed


@pytest.mark.parametrize(
    "changes",
    [
        {"name": ""},
        {"name": None},
        {"status": "asleep"},
        {"config": {"prompt": "short"}},
        {"customer_id": "c2"},
        {"id": "x"},
    ],
)
async def test_wrong_changes_are_refused(database: Database, changes: dict[str, object]) -> None:
    made = await create_agent(database, "c1")

    async def update() -> None:
        async with database.write() as connection:
            await agents.update(connection, "c1", made.id, changes, MEDIAD)

    with pytest.raises(ValueError, match="validation error"):
        await update()
    async with database.read() as connection:
        assert await agents.get(connection, "c1", made.id) == made


async def test_deleted_rows_are_gone(database: Database) -> None:
    made = await create_agent(database, "c1")
    async with database.write() as connection:
        deleted = await agents.delete(connection, "c1", made.id, SOMEONE)
        assert deleted is not None
        assert deleted.tm_delete != NEVER
        assert await agents.get(connection, "c1", made.id) is None
        assert (await agents.list_agents(connection, "c1")).items == []
        assert await agents.update(connection, "c1", made.id, {"name": "x"}, MEDIAD) is None
        assert await agents.delete(connection, "c1", made.id, MEDIAD) is None


async def test_another_customer_has_nothing_of_it(database: Database) -> None:
    agent = await create_agent(database, "c1")
    number = await create_number(database, "c1", "+4930123")
    async with database.write() as connection:
        flow = await flows.create(
            connection, "c1", FlowFields(name="f", actions=[{"type": "talk"}]), MEDIAD
        )
        assert await agents.get(connection, "c2", agent.id) is None
        assert await agents.update(connection, "c2", agent.id, {"name": "x"}, MEDIAD) is None
        assert await agents.delete(connection, "c2", agent.id, MEDIAD) is None
        assert await numbers.get(connection, "c2", number.id) is None
        assert await numbers.update(connection, "c2", number.id, {"name": "x"}, MEDIAD) is None
        assert await numbers.delete(connection, "c2", number.id, MEDIAD) is None
        assert await flows.get(connection, "c2", flow.id) is None
        assert await flows.update(connection, "c2", flow.id, {"name": "x"}, MEDIAD) is None
        assert await flows.delete(connection, "c2", flow.id, MEDIAD) is None
        for listed in (
            await agents.list_agents(connection, "c2"),
            await numbers.list_numbers(connection, "c2"),
            await flows.list_flows(connection, "c2"),
            await audit.list_entries(connection, "c2"),
        ):
            assert listed.items == []
        assert await agents.get(connection, "C1", agent.id) is None  # not the same customer


async def test_flows(database: Database) -> None:
    actions = [{"type": "answer"}, {"type": "talk", "text": EMOJI}]
    async with database.write() as connection:
        fields = FlowFields(name="first", actions=actions)
        flow = await flows.create(connection, "c1", fields, MEDIAD)
        assert (await flows.list_flows(connection, "c1")).items == [flow]
        changed = await flows.update(connection, "c1", flow.id, {"actions": actions[:1]}, MEDIAD)
        assert changed is not None
        assert await flows.get(connection, "c1", flow.id) == changed
        assert changed.actions == actions[:1]
        assert await flows.delete(connection, "c1", flow.id, MEDIAD) is not None


async def test_customers(database: Database) -> None:
    async with database.write() as connection:
        made = await customers.create(connection, CustomerFields(name="Ann"), Actor("root"))
        changed = await customers.update(connection, made.id, {"name": "Anne"}, Actor("root"))
        assert changed is not None
        assert await customers.get(connection, made.id) == changed
        default = await customers.get(connection, "default")
        assert default is not None
        assert (default.status, default.total_calls) == ("active", 0)
        assert await customers.delete(connection, made.id, Actor("root")) is not None
        assert await customers.get(connection, made.id) is None
        entries = (await audit.list_entries(connection, made.id)).items
    assert [entry.action for entry in entries] == ["delete", "update", "create"]
    assert {(entry.resource_type, entry.resource_id) for entry in entries} == {
        ("customer", made.id)
    }


async def test_every_change_is_in_the_audit_log(database: Database) -> None:
    made = await create_agent(database, "c1")
    async with database.write() as connection:
        await agents.update(connection, "c1", made.id, {"name": "new"}, Actor("ann"))
        await agents.delete(connection, "c1", made.id, Actor("bob"))
        of_made = EntryFilter(resource_id=made.id)
        entries = (await audit.list_entries(connection, "c1", of_made)).items
        assert (
            await audit.list_entries(connection, "c1", EntryFilter(resource_id="other"))
        ).items == []
        first = await audit.list_entries(connection, "c1", limit=1)
        rest = await audit.list_entries(connection, "c1", token=first.next_token)
    assert first.items + rest.items == entries
    deleted, updated, created = entries
    assert (created.action, created.actor_id, created.before_state) == ("create", "someone", None)
    assert (updated.action, updated.actor_id) == ("update", "ann")
    assert updated.before_state == made.model_dump(mode="json")
    assert (deleted.action, deleted.actor_id, deleted.resource_type) == ("delete", "bob", "agent")
    assert deleted.before_state is not None
    assert deleted.before_state["name"] == "new"


async def test_a_change_that_fails_leaves_no_entry(database: Database) -> None:
    await create_number(database, "c1", "+491")
    with pytest.raises(NumberTaken):
        await create_number(database, "c1", "+491")
    async with database.read() as connection:
        assert len((await audit.list_entries(connection, "c1")).items) == 1


# Numbers


async def test_a_number_has_one_customer(database: Database) -> None:
    await create_number(database, "c1", "+4930123")
    other = await create_number(database, "c2", "+4930124")
    with pytest.raises(NumberTaken, match=r"\+4930123 is somebody's already"):
        await create_number(database, "c2", "+4930123")

    async def rename() -> None:
        async with database.write() as connection:
            await numbers.update(connection, "c2", other.id, {"number": "+4930123"}, MEDIAD)

    with pytest.raises(NumberTaken):
        await rename()


async def test_a_deleted_number_comes_back(database: Database) -> None:
    for customer_id in ("c1", "c2", "c1"):
        made = await create_number(database, customer_id, "+4930123")
        async with database.write() as connection:
            found = await numbers.find_called(connection, "+4930123")
            assert found == made
            await numbers.delete(connection, customer_id, made.id, MEDIAD)
            assert await numbers.find_called(connection, "+4930123") is None


async def test_the_numbers_of_a_deleted_customer_are_anybodys(database: Database) -> None:
    root = Actor("root")
    async with database.write() as connection:
        customer = await customers.create(connection, CustomerFields(name="Ann"), root)
    ours = [await create_number(database, customer.id, number) for number in ("+491", "+492")]
    kept = await create_number(database, "c2", "+493")
    async with database.write() as connection:
        freed = await customers.delete(connection, customer.id, root)
        assert freed is not None
        assert [row.id for row in sorted(freed, key=lambda row: row.number)] == [
            row.id for row in ours
        ]
        assert (await numbers.list_numbers(connection, customer.id)).items == []
        assert (await numbers.list_numbers(connection, "c2")).items == [kept]
        entries = (await audit.list_entries(connection, customer.id, limit=3)).items
        assert await customers.delete(connection, customer.id, root) is None
    assert {(entry.action, entry.actor_id, entry.resource_id) for entry in entries} == {
        ("delete", "root", id) for id in (customer.id, *(row.id for row in ours))
    }
    assert all(entry.before_state and entry.after_state is None for entry in entries)
    await create_number(database, "c2", "+491")


async def test_a_called_number_says_whose_call_it_is(database: Database) -> None:
    number = await create_number(database, "c1", "+4930123")
    extension = await create_number(database, "c2", "100")
    same_digits = await create_number(database, "c3", "+100")
    async with database.read() as connection:
        for called, expected in (
            ("+4930123", number),
            ("4930123", number),
            ("100", extension),
            ("+100", same_digits),
            ("+49301234", None),
            ("", None),
        ):
            assert await numbers.find_called(connection, called) == expected


# Pages


async def add_agents(database: Database, count: int, *, older: bool = False) -> set[str]:
    """Insert agents, several of them at the same instant."""
    chance = random.Random(count)
    now = utc_now() - timedelta(days=1 if older else 0)
    rows = [
        {
            "id": new_id(),
            "customer_id": "c1",
            "name": "n",
            "status": "active",
            "config": {},
            "tm_create": now + timedelta(microseconds=chance.randint(0, count // 3)),
            "tm_update": now,
        }
        for _ in range(count)
    ]
    async with database.write() as connection:
        await connection.execute(insert(tables.agents), rows)
    return {str(row["id"]) for row in rows}


@hypothesis_settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)
@given(limit=st.integers(1, 12), added=st.lists(st.integers(1, 4), max_size=6))
async def test_pages_are_the_whole_list_while_rows_are_added(
    database: Database, limit: int, added: list[int]
) -> None:
    """Each row that was there at first comes once, in order, whatever comes meanwhile."""
    before = await add_agents(database, 20, older=True)
    async with database.read() as connection:
        everything = (await agents.list_agents(connection, "c1", limit=MAX_LIMIT)).items
    before |= {agent.id for agent in everything}
    seen: list[agents.Agent] = []
    token = None
    arriving = iter(added)
    while True:
        async with database.read() as connection:
            page = await agents.list_agents(connection, "c1", token=token, limit=limit)
        assert len(page.items) <= limit
        seen += page.items
        if page.next_token is None:
            break
        token = page.next_token
        if count := next(arriving, 0):
            await add_agents(database, count, older=count % 2 == 0)
    ids = [agent.id for agent in seen]
    assert len(ids) == len(set(ids))
    assert before <= set(ids)
    keys = [(agent.tm_create, agent.id) for agent in seen]
    assert keys == sorted(keys, reverse=True)
    async with database.write() as connection:
        await connection.execute(tables.agents.delete())


async def test_a_list_can_be_of_one_status(database: Database) -> None:
    active = await create_agent(database, "c1")
    inactive = await create_agent(database, "c1", status="inactive")
    async with database.read() as connection:
        assert (await agents.list_agents(connection, "c1")).items == [inactive, active]
        listed = await agents.list_agents(connection, "c1", status="active")
        assert (listed.items, listed.next_token) == ([active], None)
        assert (await numbers.list_numbers(connection, "c1", status="active")).items == []


@pytest.mark.parametrize("arguments", [{"token": "nonsense"}, {"limit": 0}, {"limit": 501}])
async def test_wrong_pages_are_refused(database: Database, arguments: dict[str, Any]) -> None:
    async with database.read() as connection:
        with pytest.raises(ValueError, match="page"):
            await agents.list_agents(connection, "c1", **arguments)


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        agent_fields(colour="red")
