"""Bodies of requests: each is read whole, in time and within bounds, after its key was found good
and before its request gets a place among those at work. So a slow one holds up nobody, and of one
that breaks off nothing is run.
"""

import asyncio
import re

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mediad.api.access import needs_key
from mediad.api.errors import ApiError
from mediad.api.limits import refuse
from mediad.api.playing import MAX_BYTES as MAX_PLAYED_BYTES

__all__ = ["MAX_BODY_BYTES", "MAX_BODY_S", "MAX_HELD_BYTES", "BodyLimit"]

MAX_BODY_BYTES = 128 * 1024
"""The largest body of a request, but for what ``play`` is sent. While one is parsed no other thread
runs: up to 4 ms for the worst JSON of this size, and media has 40 ms in hand.
"""

MAX_BODY_S = 10.0
"""How long a body may take to come, in seconds."""

MAX_HELD_BYTES = 64 << 20
"""All bodies together, each from its first byte until its request is over."""

_PLAY = re.compile(r"/v1/calls/[^/]+/play")


class BodyLimit:
    """Refuses bodies that are too large, too slow, or too much together."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._held_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not (needs_key(scope) and _has_body(scope)):
            await self._app(scope, receive, send)
            return
        body = _Body()
        try:
            try:
                is_whole = await self._read(scope, receive, body)
            except ApiError as exc:
                await refuse(exc, scope, receive, send)
                return
            if is_whole:  # else there is nobody to answer to
                await self._app(scope, body.replay(receive), send)
        finally:
            self._held_bytes -= body.size_bytes

    async def _read(self, scope: Scope, receive: Receive, body: "_Body") -> bool:
        """Read a body; return whether it came to its end, or its client went away before that.

        Raises:
            ApiError: If it is not taken.
        """
        limit = _limit(scope)
        length = Headers(scope=scope).get("content-length", "0")
        if not length.isdecimal() or int(length[:20]) > limit:
            raise _too_large(limit)
        try:
            async with asyncio.timeout(MAX_BODY_S):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        return False
                    piece = message.get("body", b"")
                    body.add(piece)
                    self._held_bytes += len(piece)
                    if body.size_bytes > limit:
                        raise _too_large(limit)
                    if self._held_bytes > MAX_HELD_BYTES:
                        raise ApiError(
                            503, "busy", "too much is being sent", headers={"Retry-After": "1"}
                        )
                    if not message.get("more_body", False):
                        return True
        except TimeoutError as exc:
            # The connection is of no use: the rest of the body would still come on it.
            headers = {"Connection": "close"}
            text = f"a body must come within {MAX_BODY_S:g} s"
            raise ApiError(408, "slow_body", text, headers=headers) from exc


class _Body:
    """What has come of a body."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._is_told = False
        self.size_bytes = 0
        """Also when it was given away."""

    def add(self, piece: bytes) -> None:
        """Append what came."""
        self._bytes += piece
        self.size_bytes += len(piece)

    def replay(self, receive: Receive) -> Receive:
        """Return what gives the body in one piece, and then what the server has to say."""

        async def replay() -> Message:
            if self._is_told:
                return await receive()
            self._is_told = True
            whole, self._bytes = bytes(self._bytes), bytearray()  # not to hold it twice
            return {"type": "http.request", "body": whole, "more_body": False}

        return replay


def _has_body(scope: Scope) -> bool:
    headers = Headers(scope=scope)
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


def _limit(scope: Scope) -> int:
    plays = scope["method"] == "POST" and _PLAY.fullmatch(scope["path"])
    return MAX_PLAYED_BYTES if plays else MAX_BODY_BYTES


def _too_large(limit: int) -> ApiError:
    return ApiError(413, "too_large", f"a body may have {limit} bytes")
