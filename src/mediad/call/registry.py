"""The calls that are live, their limit and their sum. Not what a call does (`session`)."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from uuid import UUID

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from mediad.ai.agent import Connector
from mediad.ai.connect import CallInfo
from mediad.bus.bus import Bus
from mediad.call.session import CallerConnection, Session
from mediad.call.ticker import Ticker
from mediad.config import Settings
from mediad.line import Counters, Line
from mediad.metrics import Metrics
from mediad.pump import Pump, open_pump

__all__ = ["COUNTER_HELP", "ConnectorFactory", "Registry"]

logger = logging.getLogger(__name__)

ConnectorFactory = Callable[[CallInfo, Callable[[str], None]], Connector]
"""Makes a call's way to its agent; the callable hears of new tokens for agents that dial in."""

COUNTER_HELP = {
    "caller_messages": "Audio messages from callers",
    "caller_bytes": "Audio bytes from callers",
    "agent_frames_sent": "Audio frames made for agents",
    "agent_fill_frames": "Frames of silence for agents while a caller's audio had stopped",
    "agent_frames": "Audio frames taken for playout",
    "agent_bytes": "PCM bytes taken for playout",
    "bad_frames": "Agents' messages that could not be read or played",
    "played_frames": "20 ms with audio given to callers",
    "silent_frames": "20 ms of silence given to callers",
    "refused_bytes": "Agent audio that a full playout refused",
    "flushed_bytes": "Agent audio dropped by barge-in",
    "underruns": "Times a playout ran dry within an utterance",
    "underrun_frames": "20 ms of silence heard within utterances",
}


class Registry(Collector):
    """All live calls of the process, by their UUID."""

    def __init__(
        self,
        settings: Settings,
        bus: Bus,
        metrics: Metrics,
        ticker: Ticker,
        connector_factory: ConnectorFactory,
        prompt_frame: bytes,
    ) -> None:
        self._settings = settings
        self._bus = bus
        self._metrics = metrics
        self._ticker = ticker
        self._connector_factory = connector_factory
        self._prompt_frame = prompt_frame
        self._sessions: dict[UUID, Session] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_stopping = False
        self._pump: Pump | None = None
        # The counters of the calls that are over, and the calls that are not.
        self._books: tuple[Counters, tuple[Session, ...]] = (
            Counters(*([0] * len(Counters._fields))),
            (),
        )
        metrics.registry.register(self)

    def open(self) -> None:
        """Get ready for calls, on the running loop."""
        self._pump = open_pump()

    def reload(self, settings: Settings, prompt_frame: bytes) -> None:
        """Begin calls with other settings from now on."""
        self._settings, self._prompt_frame = settings, prompt_frame

    @property
    def live(self) -> int:
        """How many calls there are."""
        return len(self._sessions)

    def refusal(self) -> str | None:
        """Return why no call is taken now, as a counter's label; None when one is."""
        if self._is_stopping:
            return "stopping"
        if len(self._sessions) >= self._settings.audiosocket.max_calls:
            return "max_calls"
        return None

    def start(self, call_id: UUID, line: Line, caller: CallerConnection) -> Session | str:
        """Start a call; return it, or why it is refused."""
        refusal = "duplicate_uuid" if call_id in self._sessions else self.refusal()
        if refusal is not None:
            return refusal
        call = CallInfo(str(call_id))
        session = Session(
            call, line, caller, self._settings, self._bus, self._metrics, self._prompt_frame
        )
        session.open(self._connector_factory(call, session.facts.agent_awaited), self._pump)
        self._sessions[call_id] = session
        self._book()
        self._ticker.add(session.path or session)
        task = asyncio.get_running_loop().create_task(self._run(call_id, session))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return session

    async def _run(self, call_id: UUID, session: Session) -> None:
        try:
            await session.run()
        except Exception:  # a task's top: one call's failure is its own
            logger.exception("call %s failed", call_id)
        finally:
            self._ticker.remove(session.path or session)
            del self._sessions[call_id]
            self._book(session.line.counters())
        await session.goodbye()

    def _book(self, ended: Counters | None = None) -> None:
        # In one assignment: a scrape reads it from another thread, and counts no call twice.
        past = self._books[0]
        if ended is not None:
            past = Counters(*(a + b for a, b in zip(past, ended, strict=True)))
        self._books = past, tuple(self._sessions.values())

    async def drain(self, timeout_s: float) -> None:
        """Take no more calls, and let those that live go on for so long."""
        self._is_stopping = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)

    async def stop(self, timeout_s: float) -> None:
        """Hang up all calls and wait for their ends."""
        self._is_stopping = True
        for session in list(self._sessions.values()):
            session.hang_up("system", "normal_unspecified")
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=timeout_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        if self._pump is not None:
            self._pump.close()
            self._pump = None

    def collect(self) -> Iterable[Metric]:
        """Return the lines' counters, live and past, for Prometheus."""
        past, live = self._books
        yield GaugeMetricFamily("mediad_calls", "Live calls", value=len(live))
        lines = [session.line.counters() for session in live]
        for index, name in enumerate(Counters._fields):
            total = past[index] + sum(line[index] for line in lines)
            yield CounterMetricFamily(f"mediad_{name}", COUNTER_HELP[name], value=total)
