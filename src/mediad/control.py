"""What runs beside the calls, on a thread and an event loop of its own: HTTP, the database, the
cache, and the way of facts from the journal to both.

A slow query or a page of JSON takes its time there; audio, on the other loop, does not wait for it.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from typing import Any

from fastapi import FastAPI

from mediad import blot
from mediad.api.http import HttpServer, make_app, make_metrics_app
from mediad.api.services import Services
from mediad.bus.bus import Bus
from mediad.bus.commands import Commands
from mediad.cache import open_cache
from mediad.cache.speech import SpeechCache
from mediad.config import Http, Settings
from mediad.errors import DatabaseUnavailable
from mediad.loop_thread import LoopThread
from mediad.metrics import Metrics
from mediad.store.cached import CachedReads
from mediad.store.database import Database
from mediad.store.first_key import make_first_key
from mediad.store.journal import Journal
from mediad.store.sessions import Sessions
from mediad.store.writer import Writer
from mediad.webhooks.delivery import Deliverer

__all__ = ["Control"]

logger = logging.getLogger(__name__)

_CHECK_S = 10.0
_TICK_S = 0.1
_DRAIN_S = 5.0  # for the last facts to reach the database; they are safe in the journal anyway

_WEBHOOKS_S = 2.0  # for requests that run; what is cut off is sent again after the next start


class Control:
    """Everything that is not media. `start` and `stop` it from the media loop.

    Args:
        settings: All of them.
        bus: Where facts come from and durable events go to.
        commands: The way to live calls.
        journal: Where facts wait; it is open while this runs.
        speech_cache: Gets the cache, for calls.
        metrics: Where this counts, and what /metrics shows.
        readiness: What keeps mediad from taking calls, as part → reason; empty when it is ready.
    """

    def __init__(
        self,
        settings: Settings,
        bus: Bus,
        commands: Commands,
        journal: Journal,
        speech_cache: SpeechCache,
        metrics: Metrics,
        readiness: Callable[[], Mapping[str, str]],
    ) -> None:
        self._settings = settings
        self._bus = bus
        self._commands = commands
        self._journal = journal
        self._speech_cache = speech_cache
        self._metrics = metrics
        self._readiness = readiness
        self._thread = LoopThread("mediad-control")
        self._is_running = False
        self._parts = AsyncExitStack()
        self._failures: dict[str, str] = {}
        self.metrics_address: tuple[str, int] | None = None
        """Of /metrics, when it has a port of its own."""

    async def start(self) -> tuple[str, int]:
        """Start the thread and everything in it; return the address of the HTTP port.

        Raises:
            ConfigError: If the database refuses us, or has other tables than this version's.
            OSError: If the HTTP port, or that of /metrics, cannot be bound.
        """
        self._thread.start()
        self._is_running = True
        return await self._thread.run(self._start())

    async def stop(self) -> None:
        """Let the last facts through, as far as that goes, and end the thread."""
        if self._is_running:
            self._is_running = False
            try:
                await self._thread.run(self._parts.aclose())
            finally:
                await self._thread.stop()

    async def _start(self) -> tuple[str, int]:
        # What is pushed is closed in the opposite order, also when a later part does not start.
        parts, settings, metrics = self._parts, self._settings, self._metrics
        self._cache = open_cache(settings.redis, settings.cache, metrics)
        parts.push_async_callback(self._cache.close)
        self._speech_cache.open(self._cache)
        parts.push_async_callback(self._speech_cache.close)
        self._database = Database(settings.database, metrics)
        parts.push_async_callback(self._database.close)
        reads = CachedReads(self._cache, self._database)
        sessions = Sessions(self._cache, self._bus, metrics)
        self._writer = Writer(
            self._journal, self._database, reads.invalidate, self._bus.announce, metrics
        )
        metrics_port = settings.http.metrics_port
        registry = metrics.registry if metrics_port is None else None
        app = make_app(registry, self._readiness, self._health)
        app.state.services = Services(
            settings=settings,
            bus=self._bus,
            commands=self._commands,
            metrics=metrics,
            database=self._database,
            cache=self._cache,
            reads=reads,
            sessions=sessions,
            readiness=self._readiness,
            health=self._health,
        )
        address = await self._listen(settings.http, app)
        if metrics_port is not None:
            own = {"host": settings.http.metrics_host, "port": metrics_port}
            self.metrics_address = await self._listen(
                settings.http.model_copy(update=own), make_metrics_app(metrics.registry)
            )
        await self._open_database()
        self._run("sessions", sessions.run())
        parts.push_async_callback(sessions.drain, _DRAIN_S)
        self._run("database", self._watch_database())
        self._run("clock", self._measure_lag())
        webhooks = Deliverer(settings.webhooks, self._database, self._bus, metrics)
        self._run("webhooks", webhooks.run())
        parts.push_async_callback(webhooks.drain, _WEBHOOKS_S)
        self._run("writer", self._writer.run())
        parts.push_async_callback(self._drain_writer)
        return address

    async def _listen(self, settings: Http, app: FastAPI) -> tuple[str, int]:
        server = HttpServer(settings, app, self._metrics)
        self._parts.push_async_callback(server.stop)
        return await server.start()

    async def _drain_writer(self) -> None:
        if self._writer.problem is None:  # else it would take as long as the database is away
            await self._writer.drain(_DRAIN_S)

    async def _open_database(self) -> None:
        try:
            await self._database.open()
            if self._settings.database.url is None:
                await self._make_first_key()
        except DatabaseUnavailable as exc:
            # Calls do not need it, and what happens on them is safe in the journal.
            logger.warning("the database does not answer: %s; facts wait in the journal", exc)

    async def _make_first_key(self) -> None:
        directory = self._settings.database.state_directory
        try:
            await make_first_key(self._database, directory)
        except OSError as exc:
            logger.warning("no first access key: %s; see `mediad keys`", exc)

    async def _watch_database(self) -> None:
        """Know whether it answers, also while nothing happens."""
        while True:
            await asyncio.sleep(_CHECK_S)
            await self._database.check()

    async def _measure_lag(self) -> None:
        while True:
            due = time.monotonic() + _TICK_S
            await asyncio.sleep(_TICK_S)
            self._metrics.control_lag.observe(max(0.0, time.monotonic() - due))

    def _run(self, part: str, work: Coroutine[Any, Any, None]) -> None:
        async def run() -> None:
            try:
                await work
            except Exception:  # a task's top; the others go on, and /healthz says so
                self._failures[part] = "stopped by an error of our own: see the log"
                logger.exception("the %s has stopped", part)

        task = asyncio.get_running_loop().create_task(run())

        async def stop() -> None:
            task.cancel()
            await asyncio.wait((task,))

        self._parts.push_async_callback(stop)

    def _health(self) -> dict[str, str]:
        problems = {
            "cache": self._cache.problem,
            "database": self._database.problem or self._writer.problem,
            "journal": self._journal.problem,
        }
        if self._writer.rejected:
            problems["rejected_facts"] = f"{self._writer.rejected}: see `mediad journal status`"
        # Some are told in the database's words, and who may not see a secret may ask for them.
        shown = {part: blot.blot(problem) for part, problem in problems.items() if problem}
        return shown | self._failures
