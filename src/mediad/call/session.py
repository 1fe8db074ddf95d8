"""One live call: it joins connection, line and agent, and tells the bus what happens.

    started     by the call's UUID, its time zero
    talking     the agent's link runs; audio flows both ways
    draining    the agent has finished, or cannot be had: what is queued is heard out
    over        0x00 was sent at a tick, or the caller is gone; one `call_hungup`

Nothing here waits on the way of a frame. Every 0x00 leaves at a tick, so the frame before it has
had its 20 ms.
"""

import asyncio
import logging
import time
from functools import lru_cache
from typing import NamedTuple, Protocol

from mediad import blot
from mediad.ai.agent import AgentLink, Connector
from mediad.ai.connect import CallInfo
from mediad.bus.bus import Bus
from mediad.bus.commands import Ended, LiveCall, Who
from mediad.call.facts import Facts
from mediad.call.pipeline import Pipeline
from mediad.call.shared import Shared
from mediad.config import Settings
from mediad.errors import AgentUnavailable, CommandRefused
from mediad.line import AGENT_RATE_HZ, CallerItem, Line
from mediad.media import tone
from mediad.media.playout import Drained, PlayoutEvent, Started
from mediad.metrics import Metrics
from mediad.pump import Path, Pump
from mediad.wire import frames, rtvi
from mediad.wire.audiosocket import CallUuid, Digit, HangUp, PeerError, Violation
from mediad.wire.frames import AudioFrame, BadFrame, Interruption, Json, Transcription

__all__ = ["CallerConnection", "Session"]

logger = logging.getLogger(__name__)

_REFILL_TONE_MS = 100
_WAITING_TONE = frames.encode_audio(tone.waiting_tone(), tone.RATE_HZ)


class CallerConnection(Protocol):
    """The AudioSocket of a call, as the session needs it."""

    def write(self, message: bytes) -> None: ...
    def hang_up(self) -> None:
        """Send 0x00 and close, so that the dialplan goes on."""
        ...

    def abort(self) -> None: ...


class _End(NamedTuple):
    by: str  # caller, agent or system
    cause: str  # in the words of Q.850


class Session:
    """A call from its UUID to its end. `open` it, then `run` it in a task; the connection and the
    ticker call the rest.
    """

    def __init__(
        self,
        call: CallInfo,
        line: Line,
        caller: CallerConnection,
        settings: Settings,
        bus: Bus,
        metrics: Metrics,
        prompt_frame: bytes,
    ) -> None:
        self.call = call
        self.line = line
        self._caller = caller
        self._settings = settings
        self._metrics = metrics
        self._prompt_frame = prompt_frame  # what the caller hears when no agent can be had
        self.facts = Facts(bus, call)
        self._link: AgentLink | Pipeline | None = None
        self._pipeline: Pipeline | None = None  # the same, if it is one
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.path: Path | None = None  # what moves the frames, where there is a pump
        self._end: _End | None = None
        self._is_hanging_up = False  # 0x00 goes out with the next tick
        self._drained: asyncio.Future[None] | None = None
        self._is_waiting = False  # the agent was lost; the caller gets the waiting tone
        self._is_tone_queued = False  # and some of it is in the playout
        self._has_spoken = False  # the agent
        self._caller_stopped_at: float | None = None
        self._speaking: dict[Who, None] = {}
        self._muted: frozenset[Who] = frozenset()
        self.ended: Ended | None = None
        """How the call ended, once it has."""

    def open(
        self, way: Connector | Shared, pump: Pump | None, *, is_registered: bool = False
    ) -> None:
        """Tell of the call. What comes with its UUID in one read already belongs to it.

        Args:
            way: To its agent, or to the services of its pipeline.
            pump: What may move the frames to and from an agent.
            is_registered: Whether it was told of before.
        """
        if isinstance(way, Shared):
            self._pipeline = Pipeline(way, self.call, self.line, self.facts, self._settings, self)
            self._link = self._pipeline
        else:
            self.path = path = Path(pump, self.line, self) if pump is not None else None
            self._link = AgentLink(way, self.call, self, self._settings.ai, self._metrics, path)
        self._metrics.calls_started.inc()
        logger.info("call %s: started", self.call.call_id)
        if is_registered:
            self.facts.arrived()
        else:
            self.facts.created()
        if not isinstance(way, Shared) and way.token is not None:
            self.facts.agent_awaited(way.token)

    # The call's task

    async def run(self) -> None:
        """Live the call to its end."""
        assert self._link is not None
        try:
            async with asyncio.TaskGroup() as group:
                agent = group.create_task(self._follow_agent(self._link))
                await self._wait_until_over()
                agent.cancel()
        finally:
            self._close()

    async def goodbye(self) -> None:
        """Wait for the agent's answer to the end of the call."""
        # The link knows the session: a cycle would keep the call, and its queued audio, until the
        # garbage collector comes, which is seldom.
        link, self._link, self._pipeline = self._link, None, None
        try:
            if link is not None:
                await link.closed()
        finally:
            if self.path is not None:
                self.path.close()
                self.path = None

    async def _wait_until_over(self) -> None:
        limit_s, cause = self._settings.audiosocket.max_call_s, "recovery_on_timer_expiry"
        if self.call.max_s is not None and self.call.max_s < limit_s:
            limit_s, cause = self.call.max_s, "normal_unspecified"  # an agent's is nothing unusual
        try:
            async with asyncio.timeout(limit_s):
                await asyncio.shield(self._over)
        except TimeoutError:
            self.hang_up("system", cause)
            await self._over

    async def _follow_agent(self, link: AgentLink | Pipeline) -> None:
        end = _End("agent", "normal_clearing")
        try:
            code = await link.run()
            if code not in (1000, 1001):
                end = _End("agent", "interworking")
        except AgentUnavailable as exc:
            logger.warning("call %s: no agent: %s", self.call.call_id, exc)
            end = _End("system", "destination_out_of_order")
            self._stop_waiting()
            self.line.receive_agent(self._prompt_frame, time.monotonic())
        if self.line.held_ms:
            self._drained = asyncio.get_running_loop().create_future()
            await self._drained
        self.hang_up(end.by, end.cause)

    def _close(self) -> None:
        end = self._end or _End("system", "temporary_failure")
        if not self._over.done():  # the task was cancelled, or failed
            self._over.set_result(None)
            self._caller.hang_up()
        if self._link is not None:
            self._link.close()
        self._metrics.calls_ended.labels(end.by, end.cause).inc()
        counters = self.line.counters()
        self.ended = self.facts.hung_up(end.by, end.cause, self._has_spoken, counters)
        logger.info(
            "call %s: ended by %s (%s) after %.1f s, %d underruns",
            self.call.call_id,
            end.by,
            end.cause,
            self.facts.age_s,
            counters.underruns,
        )

    # Commands

    def hang_up(self, by: str, cause: str) -> None:
        """End the call with 0x00 at the next tick; the first who says so is who ended it."""
        self._end = self._end or _End(by, cause)
        self._is_hanging_up = True
        self._ask_for_ticks()

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self._over.done()

    def look(self) -> LiveCall:
        """Tell how the call stands."""
        return LiveCall(
            state="ending" if self._is_hanging_up else "live",
            seconds=round(self.facts.age_s, 3),
            speaking=tuple(self._speaking),
            held_ms=self.line.held_ms,
            agent=self._link.state if self._link is not None else "none",
            muted=tuple(sorted(self._muted)),
            counters=self.line.counters()._asdict(),
        )

    def say(self, text: str) -> None:
        """Speak a text to the caller.

        Raises:
            CommandRefused: If the agent makes its own speech.
        """
        self._live_link().say(text)

    def play(self, frame: bytes, duration_ms: int) -> None:
        """Play an audio frame to the caller, after what is queued; in a pipeline as a turn of the
        agent's.

        Raises:
            CommandRefused: If the playout has no room for all of it.
        """
        if self._pipeline is not None and self._pipeline.state != "closed":
            self._pipeline.play(frame, duration_ms)
            return
        max_ms = self._settings.audiosocket.playout_max_s * 1000
        if self.line.held_ms + duration_ms > max_ms:
            raise CommandRefused("playout_full", "too much audio waits to be played already")
        self._caller_stopped_at = None  # this is no answer of the agent's
        self.line.receive_agent(frame, time.monotonic())

    def inject(self, text: str, run_immediately: bool) -> None:
        """Tell the agent a text as if the caller had written it.

        Raises:
            CommandRefused: If there is no agent any more.
        """
        self._live_link().inject(text, run_immediately)

    def mute(self, who: Who, muted: bool) -> None:
        """Replace somebody's audio by silence, or no longer. What the agent said and the caller
        has not heard is dropped.
        """
        self._muted = self._muted | {who} if muted else self._muted - {who}
        if self._link is not None:
            # Whoever is muted, the path must not move his frames past us; all others' it may.
            self._link.look_at_audio(sent="caller" in self._muted, played="agent" in self._muted)
        if who == "agent" and muted:
            self.line.flush()
            self._drain_no_more()

    def _live_link(self) -> AgentLink | Pipeline:
        if self._link is None or self._link.state == "closed":
            raise CommandRefused("no_agent", "the call has no agent any more")
        return self._link

    def fail(self) -> None:
        """End the call at once: its tick raised, so no tick can end it."""
        self._end = self._end or _End("system", "temporary_failure")
        self._caller.hang_up()
        self._finish()

    # From the caller's connection

    def receive(self, items: list[CallerItem]) -> None:
        """Take what the line made of the caller's bytes."""
        link = self._link
        for item in items:
            if type(item) is bytes:
                if link is not None:
                    link.send_audio(_silence_like(item) if "caller" in self._muted else item)
            elif isinstance(item, Digit):
                self._receive_digit(item.digit)
            elif not isinstance(item, CallUuid):
                self._receive_end(item)  # always the last item

    def _receive_digit(self, digit: str) -> None:
        self._metrics.dtmf.inc()
        self.facts.publish("dtmf_received", {"digit": digit})
        if self._link is not None:
            self._link.send_digit(digit)

    def _receive_end(self, item: object) -> None:
        if isinstance(item, HangUp):
            self.caller_gone("normal_clearing")
        elif isinstance(item, PeerError):
            self.caller_gone("protocol_error")
        elif isinstance(item, Violation):
            logger.warning("call %s: closing, no AudioSocket: %s", self.call.call_id, item.detail)
            self._metrics.connections_closed.labels(item.reason).inc()
            self._end = self._end or _End("system", "protocol_error")
            self._finish()
        self._caller.abort()

    def caller_gone(self, cause: str) -> None:
        """The connection is closed: the call is over."""
        self._end = self._end or _End("caller", cause)
        self._finish()

    def _finish(self) -> None:
        if not self._over.done():
            self._over.set_result(None)
        self._ask_for_ticks()

    # From the ticker, or from the path on its behalf

    def tick(self, now: float) -> None:
        """Give the caller the 20 ms that are due."""
        if self._over.done():
            return
        if self._is_hanging_up:
            self._caller.hang_up()
            self._finish()
            return
        if self._is_waiting and self.line.held_ms < _REFILL_TONE_MS:
            self._is_tone_queued = True
            self.line.receive_agent(_WAITING_TONE, now)
        to_caller, to_agent, events = self.line.tick(now)
        self._caller.write(to_caller)
        if to_agent is not None and self._link is not None:
            self._link.send_audio(to_agent)
        if events:
            self.on_playout(events, now)
        if self._pipeline is not None:
            self._pipeline.tick(now)

    def _ask_for_ticks(self) -> None:
        """Let the path do the ticks of a call on which nothing is out of the ordinary."""
        if self.path is not None:
            self.path.asks_call = self._is_waiting or self._is_hanging_up or self._over.done()

    def on_playout(self, events: list[PlayoutEvent], now: float) -> None:
        """Hear what a tick has begun or finished to play."""
        for event in events:
            if isinstance(event, Drained):
                self._drain_no_more()
            elif isinstance(event, Started) and self._caller_stopped_at is not None:
                self._metrics.response_time.observe(now - self._caller_stopped_at)
                self._caller_stopped_at = None

    def _drain_no_more(self) -> None:
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    # From the agent's link

    def on_agent_spoke(self) -> None:
        """The first of the agent's audio is there."""
        self._has_spoken = True
        self._metrics.first_audio_time.observe(self.facts.age_s)

    def on_agent_open(self, connect_s: float) -> None:
        """An agent is there."""
        self._stop_waiting()
        self.facts.publish("agent_connected", {"connect_s": round(connect_s, 4)})

    def on_agent_slow(self, started: bool) -> None:
        """Audio is withheld from an agent that does not keep up, or no longer."""
        self.facts.publish("agent_slow", {"started": started})
        if started:
            logger.warning("call %s: agent is slow, it gets no audio", self.call.call_id)

    def on_agent_lost(self, code: int) -> None:
        """The agent's connection broke; the link looks for another one."""
        self.facts.publish("agent_lost", {"code": code})
        logger.warning("call %s: agent lost (%d), reconnecting", self.call.call_id, code)
        self._is_waiting = True
        self._ask_for_ticks()
        self._caller_stopped_at = None  # the tone is no answer
        if not self.line.held_ms:
            self.line.flush()  # nor does it continue an utterance: no underrun

    def _stop_waiting(self) -> None:
        self._is_waiting = False
        self._ask_for_ticks()
        if self._is_tone_queued:  # else what is queued are the lost agent's words
            self._is_tone_queued = False
            self.line.flush()

    def on_agent_message(self, message: bytes) -> bool:
        """Take one message of the agent; audio goes straight to the line."""
        if self._over.done():
            return False
        now = time.monotonic()
        is_muted = "agent" in self._muted and isinstance(frames.decode(message), AudioFrame)
        frame = None if is_muted else self.line.receive_agent(message, now)
        if frame is None:
            if not self._has_spoken:
                self.on_agent_spoke()
            return True
        if isinstance(frame, Json):
            event = rtvi.parse(frame.data)
            if event is not None:
                self._take_rtvi(event, now)
        elif isinstance(frame, Interruption):
            self._interrupt()
        elif isinstance(frame, Transcription):
            self.facts.words("caller", frame.text, final=True)
        elif isinstance(frame, BadFrame):
            self._metrics.agent_bad_frames.labels(frame.reason).inc()
        return False

    def _interrupt(self) -> None:
        discarded_ms = self.line.flush()
        self._metrics.interruptions.inc()
        self.facts.publish("interrupted", {"reason": "barge_in", "discarded_ms": discarded_ms})

    def _take_rtvi(self, event: rtvi.Event, now: float) -> None:
        if isinstance(event, rtvi.Transcript):
            self.facts.words(event.who, event.text, event.final)
        elif isinstance(event, rtvi.Speaking):
            if event.who == "caller":
                self._caller_stopped_at = None if event.started else now
            self.on_speaking("caller" if event.who == "caller" else "agent", event.started)
        elif isinstance(event, rtvi.AgentError):
            self._metrics.agent_errors.inc()
            said = {"text": blot.words(event.text), "fatal": event.fatal}
            self.facts.publish("agent_error", said)
            logger.warning(
                "call %s: agent reports an error: %s", self.call.call_id, blot.quoted(event.text)
            )

    def on_speaking(self, who: Who, started: bool) -> None:
        """Somebody has begun to speak, or stopped."""
        if started:
            self._speaking[who] = None
        else:
            self._speaking.pop(who, None)
        self.facts.publish("speaking", {"who": who, "started": started})


def _silence_like(frame: bytes) -> bytes:
    """Return a frame of silence as long as a frame for the agent."""
    audio = frames.decode(frame)
    assert isinstance(audio, AudioFrame)
    return _silence(len(audio.audio))


@lru_cache(maxsize=8)
def _silence(size: int) -> bytes:
    return frames.encode_audio(bytes(size), AGENT_RATE_HZ)
