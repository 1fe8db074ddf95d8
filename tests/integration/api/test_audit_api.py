"""The audit log over HTTP: where a change came from, who was refused one, and that mediad works
without the right to change what is in the log.
"""

import re
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from mediad import config
from mediad.api.access import CUSTOMER_HEADER
from mediad.errors import DatabaseUnavailable
from mediad.metrics import Metrics
from mediad.store import agents
from mediad.store.audit_chain import list_customers, verify
from mediad.store.database import Database
from tests.integration.api.calls_client import Customer, Telephony, open_telephony
from tests.integration.api.everything import (
    CUSTOMER_URL,
    live_call,
    make_everything,
    settings_with_agent,
)
from tests.integration.daemon import settings as daemon_settings
from tests.integration.store.conftest import migrate
from tests.mariadb import MariaDb

README = (Path(__file__).parents[3] / "README.md").read_text()
AGENT = {"name": "bakery", "config": {"prompt": "You answer the telephone."}}

Entries = Sequence[dict[str, Any]]


@pytest.fixture
async def telephony(settings: config.Database) -> AsyncIterator[Telephony]:
    """A mediad, and two customers."""
    made = daemon_settings("ws://127.0.0.1:9").model_copy(update={"database": settings})
    async with open_telephony(made) as telephony:
        yield telephony


@pytest.fixture
async def admin(telephony: Telephony) -> Customer:
    """Somebody who may change things, and read the log."""
    return await with_role(telephony.ours, telephony.root)


async def with_role(customer: Customer, root: str) -> Customer:
    """Return a customer with an admin's key."""
    return Customer(customer.http, customer.id, await customer.new_key("admin"), root)


async def key_id(customer: Customer) -> str:
    """Return the id of its access key."""
    return str((await customer.get("/v1/me"))[1]["accesskey_id"])


async def listed(customer: Customer, **which: str | int) -> Entries:
    """Return the log, newest first."""
    query = "&".join(f"{name}={value}" for name, value in which.items())
    status, body = await customer.get(f"/v1/audit_logs?{query}")
    assert status == 200, body
    return list(body["result"])


async def refused(customer: Customer, count: int) -> Entries:
    """Wait for so many refusals; return them, oldest first."""
    path = "/v1/audit_logs?success=false"
    body = await customer.eventually(path, lambda body: len(body["result"]) >= count)
    return sorted(body["result"], key=lambda entry: int(entry["sequence"]))


async def test_a_change_says_where_it_came_from(admin: Customer) -> None:
    headers = {"AccessKey": admin.key, "User-Agent": "shop/1.0", "X-Request-Id": "order-4711"}
    answer = await admin.http.post("/v1/agents", headers=headers, json=AGENT)
    assert (answer.status_code, answer.headers["x-request-id"]) == (201, "order-4711")
    made = answer.json()
    (entry,) = await listed(admin, resource_id=made["id"])
    assert entry["actor_id"] == await key_id(admin)
    assert (entry["ip"], entry["user_agent"]) == ("127.0.0.1", "shop/1.0")
    assert (entry["request_id"], entry["success"], entry["error"]) == ("order-4711", True, None)
    assert 0 <= entry["duration_ms"] < 60_000
    assert entry["before_state"] is None
    assert entry["after_state"]["config"] == made["config"]
    assert re.fullmatch(r"[0-9a-f]{64}", entry["hash"])


async def test_a_long_user_agent_is_cut(admin: Customer) -> None:
    headers = {"AccessKey": admin.key, "User-Agent": "x" * 5_000}
    made = (await admin.http.post("/v1/agents", headers=headers, json=AGENT)).json()
    (entry,) = await listed(admin, resource_id=made["id"])
    assert entry["user_agent"] == "x" * 255


async def test_every_answer_says_what_its_request_is_called(
    admin: Customer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    answers = [
        await admin.http.get("/healthz"),
        await admin.http.get("/v1/me"),
        await admin.ask("GET", "/v1/me"),
        await admin.http.get("/v1/me", headers={"x": "x" * 40_000}),
        await admin.ask("GET", "/v1/agents/none"),
        await admin.http.post("/v1/dialplan/calls"),
    ]
    assert [answer.status_code for answer in answers] == [200, 401, 200, 431, 404, 200]

    async def fail(*_: object) -> None:
        raise RuntimeError("a detail")

    monkeypatch.setattr(agents, "get", fail)
    answers.append(await admin.ask("GET", "/v1/agents/none"))
    assert answers[-1].status_code == 500
    ids = [answer.headers["x-request-id"] for answer in answers]
    assert len(set(ids)) == len(ids)
    assert f"the request {ids[-1]} failed" in caplog.text


async def test_refused_changes_are_in_the_log(telephony: Telephony, admin: Customer) -> None:
    viewer = await telephony.ours.new_key("viewer")
    theirs = await with_role(telephony.theirs, telephony.root)
    foreign = (await theirs.post("/v1/agents", AGENT))[1]["id"]
    await admin.post("/v1/numbers", {"number": "+4930111"})
    asked: list[tuple[httpx.Response, int, tuple[str, str, str, str]]] = [
        (
            await admin.ask("POST", "/v1/agents", AGENT, key=viewer),
            403,
            ("create", "agent", "", "forbidden"),
        ),
        (
            await admin.ask("POST", "/v1/flows", {"name": ""}),
            422,
            ("create", "flow", "", "invalid"),
        ),
        (
            await admin.ask("DELETE", f"/v1/agents/{foreign}"),
            404,
            ("delete", "agent", foreign, "not_found"),
        ),
        (
            await admin.ask("POST", "/v1/numbers", {"number": "+4930111"}),
            409,
            ("create", "number", "", "number_taken"),
        ),
        (
            await admin.ask("PATCH", "/v1/customers/x", {"name": "y"}),
            403,
            ("update", "customer", "x", "forbidden"),
        ),
        (
            await admin.http.post(
                "/v1/flows", headers={"AccessKey": admin.key}, content=b"x" * 200_000
            ),
            413,
            ("create", "flow", "", "too_large"),
        ),
    ]
    assert [answer.status_code for answer, _, _ in asked] == [status for _, status, _ in asked]
    # No change of anything that the log is about, or by nobody that is known.
    for method, path, key in (
        ("GET", "/v1/agents/none", None),
        ("GET", "/v1/audit_logs", viewer),
        ("POST", "/v1/calls/none/hangup", None),
        ("POST", "/v1/agents", "mk_wrong"),
        ("POST", "/v1/nothing", None),
    ):
        assert (await admin.ask(method, path, key=key)).status_code >= 400
    await admin.ask("DELETE", "/v1/flows/last")
    entries = await refused(admin, len(asked) + 1)
    assert [
        tuple(entry[name] for name in ("action", "resource_type", "resource_id", "error"))
        for entry in entries
    ] == [*(expected for _, _, expected in asked), ("delete", "flow", "last", "not_found")]
    by_request = {entry["request_id"]: entry for entry in entries}
    for answer, _, _ in asked:
        entry = by_request[answer.headers["x-request-id"]]
        assert (entry["success"], entry["ip"]) == (False, "127.0.0.1")
        states = ("before_state", "after_state", "changed_fields")
        assert [entry[name] for name in states] == [None] * 3
    assert entries[1]["actor_id"] == await key_id(admin)
    assert await listed(theirs, success="false") == []
    assert await telephony.daemon.metric("mediad_audit_dropped_refusals_total") == 0


async def test_a_key_that_reaches_too_far_is_in_its_own_customers_log(
    telephony: Telephony, admin: Customer
) -> None:
    theirs = telephony.theirs
    elsewhere = (await admin.make("accesskeys", role="admin", allowed_ips=["192.0.2.0/24"]))["key"]
    for key, customer_id in (
        (admin.key, theirs.id),
        (telephony.root, "none"),
        (elsewhere, admin.id),
    ):
        headers = {"AccessKey": key, CUSTOMER_HEADER: customer_id}
        answer = await admin.http.post("/v1/agents", headers=headers, json=AGENT)
        assert answer.status_code == 403
        assert (await admin.http.get("/v1/agents", headers=headers)).status_code == 403
    entries = await refused(admin, 3)
    assert [(entry["action"], entry["resource_type"]) for entry in entries] == [
        ("create", "agent")
    ] * 3
    reasons = ["forbidden", "no_such_customer", "forbidden"]
    assert [entry["error"] for entry in entries] == reasons
    assert entries[0]["actor_id"] == await key_id(admin)
    assert await listed(await with_role(theirs, telephony.root), success="false") == []


async def test_the_log_is_a_report(telephony: Telephony, admin: Customer) -> None:
    other = await with_role(telephony.ours, telephony.root)
    mine = (await admin.post("/v1/agents", AGENT))[1]["id"]
    moment = (await listed(admin, resource_id=mine))[0]["tm_create"]
    await other.ask("PATCH", f"/v1/agents/{mine}", {"name": "shop"})
    await other.ask("DELETE", f"/v1/agents/{mine}")
    await other.ask("DELETE", f"/v1/agents/{mine}")
    await refused(admin, 1)
    theirs = await key_id(other)
    for which, actions in (
        ({"resource_id": mine}, ["delete", "delete", "update", "create"]),
        ({"resource_id": mine, "success": "true"}, ["delete", "update", "create"]),
        ({"resource_id": mine, "success": "false"}, ["delete"]),
        ({"actor_id": theirs}, ["delete", "delete", "update"]),
        ({"actor_id": theirs, "action": "update"}, ["update"]),
        ({"resource_type": "agent", "actor_id": await key_id(admin)}, ["create"]),
        ({"resource_id": mine, "until": moment}, []),
        ({"resource_id": mine, "since": moment, "action": "create"}, ["create"]),
        ({"resource_type": "webhook"}, []),
    ):
        found = await listed(admin, **which)
        assert [entry["action"] for entry in found] == actions, which
    changed = (await listed(admin, actor_id=theirs, action="update"))[0]
    assert changed["changed_fields"] == ["name"]
    assert (changed["before_state"]["name"], changed["after_state"]["name"]) == ("bakery", "shop")
    for wrong in ("since=yesterday", "success=perhaps", f"action={'x' * 51}", "page_size=51"):
        assert (await admin.get(f"/v1/audit_logs?{wrong}"))[0] == 422, wrong


async def test_an_id_with_a_space_at_its_end_is_nobodys(
    telephony: Telephony, admin: Customer
) -> None:
    for method, body in (("PATCH", {"status": "inactive"}), ("DELETE", None), ("GET", None)):
        path = f"/v1/customers/{admin.id}%20"
        assert (await admin.ask(method, path, body, key=telephony.root)).status_code == 422
    found = await admin.ask("GET", f"/v1/customers/{admin.id}", key=telephony.root)
    assert found.json()["status"] == "active"


async def test_root_reads_every_log_also_of_who_is_gone(
    telephony: Telephony, admin: Customer
) -> None:
    theirs = telephony.theirs
    made = await theirs.make("agents", **AGENT)  # root does, for them
    path = f"/v1/customers/{theirs.id}"
    assert (await admin.ask("DELETE", path, key=telephony.root)).status_code == 204
    query = f"/v1/audit_logs?customer_id={theirs.id}"
    entries = (await admin.ask("GET", query, key=telephony.root)).json()["result"]
    assert {entry["customer_id"] for entry in entries} == {theirs.id}
    told = [(entry["action"], entry["resource_id"]) for entry in entries]
    assert told[0] == ("delete", theirs.id)
    assert ("create", made["id"]) in told
    for customer_id in (theirs.id, admin.id):
        answer = await admin.ask("GET", f"/v1/audit_logs?customer_id={customer_id}")
        assert (answer.status_code, answer.json()["error"]["reason"]) == (403, "forbidden")
    nobody = await admin.ask("GET", "/v1/audit_logs?customer_id=none", key=telephony.root)
    assert nobody.json()["result"] == []


# Rights


@pytest.fixture
def clerks_url(mariadb: MariaDb) -> Iterator[str]:
    """The address of a database, for a user with the rights that the README says."""
    url = mariadb.new_database()
    migrate(config.Database.model_validate({"url": url}))
    name = url.rpartition("/")[2]
    block = re.search(r"^```sql\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    assert block is not None
    statements = block[1].replace("mediad@'%'", "clerk@'127.0.0.1'").replace("mediad.", f"{name}.")
    for statement in filter(None, map(str.strip, statements.split(";"))):
        mariadb.execute(statement)
    yield mariadb.url(name, user="clerk", password="secret")
    mariadb.execute("DROP USER clerk@'127.0.0.1'")


async def test_mediad_works_without_the_right_to_change_entries(
    clerks_url: str, tmp_path: Path
) -> None:
    restricted = config.Database.model_validate({"url": clerks_url, "directory": tmp_path})
    async with settings_with_agent(tmp_path) as wanted:
        made = wanted.model_copy(update={"database": restricted})
        async with open_telephony(made) as telephony:
            await use_everything(telephony)
    database = Database(restricted, Metrics())
    try:
        customers = [id async for id in list_customers(database)]
        assert len(customers) == 2
        for customer_id in customers:
            verdict = await verify(database, customer_id)
            assert verdict.broken is None
            assert verdict.good > 0
        for statement, right in (
            ("UPDATE audit_logs SET error = 'x'", "UPDATE"),
            ("DELETE FROM audit_logs", "DELETE"),
            ("DELETE FROM audit_chains", "DELETE"),
            ("TRUNCATE audit_logs", "DROP"),
        ):
            with pytest.raises(DatabaseUnavailable, match=f"{right} command denied"):
                await try_to(database, statement)
    finally:
        await database.close()


async def try_to(database: Database, statement: str) -> None:
    """Run a statement in a transaction."""
    async with database.write() as connection:
        await connection.execute(text(statement))


async def use_everything(telephony: Telephony) -> None:
    """Make, change and delete each thing, and let calls come and go."""
    ours, root = telephony.ours, telephony.root
    ids = await make_everything(telephony, "+4930111")
    async with live_call(telephony, "+4930333") as call_id:
        await ours.post(f"/v1/calls/{call_id}/hangup")
    await ours.eventually(f"/v1/calls/{call_id}", lambda call: call["tm_hangup"])
    changes = {"agents": "agent_id", "numbers": "number_id", "flows": "flow_id"}
    for resource, name in changes.items():
        path = f"/v1/{resource}/{ids[name][0]}"
        assert (await ours.ask("PATCH", path, {"name": "new"}, key=root)).status_code == 200
        assert (await ours.ask("DELETE", path, key=root)).status_code == 204
    for path, body, status in (
        (f"/v1/accesskeys/{ids['accesskey_id'][0]}/rotate", {"overlap_s": 0}, 200),
        (f"/v1/webhooks/{ids['webhook_id'][0]}/rotate_secret", {}, 200),
        (f"/v1/webhooks/{ids['webhook_id'][0]}/test", None, 202),
        (f"/v1/webhook_deliveries/{ids['delivery_id'][0]}/redeliver", None, 202),
        ("/v1/webhooks", {"url": CUSTOMER_URL}, 201),
    ):
        answer = await ours.ask("POST", path, body, key=root)
        assert answer.status_code == status, answer.text
    assert (await ours.ask("POST", "/v1/flows", {}, key=root)).status_code == 422
    path = f"/v1/customers/{telephony.theirs.id}"
    assert (await ours.ask("DELETE", path, key=root)).status_code == 204
    entries = await refused(await with_role(ours, root), 1)
    assert entries[0]["error"] == "invalid"
