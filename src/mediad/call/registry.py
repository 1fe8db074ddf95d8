"""The calls that are live, and those that are expected, their limit and their sum. Not what a call
does (`session`).
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from uuid import UUID

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from mediad.ai.agent import Connector
from mediad.ai.connect import CallInfo
from mediad.bus.bus import Bus
from mediad.bus.commands import (
    Command,
    Done,
    Ended,
    Expect,
    HangUp,
    How,
    Inject,
    LiveCall,
    Look,
    Mute,
    Play,
    Reply,
    Say,
)
from mediad.call.expected import MARGIN, ExpectedCalls
from mediad.call.facts import tell_expected, tell_missing
from mediad.call.session import CallerConnection, Session
from mediad.call.shared import Shared
from mediad.call.ticker import Ticker
from mediad.config import Settings
from mediad.errors import CallLost, CommandRefused
from mediad.line import Counters, Line
from mediad.metrics import Metrics
from mediad.pump import Pump, open_pump

__all__ = ["COUNTER_HELP", "ConnectorFactory", "Registry"]

logger = logging.getLogger(__name__)

ConnectorFactory = Callable[[CallInfo, Callable[[str], None]], Connector | Shared]
"""Makes a call's way to its agent, or gives the services of its pipeline; the callable hears of new
tokens for agents that dial in."""

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
        self._expected = ExpectedCalls()
        self._expected_timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_stopping = False
        self._pump: Pump | None = None
        # The counters of the calls that are over, and the calls that are not.
        self._books: tuple[Counters, tuple[Session, ...]] = (
            Counters(*([0] * len(Counters._fields))),
            (),
        )
        metrics.registry.register(self)
        metrics.watch(
            "expected_calls", "Registered calls that are yet to come", lambda: len(self._expected)
        )

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
        refusal = self._refusal_of(call_id)
        if refusal is not None:
            return refusal
        expected = self._expected.take(call_id)
        call = CallInfo(str(call_id)) if expected is None else _info(call_id, expected)
        session = Session(
            call, line, caller, self._settings, self._bus, self._metrics, self._prompt_frame
        )
        session.open(
            self._connector_factory(call, session.facts.agent_awaited),
            self._pump,
            is_registered=expected is not None,
        )
        self._sessions[call_id] = session
        self._book()
        self._ticker.add(session.path or session)
        task = asyncio.get_running_loop().create_task(self._run(call_id, session))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return session

    def _refusal_of(self, call_id: UUID) -> str | None:
        if call_id in self._sessions:
            return "duplicate_uuid"
        if self._expected.is_used(call_id):
            return "used_uuid"
        is_expected = self._expected.get(call_id) is not None
        if not is_expected and self._settings.audiosocket.unknown_calls == "reject":
            return "unknown_uuid"
        refusal = self.refusal()
        if refusal is not None and is_expected:
            self._give_up(call_id, Ended("failed", "system", "switching_equipment_congestion"))
        return refusal

    async def _run(self, call_id: UUID, session: Session) -> None:
        try:
            await session.run()
        except Exception:  # a task's top: one call's failure is its own
            logger.exception("call %s failed", call_id)
        finally:
            self._ticker.remove(session.path or session)
            del self._sessions[call_id]
            if session.ended is not None:
                self._expected.end(call_id, session.ended)
            self._book(session.line.counters())
        await session.goodbye()

    def _book(self, ended: Counters | None = None) -> None:
        # In one assignment: a scrape reads it from another thread, and counts no call twice.
        past = self._books[0]
        if ended is not None:
            past = Counters(*(a + b for a, b in zip(past, ended, strict=True)))
        self._books = past, tuple(self._sessions.values())

    async def drain(self) -> None:
        """Take no more calls, and wait until those that live are over."""
        self._expect_no_more()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def stop(self, timeout_s: float) -> None:
        """Hang up all calls and wait for their ends."""
        self._expect_no_more()
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

    # Calls that are expected

    def _expect(self, call_id: UUID, call: Expect) -> None:
        if self._is_stopping:
            raise CommandRefused("stopping", "mediad is stopping and takes no calls")
        room = self._settings.audiosocket.max_calls + MARGIN
        if len(self._expected) + self.live >= room:
            raise CommandRefused("max_calls", "there are as many calls as there may be")
        if self._expected.count_of(call.customer_id) >= room // 2:  # the rest is for the others
            raise CommandRefused("max_calls", "you have as many calls to come as there may be")
        if call_id in self._sessions or self._expected.knows(call_id):
            raise CommandRefused("duplicate_uuid", f"there is a call {call_id} already")
        self._expected.add(call_id, call, time.monotonic())
        tell_expected(self._bus, str(call_id), call)
        self._arm()

    def _arm(self) -> None:
        due = self._expected.due
        if self._expected_timer is None and due is not None:
            delay_s = max(0.0, due - time.monotonic())
            loop = asyncio.get_running_loop()
            self._expected_timer = loop.call_later(delay_s, self._give_up_overdue)

    def _give_up_overdue(self) -> None:
        self._expected_timer = None
        for call_id in self._expected.overdue(time.monotonic()):
            self._give_up(call_id, Ended("failed", "system", "no_user_response"))
        self._arm()

    def _give_up(self, call_id: UUID, end: Ended) -> None:
        call = self._expected.take(call_id)
        assert call is not None
        self._expected.end(call_id, end)
        logger.info("call %s: never came (%s)", call_id, end.hangup_cause)
        self._metrics.calls_missing.labels(end.hangup_cause).inc()
        tell_missing(self._bus, str(call_id), call, end)

    def _expect_no_more(self) -> None:
        self._is_stopping = True
        if self._expected_timer is not None:
            self._expected_timer.cancel()
            self._expected_timer = None
        for call_id in self._expected.all():
            self._give_up(call_id, Ended("failed", "system", "normal_unspecified"))

    # Commands

    def carry_out(self, call_id: str, command: Command) -> Reply:
        """Do what the control plane asks for. Never waits.

        Raises:
            CallLost: If the customer has no such call that lives.
            CommandRefused: If the call cannot do that.
        """
        try:
            key = UUID(call_id)
        except ValueError as exc:
            raise CallLost(f"{call_id} is no call's id") from exc
        if isinstance(command, Expect):
            self._expect(key, command)
            return Done()
        if isinstance(command, How):
            end = self._expected.end_of(command.customer_id, key)
            if end is not None:
                return end
        expected = self._expected.get(key)
        if expected is not None and expected.customer_id == command.customer_id:
            return self._tell_expected_call(key, command)
        session = self._sessions.get(key)
        if session is None or session.call.customer_id != command.customer_id or session.is_over:
            raise CallLost(f"there is no live call {call_id}")
        return _tell(session, command)

    def _tell_expected_call(self, call_id: UUID, command: Command) -> Reply:
        if isinstance(command, Look):
            return LiveCall("expected")
        if isinstance(command, HangUp):
            self._give_up(call_id, Ended("canceled", "system", "normal_clearing"))
            return Done()
        raise CommandRefused("not_answered", f"call {call_id} has not come yet")

    def collect(self) -> Iterable[Metric]:
        """Return the lines' counters, live and past, for Prometheus."""
        past, live = self._books
        yield GaugeMetricFamily("mediad_calls", "Live calls", value=len(live))
        lines = [session.line.counters() for session in live]
        for index, name in enumerate(Counters._fields):
            total = past[index] + sum(line[index] for line in lines)
            yield CounterMetricFamily(f"mediad_{name}", COUNTER_HELP[name], value=total)


def _info(call_id: UUID, call: Expect) -> CallInfo:
    """Return what an agent is told of a registered call."""
    config = dict(call.agent_config or {})
    url, variables = config.pop("url", None), config.pop("variables", None)
    link = config.pop("link", None)
    return CallInfo(
        str(call_id),
        call.source,
        call.destination,
        variables or {},
        call.customer_id,
        tuple(url or ()),
        config or None,
        config.get("session_timeout_s"),
        link,
    )


def _tell(session: Session, command: Command) -> Reply:
    match command:
        case Look():
            return session.look()
        case How():
            raise CommandRefused("call_lives", "the call has not ended")
        case HangUp():
            session.hang_up("system", "normal_clearing")
        case Say():
            session.say(command.text)
        case Play():
            session.play(command.frame, command.duration_ms)
        case Inject():
            session.inject(command.text, command.run_immediately)
        case Mute():
            session.mute(command.who, command.muted)
    return Done()
