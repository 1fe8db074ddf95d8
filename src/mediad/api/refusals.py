"""Changes that somebody with a good access key was refused: the audit log gets an entry of each."""

import asyncio
import logging
import re

from starlette.types import ASGIApp, Receive, Scope, Send

from mediad.api.access import Access
from mediad.api.errors import ApiError
from mediad.api.limits import Windows, now_s
from mediad.api.services import Services
from mediad.errors import DatabaseUnavailable
from mediad.store import audit
from mediad.store.audit import Change

__all__ = ["MAX_PER_MINUTE", "MAX_WAITING", "Refusals"]

logger = logging.getLogger(__name__)

MAX_PER_MINUTE = 10
"""Refusals of one access key that are written in a minute; more are dropped. Entries are kept for
ever, and a key need not be able to change anything to be refused.
"""

MAX_WAITING = 100
"""Refusals that wait to be written; more are dropped."""

_TYPES = {
    "customers": "customer",
    "accesskeys": "accesskey",
    "agents": "agent",
    "numbers": "number",
    "flows": "flow",
    "webhooks": "webhook",
    "webhook_deliveries": "webhook_delivery",
}
"""What the audit log tells of, by its place in paths."""

_PATH = re.compile(
    rf"/v1/({'|'.join(_TYPES)})(?:/([^/]{{1,36}})(?:/(rotate|rotate_secret|test|redeliver))?)?"
)
_ACTIONS = {"POST": "create", "PATCH": "update", "DELETE": "delete"}


class Refusals:
    """Writes refused changes down once they are answered, one after the other, each in a short
    transaction: of the connections to the database they take one. When a key has too many, too
    many wait, or one cannot be written, they are counted as dropped.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._line = asyncio.Lock()
        self._waiting = 0
        self._minutes = Windows()  # by access key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)
        if (change := refused_change(scope)) is not None:
            await self._write(scope["app"].state.services, scope["state"]["access"], change)

    async def _write(self, services: Services, access: Access, change: Change) -> None:
        is_written = False
        self._waiting += 1
        try:
            if self._is_taken(access):
                async with self._line, services.database.write() as connection:
                    await audit.record(connection, access.actor, [change])
                is_written = True
        except DatabaseUnavailable as exc:
            logger.debug("a refused change is not in the audit log: %s", exc)
        except Exception:  # the request was answered well: it must not fail for this
            logger.exception("a refused change is not in the audit log")
        finally:
            self._waiting -= 1
            if not is_written:
                services.metrics.audit_dropped.inc()

    def _is_taken(self, access: Access) -> bool:
        """Return whether one more of an access key is to be written."""
        if self._waiting > MAX_WAITING:
            return False
        return self._minutes.add(access.key_id, MAX_PER_MINUTE, now_s()).remaining >= 0


def refused_change(scope: Scope) -> Change | None:
    """Return the change that an answered request was refused; None if it was none, was done, came
    without a good key or too often, or failed for what is not its fault.
    """
    state = scope.get("state", {})
    access: Access | None = state.get("access")
    error: ApiError | None = state.get("error")
    if access is None or error is None or error.status == 429 or error.status >= 500:
        return None
    path, method = _PATH.fullmatch(scope["path"]), scope["method"]
    if path is None or method not in _ACTIONS:
        return None
    resource, id, verb = path.groups()
    action = verb or _ACTIONS[method]
    reason = error.body.error.reason
    return Change(access.customer_id, action, _TYPES[resource], id or "", error=reason)
