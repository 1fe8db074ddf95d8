"""Counts what the API answers, by status: refusals of its limits and errors of our own are told
apart there.
"""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["CountAnswers"]

_STARTS = ("http.response.start", "websocket.http.response.start")


class CountAnswers:
    """Counts every answer, also to the handshake of a WebSocket that is refused."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        services = getattr(scope["app"].state, "services", None)
        has_started = False

        def count(status: int) -> None:
            nonlocal has_started
            has_started = True
            if services is not None:
                services.metrics.http_answers.labels(status).inc()

        async def send_and_count(message: Message) -> None:
            if message["type"] in _STARTS:
                count(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, send_and_count)
        except Exception:  # Starlette answers it, outside of everything that is added to it
            if not has_started:
                count(500)
            raise
