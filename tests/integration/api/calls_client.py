"""A mediad whose calls are told what to do over HTTP, and two customers who do so.

The endpoints run where they run in mediad: on its control loop, with its database and its cache, on
its own HTTP port. Only who asks is made up here: an access key says customer and role in clear.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any
from unittest.mock import patch
from uuid import UUID

import httpx
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from starlette.requests import HTTPConnection

from mediad import control
from mediad.api import access, calls, dialplan
from mediad.api.access import Access
from mediad.api.errors import ApiError, register_errors
from mediad.api.http import make_app
from mediad.api.services import Services
from mediad.app import App
from mediad.bus.events import Event
from mediad.config import Settings
from mediad.metrics import Metrics
from mediad.store import agents, numbers
from mediad.store.agents import Agent, AgentFields
from mediad.store.database import Database
from mediad.store.numbers import NumberFields
from tests.fakes.asterisk import AsteriskCall
from tests.integration.daemon import Daemon, running

__all__ = ["Customer", "Telephony", "open_telephony"]

Answer = tuple[int, Any]


class Customer:
    """Somebody with an access key; without one, nobody."""

    def __init__(
        self, http: httpx.AsyncClient, database: Database, customer_id: str, key: str
    ) -> None:
        self.id = customer_id
        self.key = key
        self._http = http
        self._database = database
        self._headers = {"AccessKey": key} if key else {}

    async def get(self, path: str) -> Answer:
        """Return the status and the body."""
        return _answer(await self._http.get(path, headers=self._headers))

    async def post(self, path: str, body: object = None) -> Answer:
        """Post JSON, or nothing; return the status and the body."""
        if body is None:
            return _answer(await self._http.post(path, headers=self._headers))
        return _answer(await self._http.post(path, headers=self._headers, json=body))

    async def post_raw(self, path: str, body: bytes, kind: str) -> Answer:
        """Post bytes of a content type."""
        headers = self._headers | {"Content-Type": kind}
        return _answer(await self._http.post(path, headers=headers, content=body))

    async def dialplan(
        self, method: str, path: str, form: bytes = b""
    ) -> tuple[int, Mapping[str, str], str]:
        """Ask as Asterisk does; return the status, the headers and the text."""
        response = await self._http.request(
            method, f"/v1/dialplan{path}", headers=self._headers, content=form
        )
        return response.status_code, response.headers, response.text

    async def eventually(self, path: str, holds: Callable[[Any], bool]) -> Any:
        """Get again until something is true of the body; return it."""
        async with asyncio.timeout(5):
            while True:
                status, body = await self.get(path)
                if status == 200 and holds(body):
                    return body
                await asyncio.sleep(0.02)

    async def add_agent(self, config: Mapping[str, Any]) -> str:
        """Make an agent; return its id."""
        fields = AgentFields.model_validate({"name": "agent", "config": config})
        async with self._database.write() as connection:
            return (await agents.create(connection, self.id, fields, None)).id

    async def add_number(
        self,
        number: str,
        agent_id: str | None,
        override: Mapping[str, Any] | None = None,
        status: str = "active",
    ) -> str:
        """Make a number; return its id."""
        fields = {"number": number, "agent_id": agent_id, "status": status}
        wanted = NumberFields.model_validate(fields | {"agent_config_override": override})
        async with self._database.write() as connection:
            return (await numbers.create(connection, self.id, wanted, None)).id

    async def agent(self, agent_id: str) -> Agent:
        """Return an agent as the database has it."""
        async with self._database.read() as connection:
            found = await agents.get(connection, self.id, agent_id)
        assert found is not None
        return found


class Telephony:
    """A running mediad and its customers."""

    def __init__(self, daemon: Daemon, http: httpx.AsyncClient, database: Database) -> None:
        self.daemon = daemon
        self.url = "http://{}:{}".format(*daemon.app.http_address)
        self.ours = Customer(http, database, "default", "default:operator")
        self.theirs = Customer(http, database, "other", "other:operator")
        self.nobody = Customer(http, database, "default", "")

    def call(self, call_id: UUID) -> AsteriskCall:
        """Return a call, still to be entered."""
        return self.daemon.call(call_id)

    def events(self, type_: str) -> list[Event]:
        """Return the events of a type so far."""
        return self.daemon.events(type_)


@contextlib.asynccontextmanager
async def open_telephony(settings: Settings) -> AsyncIterator[Telephony]:
    """Run mediad with its API for calls."""
    with _api(settings) as app_made:
        async with running(settings) as daemon:
            app_made(daemon.app)
            database = Database(settings.database, Metrics())
            await database.open()
            url = "http://{}:{}".format(*daemon.app.http_address)
            try:
                async with httpx.AsyncClient(base_url=url) as http:
                    yield Telephony(daemon, http, database)
            finally:
                await database.close()


@contextlib.contextmanager
def _api(settings: Settings) -> Iterator[Callable[[App], None]]:
    """Add the endpoints to the HTTP port of the mediad that is started meanwhile."""
    made: dict[str, Any] = {}
    http_apps: list[FastAPI] = []

    def keeping(name: str) -> Callable[..., Any]:
        make = getattr(control, name)

        def keep(*args: Any) -> Any:
            made[name] = make(*args)
            return made[name]

        return keep

    def make_app_with_calls(
        registry: CollectorRegistry,
        readiness: Callable[[], Mapping[str, str]],
        health: Callable[[], Mapping[str, str]],
    ) -> FastAPI:
        app = make_app(registry, readiness, health)
        register_errors(app)
        for router in (calls.router, dialplan.router):
            app.include_router(router, prefix="/v1")
        http_apps.append(app)
        return app

    def connect(app: App) -> None:
        http_apps[0].state.services = Services(
            settings=settings,
            bus=app.bus,
            commands=app.commands,
            metrics=Metrics(),
            database=made["Database"],
            reads=made["CachedReads"],
            sessions=made["Sessions"],
            readiness=dict,
            health=dict,
        )

    with contextlib.ExitStack() as patches:
        for name in ("CachedReads", "Database", "Sessions"):
            patches.enter_context(patch.object(control, name, keeping(name)))
        patches.enter_context(patch.object(control, "make_app", make_app_with_calls))
        patches.enter_context(patch.object(access, "authenticate", _authenticate))
        yield connect


async def _authenticate(connection: HTTPConnection) -> Access:
    customer_id, _, role = connection.headers.get("accesskey", "").partition(":")
    if role != "operator":
        raise ApiError(401, "unauthenticated", "no good key")
    return Access(customer_id, "key", "operator")


def _answer(response: httpx.Response) -> Answer:
    return response.status_code, response.json() if response.content else None
