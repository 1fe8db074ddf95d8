"""What one client may take of the API: requests a minute, attempts with wrong keys, the size of
its headers, and a place among the requests at work. For bodies see `bodies`, for single endpoints
`endpoint_limits`.
"""

import asyncio
import contextlib
import time
from collections import OrderedDict
from typing import NamedTuple

from h11 import LocalProtocolError
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mediad.api.errors import ApiError, error_answer

__all__ = [
    "BUSY",
    "MAX_HEADER_BYTES",
    "MAX_WAITING",
    "Admission",
    "HeaderLimit",
    "Rate",
    "RateHeaders",
    "Windows",
    "now_s",
    "refuse",
]

MAX_HEADER_BYTES = 32 * 1024
"""All headers of a request together."""

MAX_WAITING = 100
"""Requests that wait for a place."""

WINDOW_S = 60

_MAX_CLIENTS = 10_000
_EXEMPT = ("/healthz", "/readyz", "/metrics")


class Rate(NamedTuple):
    """How a client stands in this window."""

    limit: int
    remaining: int
    """Below 0 for what is too much."""
    reset_s: int
    """Until the window ends, in seconds, rounded up."""


class Windows:
    """Counts by client in fixed windows of a minute; of too many clients forgets the oldest."""

    def __init__(self) -> None:
        self._window = 0
        self._counts: OrderedDict[str, int] = OrderedDict()

    def add(self, client: str, limit: int, now: float, amount: int = 1) -> Rate:
        """Count something of a client; ``now`` is in seconds. An amount of 0 only looks."""
        window = int(now // WINDOW_S)
        if window != self._window:
            self._window = window
            self._counts.clear()
        count = self._counts.get(client, 0) + amount
        if amount:
            self._counts[client] = count
            if len(self._counts) > _MAX_CLIENTS:
                self._counts.popitem(last=False)
        return Rate(limit, limit - count, int(WINDOW_S - now % WINDOW_S) + 1)


class RateHeaders:
    """Tells each client how it stands; `access` has noted that in the request's state."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})

        async def send_with_headers(message: Message) -> None:
            rate: Rate | None = state.get("rate")
            if message["type"] == "http.response.start" and rate is not None:
                headers = MutableHeaders(scope=message)
                headers["X-RateLimit-Limit"] = str(rate.limit)
                headers["X-RateLimit-Remaining"] = str(max(0, rate.remaining))
                headers["X-RateLimit-Reset"] = str(rate.reset_s)
            # Raised when what the client sent has turned out to be no HTTP: it gets no answer.
            with contextlib.suppress(LocalProtocolError):
                await send(message)

        await self._app(scope, receive, send_with_headers)


class HeaderLimit:
    """Refuses long headers. The server itself does so only when they come in pieces."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            size = sum(len(name) + len(value) for name, value in scope["headers"])
            if size > MAX_HEADER_BYTES:
                await refuse(_LONG_HEADERS, scope, receive, send)
                return
        await self._app(scope, receive, send)


class Admission:
    """Lets so many requests of the API work at once, lets some wait, and refuses the rest."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._running: asyncio.Semaphore | None = None
        self._waiting = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _EXEMPT:
            await self._app(scope, receive, send)
            return
        if self._running is None:
            services = getattr(scope["app"].state, "services", None)
            self._running = asyncio.Semaphore(services.settings.http.max_running if services else 1)
        if self._running.locked() and self._waiting >= MAX_WAITING:
            await refuse(BUSY, scope, receive, send)
            return
        self._waiting += 1
        try:
            await self._running.acquire()
        finally:
            self._waiting -= 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._running.release()


_LONG_HEADERS = ApiError(431, "long_headers", f"headers may have {MAX_HEADER_BYTES} bytes")

BUSY = ApiError(503, "busy", "too many requests are waiting", headers={"Retry-After": "1"})
"""Too many are there before."""


async def refuse(error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request that gets no further than a limit, as `error_answer` says."""
    # As in RateHeaders.
    with contextlib.suppress(LocalProtocolError):
        await error_answer(error, scope)(scope, receive, send)


def now_s() -> float:
    """Return the time that windows are counted in."""
    return time.time()
