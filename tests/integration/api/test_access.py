"""Nobody gets past the access keys, at any endpoint that is served: the paths are those of the
OpenAPI, and one that has no line in the table here makes the test fail.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import httpx
import pytest

from mediad.api.access import Role
from tests.integration.api.calls_client import Telephony, open_telephony
from tests.integration.api.everything import (
    CUSTOMER_URL,
    PROMPT,
    live_call,
    make_everything,
    settings_with_agent,
)

NUMBER = "+4930111"
AGENT = {"name": "a", "config": {"prompt": "Be brief, please."}}
ROLES: tuple[Role, ...] = ("viewer", "operator", "admin", "root")


class Endpoint(NamedTuple):
    """What an endpoint asks for."""

    role: Role
    body: dict[str, Any] | None = None


def read_only(resource: str, id: str) -> dict[str, Endpoint]:
    """Return the endpoints of what can be read only."""
    paths = (f"GET /v1/{resource}", f"GET /v1/{resource}/{{{id}}}")
    return dict.fromkeys(paths, Endpoint("viewer"))


def changing(
    resource: str, id: str, new: dict[str, Any], changes: Role = "admin", reads: Role = "viewer"
) -> dict[str, Endpoint]:
    """Return the endpoints of what is made, changed and deleted."""
    return {
        f"GET /v1/{resource}": Endpoint(reads),
        f"POST /v1/{resource}": Endpoint(changes, new),
        f"GET /v1/{resource}/{{{id}}}": Endpoint(reads),
        f"PATCH /v1/{resource}/{{{id}}}": Endpoint(changes, {}),
        f"DELETE /v1/{resource}/{{{id}}}": Endpoint(changes),
    }


ACCESSKEYS = changing("accesskeys", "accesskey_id", {}, reads="admin")
del ACCESSKEYS["PATCH /v1/accesskeys/{accesskey_id}"]

ENDPOINTS = {
    "GET /v1/me": Endpoint("viewer"),
    **changing("customers", "customer_id", {"name": "new"}, changes="root", reads="root"),
    **ACCESSKEYS,
    "POST /v1/accesskeys/{accesskey_id}/rotate": Endpoint("admin", {"overlap_s": 0}),
    **changing("agents", "agent_id", AGENT),
    **changing("numbers", "number_id", {"number": "+4930222"}),
    **changing("flows", "flow_id", {"name": "f", "actions": []}),
    **read_only("calls", "call_id"),
    "GET /v1/calls/{call_id}/transcript": Endpoint("viewer"),
    "POST /v1/calls": Endpoint("operator", {"to": NUMBER}),
    "POST /v1/calls/{call_id}/hangup": Endpoint("operator"),
    "POST /v1/calls/{call_id}/say": Endpoint("operator", {"text": "x"}),
    "POST /v1/calls/{call_id}/play": Endpoint("operator", {"prompt": PROMPT}),
    "POST /v1/calls/{call_id}/inject": Endpoint("operator", {"text": "x"}),
    "POST /v1/calls/{call_id}/mute": Endpoint("operator", {"who": "agent"}),
    "POST /v1/calls/{call_id}/unmute": Endpoint("operator", {"who": "agent"}),
    "POST /v1/dialplan/calls": Endpoint("operator"),
    "GET /v1/dialplan/calls/{call_id}/next": Endpoint("operator"),
    **read_only("transcribes", "transcribe_id"),
    **read_only("transcripts", "transcript_id"),
    **read_only("recordings", "recording_id"),
    **changing("webhooks", "webhook_id", {"url": CUSTOMER_URL}),
    "POST /v1/webhooks/{webhook_id}/rotate_secret": Endpoint("admin", {"overlap_s": 0}),
    "POST /v1/webhooks/{webhook_id}/test": Endpoint("operator"),
    **read_only("webhook_deliveries", "delivery_id"),
    "POST /v1/webhook_deliveries/{delivery_id}/redeliver": Endpoint("operator"),
    "GET /v1/audit_logs": Endpoint("admin"),
}
OPEN = {"GET /healthz", "GET /readyz", "GET /metrics"}

LISTED_BY = {"GET /v1/transcripts": "call_id"}
"""Lists that need to be told of what."""


class Place(NamedTuple):
    """An endpoint with everything filled in."""

    name: str
    method: str
    path: str
    role: Role
    body: dict[str, Any] | None

    @property
    def is_dialplan(self) -> bool:
        """Whether it always answers 200."""
        return self.path.startswith("/v1/dialplan/")


@pytest.fixture
async def telephony(tmp_path: Path) -> AsyncIterator[Telephony]:
    """A mediad and two customers."""
    async with settings_with_agent(tmp_path) as wanted, open_telephony(wanted) as telephony:
        yield telephony


@pytest.fixture
async def live(telephony: Telephony) -> AsyncIterator[str]:
    """A live call of a customer who has everything else, too."""
    async with live_call(telephony, "+4930333") as call_id:
        yield call_id


@pytest.fixture
async def places(telephony: Telephony, live: str) -> list[Place]:
    """Every endpoint that is served under /v1, with the ids of what the customer truly has."""
    ids = await make_everything(telephony, NUMBER)
    ids["call_id"] += (live,)
    found = []
    for name in sorted(await served(telephony) - OPEN):
        method, _, path = name.partition(" ")
        role, body = ENDPOINTS[name]
        id_name = path.partition("{")[2].partition("}")[0]
        if id_name:
            paths = [path.replace(f"{{{id_name}}}", id) for id in ids[id_name]]
        else:
            what = LISTED_BY.get(name)
            paths = [f"{path}?{what}={ids[what][0]}" if what else path]
        found += [Place(name, method, path, role, body) for path in paths]
    return found


async def served(telephony: Telephony) -> set[str]:
    """Return method and path of all endpoints, as the OpenAPI has them."""
    paths = (await telephony.nobody.get("/openapi.json"))[1]["paths"]
    return {f"{method.upper()} {path}" for path in paths for method in paths[path]}


async def test_every_endpoint_is_in_the_table(telephony: Telephony) -> None:
    assert await served(telephony) == set(ENDPOINTS) | OPEN


async def test_nothing_is_told_or_done_without_a_key(
    telephony: Telephony, places: list[Place]
) -> None:
    for place in places:
        answer = await telephony.nobody.ask(place.method, place.path, place.body)
        if place.is_dialplan:
            assert (answer.status_code, answer.text) == (200, ""), place
            assert answer.headers["x-mediad-reason"] == "unauthorized"
            continue
        assert answer.status_code == 401, place
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.json()["error"]["reason"] == "unauthorized"


async def test_a_lower_role_is_refused(telephony: Telephony, places: list[Place]) -> None:
    ours = telephony.ours
    keys = {role: await ours.new_key(role) for role in ROLES}
    for place in places:
        for lower in ROLES[: ROLES.index(place.role)]:
            answer = await ours.ask(place.method, place.path, place.body, key=keys[lower])
            if place.is_dialplan:
                assert (answer.status_code, answer.text) == (200, ""), place
                assert answer.headers["x-mediad-reason"] == "forbidden"
                continue
            assert answer.status_code == 403, (place, lower)
            assert answer.json()["error"]["reason"] == "forbidden"
        if place.method == "GET":  # the others would change what is asked for next
            answer = await ours.ask("GET", place.path, key=keys[place.role])
            assert answer.status_code == 200, (place, answer.text)


async def test_another_customers_things_are_not_there(
    telephony: Telephony, places: list[Place], live: str
) -> None:
    ours, theirs = telephony.ours, telephony.theirs
    before = await seen_by_owner(telephony, places)
    foreign = await theirs.new_key("admin")
    for place in places:
        answer = await theirs.ask(place.method, place.path, place.body, key=foreign)
        if place.role == "root":  # which is for all customers; nobody else gets that far
            assert answer.status_code == 403, place
        elif "{" not in place.name:
            await check_theirs(telephony, place, answer)
        elif place.is_dialplan:
            assert (answer.status_code, answer.text) == (200, ""), place
            assert answer.headers["x-mediad-reason"] == "not_found"
        else:
            assert answer.status_code == 404, (place, answer.text)
            assert answer.json()["error"]["reason"] == "not_found"
    assert await seen_by_owner(telephony, places) == before
    state = (await ours.get(f"/v1/calls/{live}"))[1]["live"]
    assert (state["state"], state["muted"]) == ("live", [])


async def test_nobody_registers_a_call_to_what_is_another_customers(telephony: Telephony) -> None:
    ours, theirs = telephony.ours, telephony.theirs
    agent_id = await ours.add_agent({"prompt": "Be brief, please."})
    await ours.add_number(NUMBER, agent_id)
    for fields, reason in (
        ({"to": NUMBER}, "unknown_number"),
        ({"number": NUMBER}, "unknown_number"),
        ({"to": "s", "agent_id": agent_id}, "unknown_agent"),
    ):
        status, body = await theirs.post("/v1/calls", fields)
        assert (status, body["error"]["reason"]) == (409, reason)
        form = urlencode(fields).encode()
        status, headers, text = await theirs.dialplan("POST", "/calls", form)
        assert (status, headers["x-mediad-reason"], text) == (200, reason, "")
    assert await telephony.daemon.metric("mediad_expected_calls") == 0
    assert len((await ours.dialplan("POST", "/calls", form))[2]) == 36  # it is the owner's


async def seen_by_owner(telephony: Telephony, places: list[Place]) -> dict[str, Any]:
    """Return what the owner sees of each thing, but for what changes by itself."""
    seen = {}
    for place in places:
        if place.method != "GET" or "{" not in place.name or place.is_dialplan:
            continue
        answer = await telephony.ours.ask("GET", place.path, key=telephony.root)
        assert answer.status_code == 200, (place, answer.text)
        moving = {"live", "attempts", "attempt_log", "tm_next", "tm_update"}
        seen[place.path] = {name: v for name, v in answer.json().items() if name not in moving}
    return seen


async def check_theirs(telephony: Telephony, place: Place, answer: httpx.Response) -> None:
    """Make sure that a list has something, and nothing of it for others; and that what is made is
    theirs, or is not made when it needs what is ours.
    """
    if place.path == "/v1/me":
        assert answer.json()["customer_id"] == telephony.theirs.id
        return
    if place.is_dialplan:
        assert (answer.status_code, answer.text) == (200, ""), place
        assert answer.headers["x-mediad-reason"] == "unknown_number"
        return
    if place.name == "POST /v1/calls":
        assert (answer.status_code, answer.json()["error"]["reason"]) == (409, "unknown_number")
        return
    if place.method == "POST":
        assert answer.status_code == 201, (place, answer.text)
        assert answer.json()["customer_id"] == telephony.theirs.id, place
        return
    owned = await telephony.ours.ask("GET", place.path, key=telephony.root)
    ids = {row["id"] for row in owned.json()["result"]}
    assert ids, place
    if "?" in place.path and answer.status_code == 404:  # a list of another customer's thing
        return
    assert answer.status_code == 200, (place, answer.text)
    assert ids.isdisjoint(row["id"] for row in answer.json()["result"]), place
