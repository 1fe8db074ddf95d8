"""Agents that dial in: a listener, and for each call a token that is good for one connection."""

import asyncio
import secrets
import time
from collections.abc import Callable

from picows import (
    WSCloseCode,
    WSFrame,
    WSListener,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
    ws_create_server,
)

from mediad.ai.connect import SocketFactory
from mediad.ai.socket import READ_BUFFER_BYTES, AgentSocket
from mediad.config import Ai
from mediad.errors import AgentUnavailable
from mediad.metrics import Metrics
from mediad.wire.frames import MAX_MESSAGE_SIZE

__all__ = ["DialIn", "DialInServer"]

_SETTLE_S = 0.25


class _Place:
    """Where an agent may dial in once. A request that becomes no WebSocket does not count."""

    def __init__(self) -> None:
        self.make_socket: SocketFactory | None = None  # None until the call waits here
        self._socket: AgentSocket | None = None  # for the last request
        self._was_asked = asyncio.Event()

    @property
    def agent(self) -> AgentSocket | None:
        """Who has come."""
        return self._socket if self._socket is not None and self._socket.has_opened else None

    def offer(self) -> AgentSocket | None:
        """Return the socket for a request; None when nobody waits, or somebody has come."""
        if self.make_socket is None or self.agent is not None:
            return None
        self._socket = self.make_socket()
        self._was_asked.set()
        return self._socket

    async def wait(self) -> AgentSocket:
        """Wait for the agent."""
        # picows opens or refuses before it returns to the loop: it has decided when this wakes up.
        while (agent := self.agent) is None:
            self._was_asked.clear()
            await self._was_asked.wait()
        return agent


class DialInServer:
    """The listener for agents that dial in: ``/agent/{token}``, a token for one connection."""

    def __init__(self, settings: Ai, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._places: dict[str, _Place] = {}
        self._server: asyncio.Server | None = None

    async def start(self) -> tuple[str, int]:
        """Listen; return the address."""
        self._server = await ws_create_server(
            self._admit,
            self._settings.listen_host,
            self._settings.listen_port,
            enable_auto_pong=False,
            max_frame_size=MAX_MESSAGE_SIZE,
            read_buffer_init_size=READ_BUFFER_BYTES,
        )
        host, port = self._server.sockets[0].getsockname()[:2]
        return host, port

    def stop(self) -> None:
        """Listen no more; open connections are their calls' business."""
        if self._server is not None:
            self._server.close()

    def offer(self) -> tuple[str, _Place]:
        """Make a token and its place; a live call has one."""
        token = secrets.token_urlsafe(24)
        place = self._places[token] = _Place()
        return token, place

    def withdraw(self, token: str) -> None:
        """Make a token worthless, used or not."""
        self._places.pop(token, None)

    def _admit(self, request: WSUpgradeRequest) -> WSListener | WSUpgradeResponseWithListener:
        path = bytes(request.path).decode("ascii", "replace")
        place = self._places.get(path.removeprefix("/agent/"))
        if not path.startswith("/agent/") or place is None:
            self._metrics.agent_connects.labels("bad_token").inc()
            response = WSUpgradeResponse.create_error_response(403, b"unknown or expired token\n")
            return WSUpgradeResponseWithListener(response, None)
        socket = place.offer()
        if socket is None:
            self._metrics.agent_connects.labels("second_agent").inc()
            return _Refusal()
        return socket


class _Refusal(WSListener):
    """Close a second agent's connection with 1013, as a stock single-client server does."""

    def on_ws_connected(self, transport: WSTransport) -> None:
        transport.send_close(WSCloseCode.TRY_AGAIN_LATER)
        transport.disconnect()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Take nothing."""


class DialIn:
    """Wait for one call's agent to dial in. ``on_token`` hears of each token after the first."""

    def __init__(
        self, server: DialInServer, settings: Ai, metrics: Metrics, on_token: Callable[[str], None]
    ) -> None:
        self._server = server
        self._token_s = settings.token_s
        self._metrics = metrics
        self._on_token = on_token
        self._token, self._place = server.offer()
        self._is_first = True

    @property
    def settle_s(self) -> float:
        """How long to leave an agent alone after it has connected.

        Pipecat's client transport connects before its pipeline has started; audio that arrives
        earlier ends its reading for good (1.14.0: AttributeError in push_audio_frame).
        """
        return _SETTLE_S

    @property
    def token(self) -> str | None:
        """What the agent puts behind ``/agent/``."""
        return self._token

    def skip(self) -> None:
        """The agent left before it said anything: another may come with a new token."""

    reject = renew = skip

    async def connect(self, make_socket: SocketFactory, deadline: float) -> AgentSocket:
        """Return the connection of the agent that came with the token.

        Raises:
            AgentUnavailable: When none came while the token was good. Who comes after the first
            agent must also come before ``deadline``.
        """
        wait_s = self._token_s
        if not self._is_first:
            wait_s = min(wait_s, deadline - time.monotonic())
            if wait_s <= 0:
                raise AgentUnavailable("no other agent dialled in")
            self._server.withdraw(self._token)
            self._token, self._place = self._server.offer()
            self._on_token(self._token)
        self._is_first = False
        self._place.make_socket = make_socket
        started = time.monotonic()
        try:
            async with asyncio.timeout(wait_s):
                socket = await self._place.wait()
        except TimeoutError:
            raise AgentUnavailable("no agent dialled in while its token was good") from None
        self._metrics.agent_connects.labels("open").inc()
        self._metrics.agent_connect_time.observe(time.monotonic() - started)
        return socket

    def close(self) -> None:
        """Withdraw the token, and send the agent away that has just come."""
        self._server.withdraw(self._token)
        # The place knows the link, and that knows us: a new place ends the cycle.
        place, self._place = self._place, _Place()
        if place.agent is not None:
            place.agent.close()
