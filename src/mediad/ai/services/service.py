"""One of the pipeline's services as the whole process knows it: its addresses, which of them work,
and what a connection to it needs. One object a role; calls have links.
"""

import hashlib
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import quote

from mediad.ai.connect import CallInfo
from mediad.ai.dial import Addresses
from mediad.ai.services.counts import Counts, ServiceMetrics
from mediad.config import ServiceSettings, Settings
from mediad.metrics import Metrics
from mediad.wire.service import Role

__all__ = ["AVOID_S", "Service", "Services", "make_services", "name_of", "reload_services"]

AVOID_S = 10.0
"""How long an address that failed comes last for new calls, in seconds."""


@dataclass(frozen=True, slots=True)
class Service:
    """What the links of one role share.

    Args:
        role: Which of the three.
        settings: Its table.
        counts: Where it is counted.
        tls: For wss://.
        ping_s: How often a connection is pinged, in seconds.
        connect_timeout_s: How long a call may be without it at its start, in seconds.
        reconnect_s: The same after one was lost.
    """

    role: Role
    settings: ServiceSettings
    counts: Counts
    tls: ssl.SSLContext | None
    ping_s: float = 2.0
    connect_timeout_s: float = 10.0
    reconnect_s: float = 30.0
    _failed_at: dict[str, float] = field(default_factory=dict, init=False)

    def addresses(self) -> Addresses:
        """Return the addresses for a call, those that failed lately last."""
        now = time.monotonic()

        def is_bad(url: str) -> bool:
            return now - self._failed_at.get(url, -AVOID_S) < AVOID_S

        return Addresses(sorted(self.settings.url, key=is_bad))

    def has_failed(self, url: str) -> None:
        """Let new calls begin with another address."""
        self._failed_at[url] = time.monotonic()

    def works(self, url: str) -> None:
        """Let new calls begin with this address again, as far as its place in the list goes."""
        self._failed_at.pop(url, None)

    def headers(self, call: CallInfo) -> dict[str, str]:
        """Return the headers of a call's handshake."""
        return {
            **{name: value.get_secret_value() for name, value in self.settings.headers.items()},
            "X-Mediad-Call-Id": call.call_id,
        }

    def url_for(self, url: str, call: CallInfo) -> str:
        """Return an address with the call in it."""
        places = {"call_id": call.call_id, "from": call.source, "to": call.destination}
        return url.format(**{key: quote(value, safe="") for key, value in places.items()})


def name_of(url: str) -> str:
    """Return what tells an address from others without saying what is in its query: maybe a key."""
    address, _, query = url.partition("?")
    return f"{address}?{hashlib.sha256(query.encode()).hexdigest()[:12]}" if query else address


class Services(NamedTuple):
    """The three of a pipeline."""

    stt: Service
    llm: Service
    tts: Service


def make_services(settings: Settings, metrics: Metrics, tls: ssl.SSLContext | None) -> Services:
    """Return the services that the settings name; once in a process, for its metrics."""
    counted = ServiceMetrics(metrics.registry)
    return _services(settings, tls, lambda role: Counts(counted, role))


def reload_services(services: Services, settings: Settings, tls: ssl.SSLContext | None) -> Services:
    """Return the services that other settings name, counted on as before."""
    counts = {service.role: service.counts for service in services}
    return _services(settings, tls, lambda role: counts[role])


def _services(
    settings: Settings, tls: ssl.SSLContext | None, counts: Callable[[Role], Counts]
) -> Services:
    ai = settings.ai

    def make(role: Role, table: ServiceSettings) -> Service:
        timing = (ai.ping_s, ai.connect_timeout_s, ai.reconnect_s)
        return Service(role, table, counts(role), tls, *timing)

    return Services(make("stt", settings.stt), make("llm", settings.llm), make("tts", settings.tts))
