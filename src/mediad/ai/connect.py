"""Getting a WebSocket to a call's agent by its URLs. Agents that dial in are ``ai.dial_in``'s.

What a closed connection means is ``ai.agent``'s business.
"""

import asyncio
import logging
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from picows import (
    WSError,
    WSHandshakeError,
    WSInvalidHeaderError,
    WSUpgradeRequest,
    WSUpgradeResponse,
    ws_connect,
)

from mediad.ai.socket import AgentSocket
from mediad.ai.tls import cause_of, client_tls
from mediad.config import Ai
from mediad.errors import AgentUnavailable
from mediad.metrics import Metrics
from mediad.wire.frames import MAX_MESSAGE_SIZE

__all__ = ["CallInfo", "DialOut", "SocketFactory", "client_tls"]

logger = logging.getLogger(__name__)

_RETRY_DELAYS_S = (0.2, 0.5, 1.0, 2.0)  # then every two seconds
_ATTEMPT_S = 5.0  # one address may take this long, so that the next one gets its turn
_FINAL_STATUS = frozenset((401, 403, 404))  # asking again does not help
_REDIRECTS = frozenset((301, 302, 303, 307, 308))

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
            **{
                f"X-Mediad-Var-{quote(name, safe='')}": quote(value, safe=" ")
                for name, value in call.variables.items()
            },
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

    @property
    def settle_s(self) -> float:
        """A server that accepts is ready."""
        return 0.0

    def close(self) -> None:
        """Nothing is kept open between attempts."""

    def skip(self) -> None:
        """The URL in use cannot take the call now: go on with the next one."""
        self._at = (self._at + 1) % len(self._urls)

    def reject(self) -> None:
        """The URL in use refuses this call for good."""
        del self._urls[self._at]
        self._tries_in_round -= 1  # of the URLs that are left
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
        attempt = _Attempt(make_socket)
        try:
            async with asyncio.timeout(timeout_s):
                await ws_connect(
                    attempt.make,
                    url,
                    ssl_context=self._tls,
                    websocket_handshake_timeout=timeout_s,
                    enable_auto_pong=False,
                    max_frame_size=MAX_MESSAGE_SIZE,
                    max_redirects=0,
                    extra_headers=self._headers,
                )
            if attempt.socket is None:  # how picows tells it
                raise ConnectionResetError
        except WSHandshakeError as exc:
            outcome, why = _refusal(exc)
            status = exc.response.status if exc.response is not None else 0
            self.reject() if status in _FINAL_STATUS else self.skip()
        except (OSError, TimeoutError, WSError, UnicodeError) as exc:  # of a host name, the last
            outcome, why = _failure(exc, url)
            self.skip()
        else:
            self._metrics.agent_connects.labels("open").inc()
            self._metrics.agent_connect_time.observe(time.monotonic() - started)
            return attempt.keep()
        finally:
            attempt.give_up()
        self._metrics.agent_connects.labels(outcome).inc()
        # The cause stands in the message itself: the log counts repeats of each on its own.
        logger.warning(f"agent at %s: {why.replace('%', '%%')}", _shown(url))
        return None


class _Attempt:
    """One attempt's socket. picows goes on with a handshake that nobody awaits any more: what
    still comes of it is refused, or closed.
    """

    def __init__(self, make_socket: SocketFactory) -> None:
        self._make_socket = make_socket
        self._is_given_up = False
        self.socket: AgentSocket | None = None

    def make(self, request: WSUpgradeRequest, response: WSUpgradeResponse) -> AgentSocket:
        if self._is_given_up:
            raise ConnectionAbortedError("the call no longer waits for this agent")
        self.socket = self._make_socket()
        return self.socket

    def keep(self) -> AgentSocket:
        socket, self.socket = self.socket, None
        assert socket is not None
        return socket

    def give_up(self) -> None:
        self._is_given_up = True
        if self.socket is not None:
            self.socket.close()


def _refusal(exc: WSHandshakeError) -> tuple[str, str]:
    """Return what an answer that is no WebSocket is counted as, and what to say of it. Nothing of
    the agent's own words: it may repeat what we sent, and that holds a key.
    """
    if exc.response is None:
        return "bad_handshake", "its answer is no HTTP"
    status = exc.response.status
    if status in _REDIRECTS:
        return "redirect", f"it answers {int(status)}, and redirects are not followed"
    if status != 101:
        return str(int(status)), f"it answers {int(status)}"
    what = exc if isinstance(exc, WSInvalidHeaderError) else "its headers are wrong"
    return "bad_handshake", f"its answer is no WebSocket: {what}"


def _failure(exc: Exception, url: str) -> tuple[str, str]:
    """Return the same of an agent that gave no answer."""
    if isinstance(exc, TimeoutError):
        return "timeout", "no answer in time"
    if isinstance(exc, ssl.SSLError):
        return cause_of(exc)
    if isinstance(exc, ConnectionResetError):
        hint = " (does it ask for ai.client_cert?)" if url.startswith("wss:") else ""
        return "closed", f"it closes the connection within the handshake{hint}"
    return "unreachable", f"cannot be reached: {exc}"


def _shown(url: str) -> str:
    """Return the URL without its query, which may carry a key."""
    return url.partition("?")[0]
