"""Finding a service of a call that is ready, among its addresses."""

import logging
from collections.abc import Callable

from mediad.ai.connect import CallInfo
from mediad.ai.dial import shown
from mediad.ai.services.connection import Connection
from mediad.ai.services.service import Service
from mediad.errors import AgentUnavailable

__all__ = ["Finder"]

logger = logging.getLogger(__name__)


class Finder:
    """The addresses of one service as one call tries them."""

    def __init__(self, service: Service, call: CallInfo) -> None:
        self._service = service
        self._call = call
        self._addresses = service.addresses()

    @property
    def url(self) -> str:
        """The address in use, or to be tried next; empty when all have refused."""
        return self._addresses.url or ""

    async def find(
        self, make_connection: Callable[[str], Connection], deadline: float
    ) -> Connection:
        """Return a connection that is ready.

        Raises:
            AgentUnavailable: When none was to be had until ``deadline`` (monotonic seconds), or all
            refused.
        """
        role = self._service.role
        while url := self.url:
            left = await self._addresses.pause(deadline)
            if left <= 0:
                raise AgentUnavailable(f"no {role} service was ready in time")
            connection = make_connection(url)
            if await self._open(connection, min(left, self._service.settings.connect_timeout_s)):
                return connection
        raise AgentUnavailable(f"every {role} service refused the call")

    async def _open(self, connection: Connection, timeout_s: float) -> bool:
        service, url = self._service, connection.url
        refusal = await connection.open(service, self._call, timeout_s)
        if refusal is None:
            service.counts.count_connect("open")
            service.counts.connect_time.observe(connection.connect_s)
            service.works(url)
            return True
        service.counts.count_connect(refusal.outcome)
        service.has_failed(url)
        self._addresses.reject() if refusal.is_final else self._addresses.skip()
        # The cause stands in the message itself: the log counts repeats of each on its own.
        logger.warning(f"{service.role} service at %s: {refusal.why}", shown(url), *refusal.said)
        return False

    def skip(self, connection: Connection) -> None:
        """A connection was lost: try another address, at once if this one was good until then."""
        self._service.has_failed(connection.url)
        if connection.was_good:
            self._addresses.renew(at_once=True)
        self._addresses.skip()

    def renew(self) -> None:
        """A connection was left for no fault of its own: try the same address at once."""
        self._addresses.renew(at_once=True)
