"""Endpoints with a limit of their own: which they are, and that processes with one Redis count
together, as long as it is there.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from mediad import config
from mediad.cache import redis
from mediad.config import ENDPOINT_LIMITS, LimitedEndpoint, Settings
from tests.integration.api.calls_client import open_telephony
from tests.integration.daemon import Daemon, running, settings
from tests.integration.store.conftest import migrate
from tests.redis_server import RedisServer, redis_server

NUMBER = "+4930111"
PATH = "/v1/webhooks/nobodys/test"


def with_limits(made: Settings, limits: Mapping[str, int]) -> Settings:
    """Return settings with these limits in place of the defaults."""
    http = made.http.model_copy(update={"endpoint_limits": {**ENDPOINT_LIMITS, **limits}})
    return made.model_copy(update={"http": http})


async def test_each_endpoint_that_has_a_limit_keeps_it() -> None:
    wanted = with_limits(settings("ws://127.0.0.1:9"), dict.fromkeys(ENDPOINT_LIMITS, 3))
    async with open_telephony(wanted) as telephony:
        ours = telephony.ours
        await ours.add_number(NUMBER, None)
        webhook = (await ours.make("webhooks", url="https://127.0.0.1:9/hook"))["id"]
        delivery = (await ours.post(f"/v1/webhooks/{webhook}/test"))[1]["id"]
        admin = await ours.new_key("admin")
        keys = (await ours.ask("GET", "/v1/accesskeys", key=admin)).json()["result"]
        rotate = f"accesskeys/{keys[1]['id']}/rotate"  # that of an operator
        asked: dict[LimitedEndpoint, list[tuple[str, dict[str, str] | None]]] = {
            "accesskeys:create": [("accesskeys", {}), (rotate, {})],
            "calls:create": [("calls", {"to": NUMBER})],
            "webhook_deliveries:redeliver": [(f"webhook_deliveries/{delivery}/redeliver", None)],
            "webhooks:test": [(f"webhooks/{webhook}/test", None)],
        }
        assert asked.keys() == ENDPOINT_LIMITS.keys()
        for name, requests in asked.items():
            for number in range(3):
                path, body = requests[number % len(requests)]
                answer = await ours.ask("POST", f"/v1/{path}", body, key=admin)
                assert answer.status_code < 300, (name, answer.text)
                assert answer.headers["x-ratelimit-limit"] == "3"
                assert answer.headers["x-ratelimit-remaining"] == str(2 - number)
            for path, body in requests:
                answer = await ours.ask("POST", f"/v1/{path}", body, key=admin)
                error = answer.json()["error"]
                assert (answer.status_code, error["reason"]) == (429, "rate_limited")
                assert name in error["message"]
                assert 890 <= int(answer.headers["retry-after"]) <= 900
            refused = await telephony.daemon.metric("mediad_http_rate_limited_total", endpoint=name)
            assert refused == len(requests)
        # What has no limit of its own goes on.
        assert (await ours.ask("GET", "/v1/calls", key=admin)).status_code == 200


async def test_dialplan_and_programs_share_what_a_key_may_register() -> None:
    wanted = with_limits(settings("ws://127.0.0.1:9"), {"calls:create": 2})
    async with open_telephony(wanted) as telephony:
        ours = telephony.ours
        await ours.add_number(NUMBER, None)
        form = f"to={NUMBER}".replace("+", "%2B").encode()
        status, headers, text = await ours.dialplan("POST", "/calls", form)
        assert (status, len(text), headers["x-ratelimit-remaining"]) == (200, 36, "1")
        assert (await ours.post("/v1/calls", {"to": NUMBER}))[0] == 201
        status, headers, after = await ours.dialplan("POST", "/calls", form)
        assert (status, after, headers["x-mediad-reason"]) == (200, "", "rate_limited")
        assert headers["content-type"].startswith("text/plain")
        assert 890 <= int(headers["retry-after"]) <= 900
        _, headers, _ = await ours.dialplan("GET", f"/calls/{text}/next")
        assert headers.get("x-mediad-reason") != "rate_limited"  # calls that there are go on
        assert await telephony.daemon.metric("mediad_expected_calls") == 2


async def test_refused_body_and_foreign_id_count_as_requests() -> None:
    wanted = with_limits(settings("ws://127.0.0.1:9"), {"calls:create": 2, "webhooks:test": 1})
    async with open_telephony(wanted) as telephony:
        ours = telephony.ours
        assert [(await ours.post("/v1/calls", {"to": 1}))[0] for _ in range(3)] == [422, 422, 429]
        assert [(await ours.post(PATH))[0] for _ in range(2)] == [404, 429]


# Several processes


class Process:
    """One of those that share a database and a Redis."""

    def __init__(self, daemon: Daemon, http: httpx.AsyncClient, key: str) -> None:
        self._daemon = daemon
        self._http = http
        self._key = key

    async def ask(self) -> tuple[int, int]:
        """Ask what is limited; return the status and how many requests remain."""
        answer = await self._http.post(PATH, headers={"AccessKey": self._key})
        return answer.status_code, int(answer.headers["x-ratelimit-remaining"])

    async def finds_redis(self) -> None:
        """Wait until it is used again."""
        await self._daemon.metric_reaches(1, "mediad_cache_up")


@asynccontextmanager
async def two_processes(
    directory: Path, server: RedisServer, limit: int
) -> AsyncIterator[tuple[Process, Process]]:
    """Give two while the block runs; both are asked with the same access key."""
    url = f"sqlite:///{directory / 'mediad.db'}"
    migrate(config.Database.model_validate({"directory": directory, "url": url}))
    shared = config.Redis(url=SecretStr(server.url), timeout_s=10)
    first, second = [
        with_limits(made, {"webhooks:test": limit}).model_copy(update={"redis": shared})
        for made in (settings("ws://127.0.0.1:9", database={"url": url}) for _ in range(2))
    ]
    async with open_telephony(first) as telephony, running(second) as other:
        key = telephony.ours.key
        base_url = "http://{}:{}".format(*other.app.http_address)
        async with httpx.AsyncClient(base_url=base_url, timeout=30) as http:
            yield Process(telephony.daemon, telephony.ours.http, key), Process(other, http, key)


async def test_processes_with_one_redis_count_together(tmp_path: Path) -> None:
    async with (
        redis_server(tmp_path) as server,
        two_processes(tmp_path, server, limit=5) as (one, other),
    ):
        remaining = [await process.ask() for process in (one, other, other, one, other)]
        assert remaining == [(404, 4), (404, 3), (404, 2), (404, 1), (404, 0)]
        assert await one.ask() == await other.ask() == (429, 0)
        with server.client() as client:
            names = client.keys("mediad:prod:ratelimit:*:webhooks:test")
            assert [client.get(name) for name in names] == [b"7"]
            assert 890 <= client.ttl(names[0]) <= 900
            client.delete(*names)
        assert await other.ask() == (404, 4)
        assert await one.ask() == (404, 3)


async def test_without_redis_each_process_goes_on_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis, "_PROBE_S", 0.05)
    async with (
        redis_server(tmp_path) as server,
        two_processes(tmp_path, server, limit=6) as (one, other),
    ):
        assert [await process.ask() for process in (one, other, one)] == [
            (404, 5),
            (404, 4),
            (404, 3),
        ]
        server.kill()
        assert [await one.ask() for _ in range(4)] == [(404, 2), (404, 1), (404, 0), (429, 0)]
        assert [await other.ask() for _ in range(5)] == [
            *((404, 3), (404, 2), (404, 1)),
            *((404, 0), (429, 0)),
        ]
        await asyncio.to_thread(server.start)  # empty: it keeps nothing on disk
        await one.finds_redis()
        await other.finds_redis()
        assert await one.ask() == (404, 5)
        assert await other.ask() == (404, 4)
