"""Connections to an HTTP port: how many there are, and how long one may be without a request. For
requests see `limits` and `bodies`.
"""

import asyncio
from typing import Any

from prometheus_client import Counter
from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["MAX_CONNECTIONS", "Connection"]

MAX_CONNECTIONS = 400
"""Of one port, events WebSockets among them; each is a file that a call may need."""

_REQUEST_S = 10.0  # for a request's headers: from the connection, or the first byte, on


class Connection(H11Protocol):
    """One connection. uvicorn itself closes it 5 s after an answer, if then not a byte has come.

    Args:
        closed: Counts those that were closed, by why.
        options: uvicorn's own.
    """

    def __init__(self, closed: Counter, **options: Any) -> None:
        super().__init__(**options)
        self._closed = closed
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, unless there are too many."""
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            self._close("max_connections")
        else:
            self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        super().connection_lost(exc)
        self._unwatch()

    def data_received(self, data: bytes) -> None:
        """Take what has come, which may be a part of a request."""
        super().data_received(data)
        self._watch()

    def _watch(self) -> None:
        """See to it that a request comes in time."""
        is_answering = self.cycle is not None and not self.cycle.response_complete
        is_websocket = self not in self.connections
        if is_answering or is_websocket:
            self._unwatch()
        elif self._timer is None:
            self._timer = self.loop.call_later(_REQUEST_S, self._close, "no_request")

    def _unwatch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close(self, reason: str) -> None:
        self._closed.labels(reason).inc()
        self.transport.abort()
