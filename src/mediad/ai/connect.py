"""Getting a WebSocket to a call's agent by its URLs. Agents that dial in are ``ai.dial_in``'s.

What a closed connection means is ``ai.agent``'s business.
"""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from mediad.ai.dial import Addresses, SocketFactory, dial, shown
from mediad.ai.socket import AgentSocket
from mediad.ai.tls import ClientTls
from mediad.bus.events import DEFAULT_CUSTOMER
from mediad.config import Ai
from mediad.errors import AgentUnavailable
from mediad.metrics import Metrics

__all__ = ["CallInfo", "DialOut", "SocketFactory"]

logger = logging.getLogger(__name__)

_ATTEMPT_S = 5.0  # one address may take this long, so that the next one gets its turn


@dataclass(frozen=True, slots=True)
class CallInfo:
    """What an agent is told of the call."""

    call_id: str
    source: str = ""
    """Who calls, as a number or name; empty when the dialplan did not say."""
    destination: str = ""
    """Who was called."""
    variables: Mapping[str, str] = field(default_factory=dict)
    customer_id: str = DEFAULT_CUSTOMER
    """Whose call it is. The agent is not told."""
    agent_url: tuple[str, ...] = ()
    """Where this call's agent is, in place of ``ai.agent_url``."""
    agent: Mapping[str, Any] | None = None
    """What the agent is to be like; None leaves that to the agent."""
    max_s: float | None = None
    """The longest that the call may last, in seconds."""
    link: str | None = None
    """``agent`` or ``pipeline``, in place of ``ai.link``."""


class DialOut:
    """Reach one call's agent by its URLs; see `Addresses`."""

    def __init__(
        self, settings: Ai, call: CallInfo, metrics: Metrics, tls: ClientTls | None
    ) -> None:
        places = {"call_id": call.call_id, "from": call.source, "to": call.destination}
        quoted = {key: quote(value, safe="") for key, value in places.items()}
        urls = call.agent_url or settings.agent_url
        self._addresses = Addresses(url.format(**quoted) for url in urls)
        # Headers with keys, and our certificate, are for our own agents, not for wherever a
        # customer's agents are.
        is_ours = not call.agent_url
        headers = settings.headers if is_ours else {}
        self._headers = {
            **{name: value.get_secret_value() for name, value in headers.items()},
            "X-Mediad-Call-Id": call.call_id,
            "X-Mediad-From": quoted["from"],
            "X-Mediad-To": quoted["to"],
            **{
                f"X-Mediad-Var-{quote(name, safe='')}": quote(value, safe=" ")
                for name, value in call.variables.items()
            },
        }
        self._metrics = metrics
        self._tls = None if tls is None else tls.ours if is_ours else tls.others

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
        self._addresses.skip()

    def reject(self) -> None:
        """The URL in use refuses this call for good."""
        self._addresses.reject()

    def renew(self) -> None:
        """An agent was there and is lost: begin with the shortest pause again."""
        self._addresses.renew()

    async def connect(self, make_socket: SocketFactory, deadline: float) -> AgentSocket:
        """Return an open connection.

        Raises:
            AgentUnavailable: When none was to be had until ``deadline`` (monotonic seconds), or all
            refused.
        """
        while (url := self._addresses.url) is not None:
            left = await self._addresses.pause(deadline)
            if left <= 0:
                raise AgentUnavailable("no agent answered in time")
            socket = await self._try(url, make_socket, min(left, _ATTEMPT_S))
            if socket is not None:
                return socket
        raise AgentUnavailable("every agent refused the call")

    async def _try(
        self, url: str, make_socket: SocketFactory, timeout_s: float
    ) -> AgentSocket | None:
        started = time.monotonic()
        answer = await dial(url, make_socket, self._headers, self._tls, timeout_s)
        if isinstance(answer, AgentSocket):
            self._metrics.agent_connects.labels("open").inc()
            self._metrics.agent_connect_time.observe(time.monotonic() - started)
            return answer
        self.reject() if answer.is_final else self.skip()
        self._metrics.agent_connects.labels(answer.outcome).inc()
        # The cause stands in the message itself: the log counts repeats of each on its own.
        logger.warning(f"agent at %s: {answer.why}", shown(url), *answer.said)
        return None
