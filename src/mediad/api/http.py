"""The HTTP port: the API under /v1, /metrics, /healthz (the process lives), /readyz (it takes
calls). /metrics may have a port of its own.
"""

import asyncio
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import uvicorn
from fastapi import FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

import mediad
from mediad.api import (
    accesskeys,
    agents,
    audit_logs,
    calls,
    customers,
    dialplan,
    events,
    flows,
    me,
    numbers,
    recordings,
    transcribes,
    transcripts,
    webhook_deliveries,
    webhooks,
)
from mediad.api.access import REFUSALS, KeyCheck
from mediad.api.answers import CountAnswers
from mediad.api.bodies import MAX_BODY_BYTES, BodyLimit
from mediad.api.connections import Connection
from mediad.api.errors import ErrorBody, register_errors
from mediad.api.forwarded import Forwarded
from mediad.api.limits import Admission, HeaderLimit, RateHeaders
from mediad.api.playing import MAX_BYTES as MAX_PLAYED_BYTES
from mediad.api.refusals import Refusals
from mediad.api.request_ids import RequestIds
from mediad.config import Http
from mediad.metrics import Metrics

__all__ = ["HttpServer", "make_app", "make_metrics_app"]

_SHUTDOWN_S = 2
_MAX_WS_MESSAGE = 65_536  # of a subscriber, in bytes

_RESOURCES = (
    me,
    customers,
    accesskeys,
    agents,
    numbers,
    flows,
    calls,
    dialplan,
    transcribes,
    transcripts,
    recordings,
    webhooks,
    webhook_deliveries,
    audit_logs,
    events,
)
_FROM_WITHIN = (
    Admission,
    BodyLimit,
    KeyCheck,
    RateHeaders,
    HeaderLimit,
    Refusals,
    CountAnswers,
    RequestIds,
)
_LARGEST = f"{MAX_BODY_BYTES >> 10} KiB, for `play` {MAX_PLAYED_BYTES >> 20} MiB"
_DETAILS = REFUSALS | {413: {"description": f"The body is larger than it may be: {_LARGEST}"}}
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody} | _DETAILS.get(status, {})
    for status in (400, 401, 403, 408, 413, 422, 429, 431, 500, 503)
}


def make_app(
    registry: CollectorRegistry | None,
    readiness: Callable[[], Mapping[str, str]],
    health: Callable[[], Mapping[str, str]],
) -> FastAPI:
    """Return the application. Its ``state.services`` is set before the first request.

    Args:
        registry: What /metrics shows; None if there is no such page here.
        readiness: What keeps mediad from taking calls, as part → reason; empty when it is ready.
        health: What does not work as it should, as part → reason; calls may go on without it.
    """
    app = FastAPI(title="mediad", version=mediad.__version__)
    register_errors(app)
    for resource in _RESOURCES:
        # The dialplan has its own way to say what is wrong.
        errors = {} if resource is dialplan else _ERRORS
        app.include_router(resource.router, prefix="/v1", responses=errors)
    for middleware in _FROM_WITHIN:
        app.add_middleware(middleware)

    @app.get("/healthz", summary="Whether the process lives, and what of it does not work")
    async def healthz() -> dict[str, object]:
        problems = health()
        status = "degraded" if problems else "ok"
        return {"status": status, "version": mediad.__version__, "problems": problems}

    @app.get("/readyz", summary="Whether calls are taken; 503 with the reasons if not")
    async def readyz(response: Response) -> dict[str, object]:
        problems = readiness()
        response.status_code = 503 if problems else 200
        return {"status": "not ready" if problems else "ready", "problems": problems}

    if registry is not None:
        _add_metrics(app, registry)
    return app


def make_metrics_app(registry: CollectorRegistry) -> FastAPI:
    """Return an application that has nothing but /metrics."""
    app = FastAPI(title="mediad", version=mediad.__version__, openapi_url=None)
    register_errors(app)
    _add_metrics(app, registry)
    return app


def _add_metrics(app: FastAPI, registry: CollectorRegistry) -> None:
    @app.get("/metrics", summary="Metrics in Prometheus' text format", response_class=Response)
    async def metrics() -> Response:
        # In a thread: with a thousand calls this is milliseconds of CPU.
        text = await asyncio.to_thread(generate_latest, registry)
        return Response(text, media_type=CONTENT_TYPE_LATEST)


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # signals are the application's


class HttpServer:
    """uvicorn on the running loop."""

    def __init__(self, settings: Http, app: FastAPI, metrics: Metrics) -> None:
        self._settings = settings
        self._app = app
        config = uvicorn.Config(
            Forwarded(app, settings.trusted_proxies),
            http=partial(Connection, metrics.http_connections_closed),  # type: ignore[arg-type]
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            proxy_headers=False,  # it would believe whoever is on this machine; see Forwarded
            ws_max_size=_MAX_WS_MESSAGE,
            ws_per_message_deflate=False,
            timeout_graceful_shutdown=_SHUTDOWN_S,
        )
        self._server = _Server(config)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> tuple[str, int]:
        """Listen; return the address.

        Raises:
            OSError: If the address cannot be bound.
        """
        family = socket.AF_INET6 if ":" in self._settings.host else socket.AF_INET
        sock = socket.create_server((self._settings.host, self._settings.port), family=family)
        self._task = asyncio.get_running_loop().create_task(self._server.serve(sockets=[sock]))
        while not self._server.started and not self._task.done():  # noqa: ASYNC110 (it has no event)
            await asyncio.sleep(0.01)
        host, port = sock.getsockname()[:2]
        return host, port

    async def stop(self) -> None:
        """Answer what was asked, then stop."""
        await events.close_connections(self._app)
        self._server.should_exit = True
        if self._task is not None:
            await self._task
