"""Whoever has no good key is refused before anything of the body is read."""

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.requests import HTTPConnection
from starlette.types import Message, Receive, Scope, Send

from mediad.api import access
from mediad.api.access import Access, KeyCheck, Role
from mediad.api.errors import ApiError
from mediad.api.request_ids import Begun
from mediad.errors import DatabaseUnavailable
from mediad.store.accesskeys import AccessKey
from mediad.store.audit import Actor
from mediad.store.types import NEVER

OURS = Access("default", "key", "viewer", "default", Actor("key"))


class App:
    """Keeps who asked."""

    def __init__(self) -> None:
        self.asked: list[Access | None] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked.append(scope.get("state", {}).get("access"))


async def ask(check: KeyCheck, path: str = "/v1/flows", type_: str = "http") -> tuple[int, Any]:
    """Post a body that must not be read; return status and reason, or 0 if it was let in."""
    sent: list[Message] = []

    async def receive() -> Message:
        raise AssertionError("the body is read")

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": type_, "path": path, "method": "POST", "headers": [], "app": SimpleNamespace()}
    await check(scope, receive, send)
    if not sent:
        return 0, None
    headers = dict(sent[0]["headers"])
    body = sent[1]["body"]
    reason = json.loads(body)["error"]["reason"] if body else headers[b"x-mediad-reason"].decode()
    return sent[0]["status"], reason


def let_authenticate(monkeypatch: pytest.MonkeyPatch, result: Access | Exception) -> None:
    """Find this out of whoever asks."""

    async def authenticate(_: object) -> Access:
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(access, "authenticate", authenticate)


async def test_who_asks_is_noted_for_the_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    let_authenticate(monkeypatch, OURS)
    app = App()
    assert await ask(KeyCheck(app)) == (0, None)
    assert app.asked == [OURS]


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (ApiError(401, "unauthorized", "no key"), 401, "unauthorized"),
        (ApiError(403, "forbidden", "not from here"), 403, "forbidden"),
        (ApiError(429, "rate_limited", "too often"), 429, "rate_limited"),
        (DatabaseUnavailable("gone"), 503, "database_unavailable"),
    ],
)
async def test_who_may_not_is_answered_before_the_body(
    monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, reason: str
) -> None:
    let_authenticate(monkeypatch, error)
    app = App()
    assert await ask(KeyCheck(app)) == (status, reason)
    assert await ask(KeyCheck(app), "/v1/dialplan/calls") == (200, reason)
    assert app.asked == []


async def test_what_needs_no_key_is_let_in_without(monkeypatch: pytest.MonkeyPatch) -> None:
    let_authenticate(monkeypatch, ApiError(401, "unauthorized", "no key"))
    app = App()
    for path, type_ in (("/healthz", "http"), ("/metrics", "http"), ("/v1/ws", "websocket")):
        assert await ask(KeyCheck(app), path, type_) == (0, None)
    assert app.asked == [None] * 3


async def test_so_many_wait_for_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = asyncio.Event()

    async def authenticate(_: object) -> Access:
        await answers.wait()
        return OURS

    monkeypatch.setattr(access, "authenticate", authenticate)
    monkeypatch.setattr(access, "MAX_WAITING", 2)
    app = App()
    check = KeyCheck(app)
    waiting = [asyncio.create_task(ask(check)) for _ in range(2)]
    await asyncio.sleep(0)
    assert await ask(check) == (503, "busy")
    answers.set()
    assert await asyncio.gather(*waiting) == [(0, None)] * 2
    assert await ask(check) == (0, None)
    assert app.asked == [OURS] * 3


@pytest.mark.parametrize(
    ("role", "allowed_ips", "reason"),
    [
        ("admin", ["192.0.2.0/24"], "forbidden"),
        ("admin", None, "forbidden"),
        ("root", None, "no_such_customer"),
    ],
)
async def test_whose_key_it_is_is_noted_though_it_is_refused(
    role: Role, allowed_ips: list[str] | None, reason: str
) -> None:
    times = {"tm_create": NEVER, "tm_update": NEVER, "tm_delete": NEVER, "tm_expire": None}
    key = {"name": "", "role": role, "prefix": "mk_", "allowed_ips": allowed_ips}
    row = AccessKey.model_validate({"id": "k", "customer_id": "default", **key, **times})

    async def has_customer(*_: object) -> bool:
        return False

    keys = SimpleNamespace(known=lambda _: row, has_customer=has_customer)
    http = SimpleNamespace(max_requests_per_minute=0)
    services = SimpleNamespace(keys=keys, database=None, settings=SimpleNamespace(http=http))
    scope: Scope = {
        "type": "http",
        "path": "/v1/agents",
        "headers": [(b"accesskey", b"mk_x"), (b"x-mediad-customer", b"another")],
        "client": ("127.0.0.1", 1),
        "app": SimpleNamespace(state=SimpleNamespace(services=services)),
        "state": {"begun": Begun("r", 0.0)},
    }
    with pytest.raises(ApiError) as error:
        await access.authenticate(HTTPConnection(scope))
    assert (error.value.status, error.value.body.error.reason) == (403, reason)
    actor = Actor("k", "127.0.0.1", None, "r", 0.0)
    assert scope["state"]["access"] == Access("default", "k", role, "default", actor)
