"""One attempt of a delivery: a POST request, and what became of it.

The address is checked where the socket is made: whatever a name resolved to before, that is the one
that is connected to. Redirects are not followed.
"""

import asyncio
import errno
import ipaddress
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

import mediad
from mediad.config import Webhooks
from mediad.webhooks.addresses import is_allowed
from mediad.webhooks.names import Names, asking_customer

__all__ = ["CONNECTIONS", "MAX_KEPT", "MAX_REQUESTS", "Outcome", "Sender"]

CONNECTIONS = 4
"""Requests at once to one endpoint."""

MAX_REQUESTS = 256
"""Requests at once to all; more wait, first come, first served. An endpoint that hangs has four."""

MAX_KEPT = 256
"""Connections kept open for the next request."""

_MAX_EXCERPT_BYTES = 512
_MAX_ERROR = 200
_USER_AGENT = f"mediad/{mediad.__version__}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an attempt."""

    duration_s: float
    status: int | None = None
    """Of the answer; None when there was none."""
    error: str | None = None
    """Why there was none."""
    excerpt: str = ""
    """How the answer begins."""

    @property
    def is_delivered(self) -> bool:
        """Whether the endpoint has it."""
        return self.status is not None and 200 <= self.status < 300


class Sender:
    """Sends requests. Made on the loop that uses it; `close` it in the end."""

    def __init__(self, settings: Webhooks) -> None:
        self._allow = settings.allow_private
        self._timeout_s = settings.timeout_s
        self._room = asyncio.Semaphore(MAX_REQUESTS)
        connector = _Connector(
            limit=0,  # who waits for it would lose the time for the request
            socket_factory=self._make_socket,
            resolver=Names(self._timeout_s / 2),  # so that the rest is left to connect and ask
            use_dns_cache=False,  # they have their own
            ssl=ssl.create_default_context(),  # checks the certificate and its host name
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(),  # ours is over all of it
            auto_decompress=False,
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def post(
        self, customer_id: str, url: str, headers: Mapping[str, str], body: bytes
    ) -> Outcome:
        """Send a customer's request; whatever goes wrong is in what is returned."""
        async with self._room:
            return await self._post(customer_id, url, headers, body)

    async def _post(
        self, customer_id: str, url: str, headers: Mapping[str, str], body: bytes
    ) -> Outcome:
        started = time.monotonic()
        asking_customer.set(customer_id)
        all_headers = {"Content-Type": "application/json", "User-Agent": _USER_AGENT, **headers}
        try:
            async with asyncio.timeout(self._timeout_s):
                async with self._session.post(
                    url, data=body, headers=all_headers, allow_redirects=False
                ) as answer:
                    start = await answer.content.read(_MAX_EXCERPT_BYTES)
                    excerpt = start.decode("utf-8", "replace").replace("\0", "")
                    return Outcome(time.monotonic() - started, answer.status, excerpt=excerpt)
        except TimeoutError:
            error = f"no answer within {self._timeout_s:g} s"
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            error = (str(exc) or type(exc).__name__)[:_MAX_ERROR]
        return Outcome(time.monotonic() - started, error=error)

    def _make_socket(self, info: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, address = info
        host = str(address[0])
        if not _is_address(host) or not is_allowed(host, self._allow):
            # aiohttp shows an error's strerror, so it needs a number, too.
            raise OSError(errno.EACCES, f"{host} is not a public address (webhooks.allow_private)")
        return socket.socket(family, kind, protocol)


class _Connector(aiohttp.TCPConnector):
    """Keeps no more than MAX_KEPT connections: it has a limit only for those in use."""

    def _release(self, key: Any, protocol: Any, *, should_close: bool = False) -> None:
        is_full = sum(map(len, self._conns.values())) >= MAX_KEPT
        super()._release(key, protocol, should_close=should_close or is_full)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True
