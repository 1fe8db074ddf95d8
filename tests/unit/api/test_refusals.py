"""Which answers are refused changes, and how many of them wait to be written."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from mediad.api import refusals
from mediad.api.access import Access
from mediad.api.errors import ApiError
from mediad.api.refusals import MAX_PER_MINUTE, Refusals, refused_change
from mediad.errors import DatabaseUnavailable
from mediad.metrics import Metrics
from mediad.store import audit
from mediad.store.audit import Actor, Change

ACCESS = Access("default", "key", "viewer", "default", Actor("key"))
FORBIDDEN = ApiError(403, "forbidden", "no")


def answered(
    method: str,
    path: str,
    error: ApiError | None = FORBIDDEN,
    access: Access | None = ACCESS,
) -> Scope:
    """Return the scope of a request after its answer."""
    return {"method": method, "path": path, "state": {"access": access, "error": error}}


@pytest.mark.parametrize(
    ("method", "path", "action", "type_", "id"),
    [
        ("POST", "/v1/agents", "create", "agent", ""),
        ("PATCH", "/v1/numbers/n1", "update", "number", "n1"),
        ("DELETE", "/v1/customers/c1", "delete", "customer", "c1"),
        ("POST", "/v1/accesskeys/k1/rotate", "rotate", "accesskey", "k1"),
        ("POST", "/v1/webhooks/w1/rotate_secret", "rotate_secret", "webhook", "w1"),
        ("POST", "/v1/webhooks/w1/test", "test", "webhook", "w1"),
        ("POST", "/v1/webhook_deliveries/d1/redeliver", "redeliver", "webhook_delivery", "d1"),
    ],
)
def test_a_refused_change(method: str, path: str, action: str, type_: str, id: str) -> None:
    expected = Change("default", action, type_, id, error="forbidden")
    assert refused_change(answered(method, path)) == expected


@pytest.mark.parametrize(
    "scope",
    [
        answered("POST", "/v1/agents", error=None),
        answered("POST", "/v1/agents", access=None),
        answered("POST", "/v1/agents", ApiError(503, "busy", "later")),
        answered("POST", "/v1/agents", ApiError(429, "rate_limited", "later")),
        answered("GET", "/v1/agents"),
        answered("PUT", "/v1/agents"),
        answered("POST", "/v1/calls"),
        answered("POST", "/v1/dialplan/calls"),
        answered("POST", "/v1/agents/a1/anything"),
        answered("PATCH", f"/v1/agents/{'x' * 37}"),
        answered("POST", "/v1/nothing"),
        {"type": "websocket", "path": "/v1/ws"},
    ],
)
def test_what_is_no_refused_change(scope: Scope) -> None:
    assert refused_change(scope) is None


class App:
    """Answers, then lets `Refusals` write into what stands for a database."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.metrics = Metrics()
        self.written: list[Change] = []
        self.failure: Exception | None = None
        self.goes_on = asyncio.Event()
        self.goes_on.set()
        services = SimpleNamespace(metrics=self.metrics, database=self)
        self._app = SimpleNamespace(state=SimpleNamespace(services=services))
        self._refusals = Refusals(self._answer)
        monkeypatch.setattr(audit, "record", self._record)

    @property
    def dropped(self) -> float | None:
        return self.metrics.registry.get_sample_value("mediad_audit_dropped_refusals_total")

    @asynccontextmanager
    async def write(self) -> AsyncIterator[None]:
        if self.failure is not None:
            raise self.failure
        await self.goes_on.wait()
        yield

    async def ask(self, key_id: str = "key") -> None:
        access = replace(ACCESS, key_id=key_id)
        scope = {**answered("POST", "/v1/agents", access=access), "app": self._app}
        await self._refusals(scope, None, None)  # type: ignore[arg-type]

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The answer is in the scope."""

    async def _record(self, connection: Any, actor: Actor, changes: list[Change]) -> None:
        assert actor is ACCESS.actor
        self.written += changes


async def test_a_refusal_is_written_once_it_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    app = App(monkeypatch)
    await app.ask()
    assert app.written == [Change("default", "create", "agent", "", error="forbidden")]
    assert app.dropped == 0


async def test_so_many_refusals_wait_and_more_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "MAX_WAITING", 3)
    app = App(monkeypatch)
    app.goes_on.clear()
    waiting = [asyncio.create_task(app.ask()) for _ in range(3)]
    await asyncio.sleep(0)
    await app.ask()  # does not wait
    assert (len(app.written), app.dropped) == (0, 1)
    app.goes_on.set()
    await asyncio.gather(*waiting)
    assert (len(app.written), app.dropped) == (3, 1)
    await app.ask()
    assert (len(app.written), app.dropped) == (4, 1)


async def test_of_one_key_so_many_a_minute_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000_000.0
    monkeypatch.setattr(refusals, "now_s", lambda: now)
    app = App(monkeypatch)
    for _ in range(MAX_PER_MINUTE + 3):
        await app.ask()
    assert (len(app.written), app.dropped) == (MAX_PER_MINUTE, 3)
    await app.ask("another")
    now += 60.0
    await app.ask()
    assert (len(app.written), app.dropped) == (MAX_PER_MINUTE + 2, 3)


async def test_without_a_database_a_refusal_is_counted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app = App(monkeypatch)
    app.failure = DatabaseUnavailable("away")
    await app.ask()
    assert (app.written, app.dropped, caplog.text) == ([], 1, "")


async def test_an_error_of_our_own_is_logged_and_the_refusal_counted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app = App(monkeypatch)
    app.failure = RuntimeError("a detail")
    await app.ask()
    assert (app.written, app.dropped) == ([], 1)
    assert "a refused change is not in the audit log" in caplog.text
    assert "a detail" in caplog.text


async def test_a_refusal_that_is_cut_off_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    app = App(monkeypatch)
    app.goes_on.clear()
    asking = asyncio.create_task(app.ask())
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert (app.written, app.dropped) == ([], 1)
