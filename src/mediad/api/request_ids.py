"""What each request is called: what its client calls it, if that is short and plain, else an id of
our own. It is in the answer (`X-Request-Id`), and beside what the request changed in the audit log.
"""

import re
import time
from typing import NamedTuple

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mediad.api.errors import REQUEST_ID_HEADER
from mediad.store.audit import MAX_REQUEST_ID
from mediad.store.types import new_id

__all__ = ["Begun", "RequestIds"]

_PLAIN = re.compile(rf"[!-~]{{1,{MAX_REQUEST_ID}}}")


class Begun(NamedTuple):
    """A request, and when it began."""

    request_id: str
    at: float
    """In monotonic seconds."""


class RequestIds:
    """Notes in each request's state what it is called and when it began, as ``begun``."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
        id = given if _PLAIN.fullmatch(given) else new_id()
        scope.setdefault("state", {})["begun"] = Begun(id, time.monotonic())

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = id
            await send(message)

        await self._app(scope, receive, send_with_id)
