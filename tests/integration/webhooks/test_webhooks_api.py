"""Webhooks and deliveries over HTTP: secrets are shown once, nobody sees another customer's."""

from collections.abc import AsyncIterator
from types import SimpleNamespace

import httpx
import pytest
from fastapi import FastAPI

from mediad.api import access as access_module
from mediad.api import webhook_deliveries, webhooks
from mediad.api.errors import register_errors
from mediad.cache import open_cache
from mediad.config import Settings
from mediad.metrics import Metrics
from mediad.store import audit
from mediad.store.audit import EntryFilter
from mediad.store.database import Database
from tests.facts import CallFacts
from tests.integration.webhooks.receiver import Receiver, happen, running
from tests.integration.webhooks.test_events_socket import authenticate


@pytest.fixture
async def http(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[httpx.AsyncClient]:
    """The two resources, asked by an admin of the default customer."""
    monkeypatch.setattr(access_module, "authenticate", authenticate)
    app = FastAPI()
    settings, metrics = Settings(), Metrics()
    cache = open_cache(settings.redis, settings.cache, metrics)
    app.state.services = SimpleNamespace(
        settings=settings, metrics=metrics, database=database, cache=cache
    )
    register_errors(app)
    app.add_middleware(access_module.KeyCheck)
    app.include_router(webhooks.router, prefix="/v1")
    app.include_router(webhook_deliveries.router, prefix="/v1")
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app),
        base_url="http://mediad/v1",
        headers={"accesskey": "default:admin"},
    ) as client:
        yield client


STRANGER = {"accesskey": "other:admin"}
NEW = {"url": "https://example.com/hook", "events": ["call_*"]}


async def test_a_webhook_is_made_changed_and_deleted(
    http: httpx.AsyncClient, database: Database
) -> None:
    made = (await http.post("/webhooks", json=NEW)).json()
    secret = made.pop("secret")
    assert secret.startswith("whsec_")
    path = f"/webhooks/{made['id']}"
    assert (await http.get(path)).json() == made
    assert (await http.get("/webhooks")).json() == {"result": [made], "next_page_token": None}
    changed = await http.patch(path, json={"status": "inactive"})
    assert changed.json()["status"] == "inactive"
    assert changed.json()["url"] == NEW["url"]
    rotated = (await http.post(f"{path}/rotate_secret", json={"overlap_s": 60})).json()
    assert rotated["secret"] not in ("", secret)
    assert (await http.delete(path)).status_code == 204
    assert (await http.get(path)).json()["error"]["reason"] == "not_found"
    async with database.read() as connection:
        entries = await audit.list_entries(
            connection, "default", EntryFilter(resource_id=made["id"])
        )
    assert [entry.action for entry in entries.items] == [
        "delete",
        "rotate_secret",
        "update",
        "create",
    ]
    assert "whsec" not in str(entries)


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "ftp://example.com/"},
        {"url": "http:///path"},
        {"url": "http://user:password@example.com/"},
        {"url": "http://example.com:99999/"},
        {"events": ["*_hungup"]},
        {"secret": "mine"},
    ],
)
async def test_what_is_wrong_is_refused(http: httpx.AsyncClient, wrong: dict[str, object]) -> None:
    assert (await http.post("/webhooks", json=NEW | wrong)).status_code == 422
    made = (await http.post("/webhooks", json=NEW)).json()
    assert (await http.patch(f"/webhooks/{made['id']}", json=wrong)).status_code == 422


async def test_another_customers_are_not_there(http: httpx.AsyncClient) -> None:
    made = (await http.post("/webhooks", json=NEW)).json()
    path = f"/webhooks/{made['id']}"
    delivery = (await http.post(f"{path}/test")).json()
    for method, asked in [
        ("GET", path),
        ("PATCH", path),
        ("DELETE", path),
        ("POST", f"{path}/rotate_secret"),
        ("POST", f"{path}/test"),
        ("GET", f"/webhook_deliveries/{delivery['id']}"),
        ("POST", f"/webhook_deliveries/{delivery['id']}/redeliver"),
    ]:
        body: dict[str, object] | None = {} if asked == path or "rotate" in asked else None
        answer = await http.request(method, asked, headers=STRANGER, json=body)
        assert answer.status_code == 404, (method, asked)
        assert (await http.request(method, asked, headers={"accesskey": ""})).status_code == 401
    for asked in ("/webhooks", "/webhook_deliveries"):
        assert (await http.get(asked, headers=STRANGER)).json()["result"] == []
    assert (await http.get("/webhook_deliveries", headers=STRANGER)).status_code == 200


async def test_a_customer_has_twenty(http: httpx.AsyncClient) -> None:
    answers = [await http.post("/webhooks", json=NEW) for _ in range(21)]
    assert [answer.status_code for answer in answers] == [201] * 20 + [409]


async def test_deliveries_are_listed_and_made_again(
    http: httpx.AsyncClient, database: Database
) -> None:
    async with Receiver() as receiver, running(database) as rig:
        made = (await http.post("/webhooks", json={"url": receiver.url})).json()
        await happen(database, CallFacts().whole(2), rig.bus)
        await receiver.received(6)
        await rig.settle()
        page = (await http.get("/webhook_deliveries?page_size=4")).json()
        token = page["next_page_token"]
        rest = (await http.get(f"/webhook_deliveries?page_size=4&page_token={token}")).json()
        found = page["result"] + rest["result"]
        assert len({delivery["id"] for delivery in found}) == 6
        asked = f"/webhook_deliveries?status=delivered&webhook_id={made['id']}"
        assert len((await http.get(asked)).json()["result"]) == 6
        assert (await http.get("/webhook_deliveries?page_token=!")).status_code == 422
        one = found[0]
        again = await http.post(f"/webhook_deliveries/{one['id']}/redeliver")
        assert (again.status_code, again.json()["status"]) == (202, "pending")
        await receiver.received(7)
        await rig.settle()
        after = (await http.get(f"/webhook_deliveries/{one['id']}")).json()
    assert receiver.requests[6].headers["webhook-id"] == one["event_id"]
    assert (after["status"], after["attempts"], len(after["attempt_log"])) == ("delivered", 1, 2)


@pytest.mark.parametrize("is_deleted", [False, True])
async def test_nothing_is_sent_again_to_a_webhook_that_is_told_nothing(
    http: httpx.AsyncClient, is_deleted: bool
) -> None:
    path = f"/webhooks/{(await http.post('/webhooks', json=NEW)).json()['id']}"
    delivery = (await http.post(f"{path}/test")).json()
    if is_deleted:
        await http.delete(path)
    else:
        await http.patch(path, json={"status": "inactive"})
    again = await http.post(f"/webhook_deliveries/{delivery['id']}/redeliver")
    assert (again.status_code, again.json()["error"]["reason"]) == (409, "inactive")
    unchanged = (await http.get(f"/webhook_deliveries/{delivery['id']}")).json()
    assert unchanged == delivery
