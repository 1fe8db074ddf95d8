"""Getting a WebSocket to an agent: mediad dials out to a URL, or the agent dials in with a token.

Both ways are one call's: they remember which addresses have refused it. What a closed connection
means is ``ai.agent``'s business.
"""

import asyncio
import logging
import secrets
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from picows import (
    WSCloseCode,
    WSHandshakeError,
    WSListener,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
    ws_connect,
    ws_create_server,
)

from mediad.ai.socket import AgentSocket
from mediad.config import Ai
from mediad.errors import AgentUnavailable
from mediad.metrics import Metrics
from mediad.wire.frames import MAX_MESSAGE_SIZE

__all__ = ["CallInfo", "DialIn", "DialInServer", "DialOut", "client_tls"]

logger = logging.getLogger(__name__)

_RETRY_DELAYS_S = (0.2, 0.5, 1.0, 2.0)  # then every two seconds
_ATTEMPT_S = 5.0  # one address may take this long, so that the next one gets its turn
_FINAL_STATUS = frozenset((401, 403, 404))  # asking again does not help
_MAX_TOKENS = 100_000

SocketFactory = Callable[[], AgentSocket]


@dataclass(frozen=True, slots=True)
class CallInfo:
    """What an agent is told of the call."""

    call_id: str
    source: str = ""
    """Who calls, as a number or name; empty when the dialplan did not say."""
    destination: str = ""
    """Who was called."""
    variables: Mapping[str, str] = field(default_factory=dict)


def client_tls(settings: Ai) -> ssl.SSLContext:
    """Return the TLS context for ``wss://``; it checks certificate and host name."""
    return ssl.create_default_context(cafile=settings.ca_file)


class DialOut:
    """Reach one call's agent by its URLs, in their order, with pauses of 0.2, 0.5, 1, 2, 2 … s
    between rounds.
    """

    def __init__(
        self, settings: Ai, call: CallInfo, metrics: Metrics, tls: ssl.SSLContext | None
    ) -> None:
        places = {"call_id": call.call_id, "from": call.source, "to": call.destination}
        quoted = {key: quote(value, safe="") for key, value in places.items()}
        self._urls = [url.format(**quoted) for url in settings.agent_url]
        self._headers = {
            **{name: value.get_secret_value() for name, value in settings.headers.items()},
            "X-Mediad-Call-Id": call.call_id,
            "X-Mediad-From": quoted["from"],
            "X-Mediad-To": quoted["to"],
        }
        self._metrics = metrics
        self._tls = tls
        self._at = 0  # index of the URL to try, or in use
        self._round = 0
        self._tries_in_round = 0

    @property
    def token(self) -> str | None:
        """There is none: mediad itself dials."""
        return None

    def close(self) -> None:
        """Nothing is kept open between attempts."""

    def skip(self) -> None:
        """The URL in use cannot take the call now: go on with the next one."""
        self._at = (self._at + 1) % len(self._urls)

    def reject(self) -> None:
        """The URL in use refuses this call for good."""
        del self._urls[self._at]
        self._at = self._at % len(self._urls) if self._urls else 0

    def renew(self) -> None:
        """An agent was there and is lost: begin with the shortest pause again."""
        self._round, self._tries_in_round = 0, len(self._urls)

    async def connect(self, make_socket: SocketFactory, deadline: float) -> AgentSocket:
        """Return an open connection.

        Raises:
            AgentUnavailable: When none was to be had until ``deadline`` (monotonic seconds), or all
            refused.
        """
        while self._urls:
            await self._pause(deadline)
            left = deadline - time.monotonic()
            if left <= 0:
                raise AgentUnavailable("no agent answered in time")
            self._tries_in_round += 1
            socket = await self._try(make_socket, min(left, _ATTEMPT_S))
            if socket is not None:
                return socket
        raise AgentUnavailable("every agent refused the call")

    async def _pause(self, deadline: float) -> None:
        if self._tries_in_round < len(self._urls):
            return
        delay = _RETRY_DELAYS_S[min(self._round, len(_RETRY_DELAYS_S) - 1)]
        self._round += 1
        self._tries_in_round = 0
        await asyncio.sleep(max(0.0, min(delay, deadline - time.monotonic())))

    async def _try(self, make_socket: SocketFactory, timeout_s: float) -> AgentSocket | None:
        url = self._urls[self._at]
        started = time.monotonic()
        try:
            async with asyncio.timeout(timeout_s):
                _, socket = await ws_connect(
                    make_socket,
                    url,
                    ssl_context=self._tls,
                    websocket_handshake_timeout=timeout_s,
                    max_frame_size=MAX_MESSAGE_SIZE,
                    max_redirects=0,
                    extra_headers=self._headers,
                )
        except WSHandshakeError as exc:
            status = exc.response.status if exc.response is not None else 0
            outcome = str(int(status)) if status else "bad_handshake"
            logger.warning("agent at %s refused the WebSocket: %s", _shown(url), exc)
            self.reject() if status in _FINAL_STATUS else self.skip()
        except (OSError, TimeoutError) as exc:
            outcome = "timeout" if isinstance(exc, TimeoutError) else "unreachable"
            logger.warning("agent at %s cannot be reached: %s", _shown(url), exc or "timed out")
            self.skip()
        else:
            self._metrics.agent_connects.labels("open").inc()
            self._metrics.agent_connect_time.observe(time.monotonic() - started)
            assert isinstance(socket, AgentSocket)
            return socket
        self._metrics.agent_connects.labels(outcome).inc()
        return None


class _Place:
    """Where an agent may dial in once."""

    def __init__(self, make_socket: SocketFactory | None = None) -> None:
        self.make_socket = make_socket
        self.taken: asyncio.Future[AgentSocket] = asyncio.get_running_loop().create_future()


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
            max_frame_size=MAX_MESSAGE_SIZE,
        )
        host, port = self._server.sockets[0].getsockname()[:2]
        return host, port

    def stop(self) -> None:
        """Listen no more; open connections are their calls' business."""
        if self._server is not None:
            self._server.close()

    def offer(self) -> tuple[str, _Place]:
        """Make a token and its place."""
        if len(self._places) >= _MAX_TOKENS:
            raise AgentUnavailable("too many calls wait for an agent")
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
        if place.taken.done() or place.make_socket is None:
            self._metrics.agent_connects.labels("second_agent").inc()
            return _Refusal()
        socket = place.make_socket()
        place.taken.set_result(socket)
        return socket


class _Refusal(WSListener):  # type: ignore[misc]
    """Close a second agent's connection with 1013, as a stock single-client server does."""

    def on_ws_connected(self, transport: WSTransport) -> None:
        transport.send_close(WSCloseCode.TRY_AGAIN_LATER)
        transport.disconnect()


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
    def token(self) -> str | None:
        """What the agent puts behind ``/agent/``."""
        return self._token

    def skip(self) -> None:
        """The agent left before it said anything: another may come with a new token."""

    reject = renew = skip

    async def connect(self, make_socket: SocketFactory, deadline: float) -> AgentSocket:
        """Return the connection of the agent that came with the token.

        Raises:
            AgentUnavailable: When none came while the token was good.
        """
        if not self._is_first:
            self._server.withdraw(self._token)
            self._token, self._place = self._server.offer()
            self._on_token(self._token)
        self._is_first = False
        self._place.make_socket = make_socket
        started = time.monotonic()
        try:
            async with asyncio.timeout(self._token_s):
                socket = await asyncio.shield(self._place.taken)
                await socket.opened()
        except TimeoutError:
            raise AgentUnavailable("no agent dialled in while its token was good") from None
        self._metrics.agent_connects.labels("open").inc()
        self._metrics.agent_connect_time.observe(time.monotonic() - started)
        return socket

    def close(self) -> None:
        """Withdraw the token."""
        self._server.withdraw(self._token)


def _shown(url: str) -> str:
    """Return the URL without its query, which may carry a key."""
    return url.partition("?")[0]
