"""A running mediad, and two customers with access keys of their own who use its API."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any
from uuid import UUID

import httpx

from mediad.api.access import CUSTOMER_HEADER, Role
from mediad.bus.events import DEFAULT_CUSTOMER, Event
from mediad.config import Settings
from mediad.metrics import Metrics
from mediad.store import accesskeys
from mediad.store.accesskeys import AccessKeyFields
from mediad.store.agents import Agent
from mediad.store.audit import MEDIAD
from mediad.store.database import Database
from tests.fakes.asterisk import AsteriskCall
from tests.integration.daemon import Daemon, running

__all__ = ["Answer", "Customer", "Telephony", "open_telephony"]

Answer = tuple[int, Any]


class Customer:
    """Somebody with an access key; without one, nobody."""

    def __init__(self, http: httpx.AsyncClient, id: str, key: str, root: str) -> None:
        self.id = id
        self.key = key
        self.http = http
        self._headers = {"AccessKey": key} if key else {}
        self._as_root = {"AccessKey": root, CUSTOMER_HEADER: id}

    async def ask(
        self, method: str, path: str, body: object = None, key: str | None = None
    ) -> httpx.Response:
        """Send JSON, or nothing, perhaps with another key."""
        headers = self._headers if key is None else {"AccessKey": key}
        if body is None:
            return await self.http.request(method, path, headers=headers)
        return await self.http.request(method, path, headers=headers, json=body)

    async def get(self, path: str) -> Answer:
        """Return the status and the body."""
        return _answer(await self.ask("GET", path))

    async def post(self, path: str, body: object = None) -> Answer:
        """Post JSON, or nothing; return the status and the body."""
        return _answer(await self.ask("POST", path, body))

    async def post_raw(self, path: str, body: bytes, kind: str) -> Answer:
        """Post bytes of a content type."""
        headers = self._headers | {"Content-Type": kind}
        return _answer(await self.http.post(path, headers=headers, content=body))

    async def dialplan(
        self, method: str, path: str, form: bytes = b""
    ) -> tuple[int, Mapping[str, str], str]:
        """Ask as Asterisk does; return the status, the headers and the text."""
        response = await self.http.request(
            method, f"/v1/dialplan{path}", headers=self._headers, content=form
        )
        return response.status_code, response.headers, response.text

    async def eventually(self, path: str, holds: Callable[[Any], bool]) -> Any:
        """Get again until something is true of the body; return it."""
        async with asyncio.timeout(10):
            while True:
                status, body = await self.get(path)
                if status == 200 and holds(body):
                    return body
                await asyncio.sleep(0.02)

    async def make(self, resource: str, **fields: Any) -> dict[str, Any]:
        """Make something, whatever role that needs; return it."""
        path = f"/v1/{resource}"
        made = await self.http.post(path, headers=self._as_root, json=fields)
        assert made.status_code == 201, made.text
        return dict(made.json())

    async def new_key(self, role: Role) -> str:
        """Make an access key of this customer's."""
        return str((await self.make("accesskeys", role=role))["key"])

    async def add_agent(self, config: Mapping[str, Any]) -> str:
        """Make an agent; return its id."""
        return str((await self.make("agents", name="agent", config=config))["id"])

    async def add_number(
        self,
        number: str,
        agent_id: str | None,
        override: Mapping[str, Any] | None = None,
        status: str = "active",
    ) -> str:
        """Make a number; return its id."""
        fields = {"number": number, "agent_id": agent_id, "status": status}
        return str((await self.make("numbers", **fields, agent_config_override=override))["id"])

    async def agent(self, agent_id: str) -> Agent:
        """Return an agent as it is now."""
        return Agent.model_validate((await self.get(f"/v1/agents/{agent_id}"))[1])


class Telephony:
    """A running mediad and its customers: ``ours`` and ``theirs`` are operators."""

    def __init__(
        self, daemon: Daemon, ours: Customer, theirs: Customer, nobody: Customer, root: str
    ) -> None:
        self.daemon = daemon
        self.url = "http://{}:{}".format(*daemon.app.http_address)
        self.ours = ours
        self.theirs = theirs
        self.nobody = nobody
        self.root = root
        """An access key that may do everything."""

    def call(self, call_id: UUID) -> AsteriskCall:
        """Return a call, still to be entered."""
        return self.daemon.call(call_id)

    def events(self, type_: str) -> list[Event]:
        """Return the events of a type so far."""
        return self.daemon.events(type_)


@contextlib.asynccontextmanager
async def open_telephony(settings: Settings) -> AsyncIterator[Telephony]:
    """Run mediad, and make the customers their keys."""
    async with running(settings) as daemon:
        root = await _make_root_key(settings)
        url = "http://{}:{}".format(*daemon.app.http_address)
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=url, limits=limits, timeout=30) as http:
            nobody = Customer(http, DEFAULT_CUSTOMER, "", root)
            other_id = (await nobody.make("customers", name="other"))["id"]
            ours, theirs = [
                Customer(http, id, await Customer(http, id, "", root).new_key("operator"), root)
                for id in (DEFAULT_CUSTOMER, other_id)
            ]
            yield Telephony(daemon, ours, theirs, nobody, root)


async def _make_root_key(settings: Settings) -> str:
    """Make a key as `mediad keys` does, whatever the database."""
    database = Database(settings.database, Metrics())
    await database.open()
    try:
        async with database.write() as connection:
            fields = AccessKeyFields(name="test", role="root")
            return (await accesskeys.create(connection, DEFAULT_CUSTOMER, fields, MEDIAD)).key
    finally:
        await database.close()


def _answer(response: httpx.Response) -> Answer:
    return response.status_code, response.json() if response.content else None
