"""How often an endpoint may be asked in 15 minutes, and what is told to whom it is too often."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from mediad.api.access import Access
from mediad.api.endpoint_limits import limited
from mediad.api.errors import register_errors
from mediad.api.limits import Rate, RateHeaders
from mediad.cache.keys import Keys
from mediad.cache.memory import MemoryCache
from mediad.config import Http
from mediad.metrics import Metrics
from mediad.store.audit import Actor

LIMIT = 3

Headers = tuple[str, str, str]


class Asks:
    """Lets everybody in under the name that they give, in place of `KeyCheck`."""

    def __init__(self, app: ASGIApp, rate: Callable[[], Rate | None]) -> None:
        self._app = app
        self._rate = rate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = dict(scope["headers"])[b"accesskey"].decode()
        state: dict[str, Any] = scope.setdefault("state", {})
        state["access"] = Access("default", name, "viewer", "default", Actor(name))
        if rate := self._rate():
            state["rate"] = rate
        await self._app(scope, receive, send)


class Place:
    """Two endpoints, and a clock that stands still until it is told otherwise."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.metrics = Metrics()
        self.rate: Rate | None = None
        """How everybody stands in this minute."""
        keys = Keys("mediad", "test")
        self._cache = MemoryCache(keys, self.metrics, 1 << 20, 1 << 20, lambda: self.now)
        self._app = FastAPI()
        register_errors(self._app)
        self._app.add_middleware(Asks, rate=lambda: self.rate)
        self._app.add_middleware(RateHeaders)
        self.limit(LIMIT)

        @self._app.get("/calls", dependencies=[limited("calls:create")])
        @self._app.get("/v1/dialplan/calls", dependencies=[limited("calls:create")])
        @self._app.get("/webhooks", dependencies=[limited("webhooks:test")])
        async def answer() -> None:
            return None

    def limit(self, calls: int) -> None:
        """Set the limit for calls."""
        limits = {"calls:create": calls, "webhooks:test": LIMIT}
        http = Http.model_validate({"endpoint_limits": limits})
        self._app.state.services = SimpleNamespace(
            settings=SimpleNamespace(http=http), cache=self._cache, metrics=self.metrics
        )

    async def ask(self, path: str = "/calls", who: str = "one") -> httpx.Response:
        """Ask an endpoint."""
        transport = httpx.ASGITransport(self._app)
        async with httpx.AsyncClient(transport=transport, base_url="http://mediad") as http:
            return await http.get(path, headers={"AccessKey": who})

    def refused(self, endpoint: str) -> float:
        """Return how many were refused."""
        labels = {"endpoint": endpoint}
        name = "mediad_http_rate_limited_total"
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@pytest.fixture
def place() -> Place:
    return Place()


def shown(answer: httpx.Response) -> Headers | None:
    """Return limit, remaining requests and seconds, as they are told."""
    names = [f"x-ratelimit-{name}" for name in ("limit", "remaining", "reset")]
    if not answer.headers.keys() & set(names):
        return None
    limit, remaining, reset = (answer.headers[name] for name in names)
    return limit, remaining, reset


async def test_one_too_many_waits_until_15_minutes_after_the_first(place: Place) -> None:
    for remaining in ("2", "1", "0"):
        answer = await place.ask()
        assert (answer.status_code, shown(answer)) == (200, ("3", remaining, "900"))
    place.now += 299.5
    refused = await place.ask()
    assert (refused.status_code, shown(refused)) == (429, ("3", "0", "601"))
    assert refused.headers["retry-after"] == "601"
    assert refused.json()["error"] == {
        "reason": "rate_limited",
        "message": "3 requests in 15 minutes are the most for calls:create",
        "details": {"endpoint": "calls:create"},
    }
    place.now += 600.4
    assert (await place.ask()).headers["retry-after"] == "1"
    assert place.refused("calls:create") == 2
    place.now += 0.2
    answer = await place.ask()
    assert (answer.status_code, shown(answer)) == (200, ("3", "2", "900"))


async def test_dialplan_shares_the_limit_and_is_told_in_a_header(place: Place) -> None:
    for _ in range(LIMIT):
        await place.ask()
    refused = await place.ask("/v1/dialplan/calls")
    assert (refused.status_code, refused.text) == (200, "")
    assert refused.headers["x-mediad-reason"] == "rate_limited"
    assert refused.headers["retry-after"] == "900"
    assert place.refused("calls:create") == 1


async def test_another_key_and_another_endpoint_are_not_held_up(place: Place) -> None:
    for _ in range(LIMIT + 1):
        answer = await place.ask()
    assert answer.status_code == 429
    assert (await place.ask(who="other")).status_code == 200
    assert (await place.ask("/webhooks")).status_code == 200
    assert place.refused("webhooks:test") == 0


async def test_limit_of_0_is_none(place: Place) -> None:
    place.limit(0)
    answers = [await place.ask() for _ in range(LIMIT + 1)]
    assert [(answer.status_code, shown(answer)) for answer in answers] == [(200, None)] * 4


async def test_headers_show_the_limit_that_is_used_up_first(place: Place) -> None:
    place.rate = Rate(100, 2, 30)
    assert shown(await place.ask()) == ("3", "2", "900")
    place.rate = Rate(100, 0, 30)
    assert shown(await place.ask()) == ("100", "0", "30")
    place.rate = Rate(100, 0, 30)
    await place.ask()
    assert shown(await place.ask()) == ("3", "0", "900")  # it is this that refuses
