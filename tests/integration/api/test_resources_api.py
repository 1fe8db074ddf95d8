"""The API's resources and who may use them: a mediad with its embedded database, over HTTP."""

import json
import sqlite3
import stat
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from click.testing import CliRunner
from fastapi.routing import APIRoute
from prometheus_client import CollectorRegistry

from mediad.api import http as http_port
from mediad.api.access import Admin, Operator, Root, Viewer
from mediad.api.http import make_app
from mediad.config import Settings
from mediad.store.keys_command import keys
from tests.integration.daemon import Daemon, running, settings

AGENT = {"name": "bakery", "config": {"prompt": "You answer the telephone."}}
FLOW = {"name": "hello", "actions": [{"type": "answer"}]}
ROLES = ("viewer", "operator", "admin", "root")


class Api:
    """A client of a running mediad, with the key that it made at its start."""

    def __init__(self, daemon: Daemon, http: httpx.AsyncClient, root: str) -> None:
        self.daemon = daemon
        self.http = http
        self.root = root

    async def ask(
        self, method: str, path: str, body: object = None, key: str | None = None, **headers: str
    ) -> httpx.Response:
        """Send a request, as root unless another key is given."""
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        headers["AccessKey"] = self.root if key is None else key
        if body is None:
            return await self.http.request(method, path, headers=headers)
        return await self.http.request(method, path, headers=headers, json=body)

    async def key(self, role: str, **headers: str) -> str:
        """Make a key."""
        made = await self.ask("POST", "/v1/accesskeys", {"role": role}, **headers)
        assert made.status_code == 201, made.text
        return str(made.json()["key"])


@pytest.fixture
def wanted(request: pytest.FixtureRequest) -> Settings:
    """The settings; a parameter is of ``[http]``."""
    made = settings("ws://127.0.0.1:9")
    http = made.http.model_copy(update=getattr(request, "param", {}))
    return made.model_copy(update={"http": http})


@pytest.fixture
async def api(wanted: Settings) -> AsyncIterator[Api]:
    """A running mediad."""
    async with running(wanted) as daemon:
        key = (wanted.database.state_directory / "access_key").read_text().strip()
        url = "http://{}:{}".format(*daemon.app.http_address)
        async with httpx.AsyncClient(base_url=url) as http:
            yield Api(daemon, http, key)


def routes() -> list[tuple[str, str, str]]:
    """Return method, path and least role of all endpoints under /v1."""
    found = []
    for resource in http_port._RESOURCES:
        for route in resource.router.routes:
            if isinstance(route, APIRoute):
                access = route.endpoint.__annotations__["access"]
                role = ROLES[(Viewer, Operator, Admin, Root).index(access)]
                found += [(method, f"/v1{route.path}", role) for method in route.methods or ()]
    return sorted(found)


def url_of(path: str, id: str = "") -> str:
    """Fill in an id."""
    return "/".join((id or str(uuid4())) if "{" in part else part for part in path.split("/"))


def test_every_route_is_served() -> None:
    paths = make_app(CollectorRegistry(), dict, dict).openapi()["paths"]
    assert {path for _, path, _ in routes()} == {path for path in paths if path.startswith("/v1")}


async def test_nobody_gets_past_the_keys(api: Api) -> None:
    keys_ = {role: await api.key(role) for role in ROLES}
    for method, path, role in routes():
        if path.startswith("/v1/dialplan"):
            answer = await api.http.request(method, url_of(path))
            assert (answer.status_code, answer.text) == (200, "")
            continue
        answer = await api.http.request(method, url_of(path))
        assert answer.status_code == 401, (method, path)
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.json()["error"]["reason"] == "unauthorized"
        for lower in ROLES[: ROLES.index(role)]:
            answer = await api.ask(method, url_of(path), {}, key=keys_[lower])
            assert (answer.status_code, answer.json()["error"]["reason"]) == (403, "forbidden")
        if "{" in path and method in ("GET", "DELETE"):
            answer = await api.ask(method, url_of(path))
            assert answer.status_code == 404, (method, path)


async def test_wrong_keys_are_limited_and_good_ones_are_not(api: Api) -> None:
    assert (await api.ask("GET", "/v1/me")).status_code == 200
    statuses = [
        (await api.ask("GET", "/v1/me", key=f"mk_{number}")).status_code for number in range(25)
    ]
    assert statuses == [401] * 20 + [429] * 5
    await api.key("viewer")
    await api.ask("POST", "/v1/customers", {"name": "other"})
    other = (await api.ask("GET", "/v1/customers")).json()["result"][0]["id"]
    await api.ask("DELETE", f"/v1/customers/{other}")  # all keys are looked up again
    assert (await api.ask("GET", "/v1/me")).status_code == 200


async def test_a_customer_does_not_see_what_another_one_has(api: Api) -> None:
    made = await api.ask("POST", "/v1/customers", {"name": "other"})
    assert made.status_code == 201
    other = await api.key("admin", X_Mediad_Customer=made.json()["id"])
    for resource, body in (("agents", AGENT), ("flows", FLOW), ("numbers", {"number": "+4930111"})):
        row = (await api.ask("POST", f"/v1/{resource}", body)).json()
        path = f"/v1/{resource}/{row['id']}"
        assert (await api.ask("GET", path)).status_code == 200
        for method, sent in (("GET", None), ("DELETE", None), ("PATCH", {})):
            assert (await api.ask(method, path, sent, key=other)).status_code == 404, path
        assert (await api.ask("GET", f"/v1/{resource}", key=other)).json()["result"] == []
    mine = (await api.ask("GET", "/v1/accesskeys")).json()["result"][0]["id"]
    assert (await api.ask("DELETE", f"/v1/accesskeys/{mine}", key=other)).status_code == 404
    taken = await api.ask("POST", "/v1/numbers", {"number": "+4930111"}, key=other)
    assert (taken.status_code, taken.json()["error"]["reason"]) == (409, "number_taken")
    foreign = await api.ask("GET", "/v1/me", key=other, X_Mediad_Customer="default")
    assert foreign.status_code == 403


@pytest.mark.parametrize(
    ("resource", "body", "change"),
    [
        ("agents", AGENT, {"name": "shop"}),
        ("flows", FLOW, {"name": "shop"}),
        ("numbers", {"number": "+4930111"}, {"name": "shop"}),
        ("customers", {"name": "other"}, {"name": "shop"}),
    ],
)
async def test_a_row_from_its_making_to_its_end(
    api: Api, resource: str, body: Any, change: Any
) -> None:
    made = await api.ask("POST", f"/v1/{resource}", body)
    assert made.status_code == 201, made.text
    path = f"/v1/{resource}/{made.json()['id']}"
    changed = await api.ask("PATCH", path, change)
    assert changed.status_code == 200, changed.text
    assert changed.json()["name"] == "shop"
    assert (await api.ask("GET", path)).json() == changed.json()
    listed = (await api.ask("GET", f"/v1/{resource}?page_size=1")).json()
    assert [row["id"] for row in listed["result"]] == [made.json()["id"]]
    assert (await api.ask("PATCH", path, {"colour": 1})).status_code == 422
    assert (await api.ask("GET", f"/v1/{resource}?page_token=x")).status_code == 422
    assert (await api.ask("DELETE", path)).status_code == 204
    assert (await api.ask("GET", path)).status_code == 404
    if resource != "customers":  # its entries are its own
        logged = (await api.ask("GET", "/v1/audit_logs?success=true")).json()["result"]
        assert [entry["action"] for entry in logged[:3]] == ["delete", "update", "create"]
        me = (await api.ask("GET", "/v1/me")).json()
        assert {entry["actor_id"] for entry in logged[:3]} == {me["accesskey_id"]}


async def test_root_does_not_lock_itself_out_whoever_it_acts_for(api: Api) -> None:
    other = (await api.ask("POST", "/v1/customers", {"name": "other"})).json()["id"]
    for acting in ({}, {"X_Mediad_Customer": other}):
        for method, body in (("PATCH", {"status": "inactive"}), ("DELETE", None)):
            refused = await api.ask(method, "/v1/customers/default", body, **acting)
            assert (refused.status_code, refused.json()["error"]["reason"]) == (409, "in_use")
    assert (await api.ask("GET", "/v1/me")).status_code == 200
    path = f"/v1/customers/{other}"
    for body in ({"status": "inactive"}, {"status": "active"}):
        answer = await api.ask("PATCH", path, body, X_Mediad_Customer="default")
        assert answer.status_code == 200
    assert (await api.ask("DELETE", path, X_Mediad_Customer=other)).status_code == 204


async def test_a_test_of_a_webhook_is_in_the_audit_log(api: Api) -> None:
    made = (await api.ask("POST", "/v1/webhooks", {"url": "https://127.0.0.1:9/hook"})).json()
    assert (await api.ask("POST", f"/v1/webhooks/{made['id']}/test")).status_code == 202
    logged = (await api.ask("GET", f"/v1/audit_logs?resource_id={made['id']}")).json()["result"]
    assert [entry["action"] for entry in logged] == ["test", "create"]
    me = (await api.ask("GET", "/v1/me")).json()
    assert {entry["actor_id"] for entry in logged} == {me["accesskey_id"]}


async def test_keys_are_shown_once_rotated_and_revoked(api: Api) -> None:
    made = (await api.ask("POST", "/v1/accesskeys", {"role": "viewer"})).json()
    path = f"/v1/accesskeys/{made['id']}"
    for text in ((await api.ask("GET", path)).text, (await api.ask("GET", "/v1/audit_logs")).text):
        assert made["key"] not in text
        assert "key_hash" not in text
    new = (await api.ask("POST", f"{path}/rotate", {"overlap_s": 60})).json()
    for key in (made["key"], new["key"]):
        assert (await api.ask("GET", "/v1/me", key=key)).status_code == 200
    assert (await api.ask("DELETE", path)).status_code == 204
    assert (await api.ask("GET", "/v1/me", key=made["key"])).status_code == 401
    assert (await api.ask("GET", "/v1/me", key=new["key"])).status_code == 200
    await api.ask("POST", f"/v1/accesskeys/{new['id']}/rotate", {"overlap_s": 0})
    assert (await api.ask("GET", "/v1/me", key=new["key"])).status_code == 401


async def test_an_expired_key_is_rotated_only_with_a_new_end(api: Api) -> None:
    past, future = "2020-01-01T00:00:00Z", "2100-01-01T00:00:00Z"
    made = (await api.ask("POST", "/v1/accesskeys", {"tm_expire": past})).json()
    path = f"/v1/accesskeys/{made['id']}/rotate"
    before = (await api.ask("GET", "/v1/accesskeys")).json()
    for body in ({}, {"tm_expire": past}):
        refused = await api.ask("POST", path, body)
        assert (refused.status_code, refused.json()["error"]["reason"]) == (409, "expired")
    assert (await api.ask("GET", "/v1/accesskeys")).json() == before
    for end in (future, None):
        new = (await api.ask("POST", path, {"tm_expire": end})).json()
        assert new["tm_expire"] == end
        assert (await api.ask("GET", "/v1/me", key=new["key"])).status_code == 200
        assert (await api.ask("GET", "/v1/me", key=made["key"])).status_code == 401
    same = await api.ask("POST", f"/v1/accesskeys/{new['id']}/rotate", {})
    assert same.json()["tm_expire"] is None


async def test_a_key_has_no_more_rights_than_who_made_it(api: Api) -> None:
    admin = await api.key("admin")
    refused = await api.ask("POST", "/v1/accesskeys", {"role": "root"}, key=admin)
    assert refused.status_code == 403
    elsewhere = {"role": "viewer", "allowed_ips": ["10.0.0.0/8"]}
    key = (await api.ask("POST", "/v1/accesskeys", elsewhere)).json()["key"]
    assert (await api.ask("GET", "/v1/me", key=key)).status_code == 403


@pytest.mark.parametrize("wanted", [{"max_requests_per_minute": 3}], indirect=True)
async def test_a_key_has_so_many_requests_a_minute(api: Api) -> None:
    answers = [await api.ask("GET", "/v1/me") for _ in range(10)]
    assert 429 in [answer.status_code for answer in answers]
    assert answers[0].headers["x-ratelimit-limit"] == "3"
    assert answers[0].headers["x-ratelimit-remaining"] == "2"  # each is counted once
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.json()["error"]["reason"] == "rate_limited"
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert refused.headers["x-ratelimit-remaining"] == "0"


async def test_what_is_wrong_is_said_in_one_form(api: Api) -> None:
    key = {"AccessKey": api.root}
    large = await api.http.post("/v1/agents", content=b"x" * (2 << 20), headers=key)
    assert (large.status_code, large.json()["error"]["reason"]) == (413, "too_large")
    long = await api.http.get("/v1/agents", headers={"x": "x" * 40_000})
    assert (long.status_code, long.json()["error"]["reason"]) == (431, "long_headers")
    nothing = await api.ask("GET", "/v1/nothing")
    assert (nothing.status_code, nothing.json()["error"]["reason"]) == (404, "not_found")
    method = await api.ask("PUT", "/v1/agents", {})
    assert (method.status_code, method.json()["error"]["reason"]) == (405, "method_not_allowed")
    invalid = await api.ask("POST", "/v1/agents", {"name": ""})
    assert (invalid.status_code, invalid.json()["error"]["reason"]) == (422, "invalid")

    override = {"number": "+4930111", "agent_config_override": {"voice": {"colour\ud800": 1}}}
    content = json.dumps(override).encode()  # the half of a character is not repeated
    headers = {"AccessKey": api.root, "Content-Type": "application/json"}
    answer = await api.http.post("/v1/numbers", content=content, headers=headers)
    assert (answer.status_code, answer.json()["error"]["reason"]) == (422, "invalid")
    assert "agent_config_override" in answer.json()["error"]["message"]

    # What passes for JSON, but no database keeps it: not a number, and half a character.
    for value in ("NaN", "1e999", '"\\ud800"'):
        body = f'{{"name": "x", "actions": [{{"type": "a", "b": {value}}}]}}'
        headers = {"AccessKey": api.root, "Content-Type": "application/json"}
        answer = await api.http.post("/v1/flows", content=body, headers=headers)
        assert (answer.status_code, answer.json()["error"]["reason"]) == (422, "invalid"), value

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"x" * (1 << 19)

    chunked = await api.http.post("/v1/agents", content=chunks(), headers=key)
    assert chunked.status_code == 413


async def test_the_first_key_is_in_a_file_for_its_owner_only(api: Api, wanted: Settings) -> None:
    path = wanted.database.state_directory / "access_key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    me = (await api.ask("GET", "/v1/me")).json()
    assert (me["customer_id"], me["role"]) == ("default", "root")


def test_keys_by_command(tmp_path: Path) -> None:
    environment = {"MEDIAD_DATABASE__DIRECTORY": str(tmp_path)}

    def run(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(keys, arguments, env=environment)
        return result.exit_code, result.output

    status, output = run("create", "--role", "viewer", "--name", "phone", "--json")
    assert status == 0, output
    made = json.loads(output)
    status, output = run("rotate", made["id"], "--overlap", "60")
    assert (status, output[:3]) == (0, "mk_")
    status, output = run("list", "--json")
    assert [row["name"] for row in json.loads(output)] == ["phone", "phone"]
    assert made["key"] not in output
    assert run("revoke", made["id"])[0] == 0
    status, output = run("revoke", made["id"])
    assert (status, "no access key" in output) == (1, True)
    assert run("create", "--role", "king")[0] == 2
    assert run("create", "--customer", "nobody")[0] == 1
    query = "SELECT actor_id, count(*) FROM audit_logs WHERE resource_type = 'accesskey' GROUP BY 1"
    with closing(sqlite3.connect(tmp_path / "mediad.db")) as database:
        assert database.execute(query).fetchall() == [("mediad keys", 4)]
    made = json.loads(run("create", "--json", "--customer", "default ")[1])
    assert made["customer_id"] == "default"
    assert run("rotate", made["id"], "--overlap", "0")[0] == 0
    status, output = run("rotate", made["id"])
    assert (status, "has expired" in output) == (1, True)
