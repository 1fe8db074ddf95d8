"""Opening a WebSocket: one attempt, and which address is tried after how long a pause. What an open
one is good for is for those who ask: `connect` for agents, `services.link` for services.
"""

import asyncio
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from picows import (
    WSError,
    WSHandshakeError,
    WSInvalidHeaderError,
    WSUpgradeRequest,
    WSUpgradeResponse,
    ws_connect,
)

from mediad.ai.socket import READ_BUFFER_BYTES, AgentSocket
from mediad.ai.tls import cause_of
from mediad.wire.frames import MAX_MESSAGE_SIZE

__all__ = ["Addresses", "Refusal", "SocketFactory", "dial", "shown"]

_RETRY_DELAYS_S = (0.2, 0.5, 1.0, 2.0)  # then every two seconds
_FINAL_STATUS = frozenset((401, 403, 404))  # asking again does not help
_REDIRECTS = frozenset((301, 302, 303, 307, 308))

SocketFactory = Callable[[], AgentSocket]


class Refusal(NamedTuple):
    """Why there is no connection."""

    outcome: str
    """What it is counted as."""
    is_final: bool
    """Whether this address need not be asked again."""
    why: str
    """The same in words, to be filled in with the rest: the log counts repeats by them, so nothing
    in them is a peer's.
    """
    said: tuple[object, ...] = ()
    """What is filled in; a peer's words are short and quoted."""


class Addresses:
    """One peer's URLs, tried in their order; between rounds pauses of 0.2, 0.5, 1, 2, 2 … s."""

    def __init__(self, urls: Iterable[str]) -> None:
        self._urls = list(urls)
        self._at = 0  # index of the URL to try, or in use
        self._round = 0
        self._tries_in_round = 0

    @property
    def url(self) -> str | None:
        """The one to try, or in use; None when all have refused."""
        return self._urls[self._at] if self._urls else None

    def skip(self) -> None:
        """The URL in use is not good now: go on with the next one."""
        self._at = (self._at + 1) % len(self._urls)

    def reject(self) -> None:
        """The URL in use refuses for good."""
        del self._urls[self._at]
        self._tries_in_round -= 1  # of the URLs that are left
        self._at = self._at % len(self._urls) if self._urls else 0

    def renew(self, *, at_once: bool = False) -> None:
        """The URL in use was good and is lost: begin again with the shortest pause, or none."""
        self._round, self._tries_in_round = 0, 0 if at_once else len(self._urls)

    async def pause(self, deadline: float) -> float:
        """Wait until the next attempt is due, count it, and return the seconds that are left then
        until ``deadline`` (monotonic); none are left where that is not positive.
        """
        if self._tries_in_round >= len(self._urls):
            delay = _RETRY_DELAYS_S[min(self._round, len(_RETRY_DELAYS_S) - 1)]
            self._round += 1
            self._tries_in_round = 0
            await asyncio.sleep(max(0.0, min(delay, deadline - time.monotonic())))
        self._tries_in_round += 1
        return deadline - time.monotonic()


async def dial(
    url: str,
    make_socket: SocketFactory,
    headers: Mapping[str, str],
    tls: ssl.SSLContext | None,
    timeout_s: float,
) -> AgentSocket | Refusal:
    """Return an open connection, or why there is none."""
    attempt = _Attempt(make_socket)
    try:
        async with asyncio.timeout(timeout_s):
            await ws_connect(
                attempt.make,
                url,
                ssl_context=tls,
                websocket_handshake_timeout=timeout_s,
                enable_auto_pong=False,
                max_frame_size=MAX_MESSAGE_SIZE,
                read_buffer_init_size=READ_BUFFER_BYTES,
                max_redirects=0,
                extra_headers=headers,
            )
        if attempt.socket is None:  # how picows tells it
            raise ConnectionResetError
    except WSHandshakeError as exc:
        return _refusal(exc)
    except (OSError, TimeoutError, WSError, UnicodeError) as exc:  # of a host name, the last
        return _failure(exc, url)
    else:
        return attempt.keep()
    finally:
        attempt.give_up()


def shown(url: str) -> str:
    """Return the URL without its query, which may carry a key."""
    return url.partition("?")[0]


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
            raise ConnectionAbortedError("nobody waits for this connection any more")
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


def _refusal(exc: WSHandshakeError) -> Refusal:
    """Explain an answer that is no WebSocket. Nothing of the peer's own words: it may repeat what
    we sent, and that holds a key.
    """
    if exc.response is None:
        return Refusal("bad_handshake", False, "its answer is no HTTP")
    status = exc.response.status
    is_final = status in _FINAL_STATUS
    if status in _REDIRECTS:
        why = "it answers %d, and redirects are not followed"
        return Refusal("redirect", is_final, why, (status,))
    if status != 101:
        return Refusal(str(int(status)), is_final, "it answers %d", (status,))
    what = exc if isinstance(exc, WSInvalidHeaderError) else "its headers are wrong"
    return Refusal("bad_handshake", is_final, "its answer is no WebSocket: %s", (what,))


def _failure(exc: Exception, url: str) -> Refusal:
    """Explain that there was no answer."""
    if isinstance(exc, TimeoutError):
        return Refusal("timeout", False, "no answer in time")
    if isinstance(exc, ssl.SSLError):
        cause, why, said = cause_of(exc)
        return Refusal(cause, False, why, (said,))
    if isinstance(exc, ConnectionResetError):
        hint = " (does it ask for ai.client_cert?)" if url.startswith("wss:") else ""
        return Refusal("closed", False, f"it closes the connection within the handshake{hint}")
    return Refusal("unreachable", False, "cannot be reached: %s", (exc,))
