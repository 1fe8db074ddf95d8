"""A call on which mediad itself takes the turns, between three services: hears, thinks, speaks.

    caller's audio → ears (voice) ──┐
                   → STT (words) ───┴→ turns → LLM → sentences → TTS → playout → caller

`Turns` decides; this does what it asks for, and tells it what happens. Everything is called on the
media loop and nothing waits.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Mapping
from math import inf
from typing import Any, Literal, Protocol, get_args

from mediad.ai.connect import CallInfo
from mediad.ai.services.events import Failed, Times
from mediad.ai.services.llm import LlmLink
from mediad.ai.services.stt import SttLink
from mediad.call.ears import Ears
from mediad.call.facts import Facts
from mediad.call.history import History
from mediad.call.mouth import Mouth
from mediad.call.shared import Shared
from mediad.call.turn import actions as act
from mediad.call.turn.actions import Action, Speech
from mediad.call.turn.machine import Turns
from mediad.call.turn.options import EndBy, TurnOptions
from mediad.call.turn.voice import VoiceStarted, VoiceStopped
from mediad.config import Pipeline as PipelineSettings
from mediad.config import Settings
from mediad.errors import CommandRefused
from mediad.line import Line
from mediad.wire import frames
from mediad.wire.frames import AudioFrame
from mediad.wire.service import Done, Role, Voice

__all__ = ["MAX_TEXTS", "Pipeline", "PipelineEvents"]

logger = logging.getLogger(__name__)

MAX_TEXTS = 16
"""Texts that may wait to be spoken on somebody's command."""

_GIVE_UPS = {
    "no_input": "no_user_response",
    "session_timeout": "normal_unspecified",
    "failures": "destination_out_of_order",
}


class PipelineEvents(Protocol):
    """Who hears of it; the call's session."""

    def on_agent_spoke(self) -> None:
        """The first of the agent's audio in this call is there."""
        ...

    def hang_up(self, by: str, cause: str) -> None: ...


class Pipeline:
    """The services of one call and its turns. `run` it in the call's task."""

    def __init__(
        self,
        shared: Shared,
        call: CallInfo,
        line: Line,
        facts: Facts,
        settings: Settings,
        events: PipelineEvents,
    ) -> None:
        ours = settings.pipeline
        config: dict[str, Any] = {"prompt": ours.prompt, "first_message": ours.first_message}
        config |= {"language": ours.language, **(call.agent or {})}
        self._call = call
        self._line = line
        self._facts = facts
        self._events: PipelineEvents | None = events
        self._metrics = shared.metrics
        self._no_input_prompt = ours.no_input_prompt
        self._fallback_text = shared.fallback_text
        self._first_message = config["first_message"] or ""
        self._history = History(config["prompt"])
        options = _options(config, ours)
        self._turns = Turns(options, time.monotonic())
        self._ears = Ears(shared.model, self._on_voice)
        self._stt = SttLink(shared.services.stt, call, config["language"], self)
        self._llm = LlmLink(shared.services.llm, call, config["language"], self)
        voice = _voice(config, settings)
        self._mouth = Mouth(shared, call, voice, line, self)
        self._turn_ended_at = 0.0  # when the caller's turn did
        self._texts_to_say: deque[str] = deque()
        self._to_do: deque[Action] = deque()
        self._is_doing = False
        self._open: set[Role] = set()
        self._has_begun = False
        self._failed_role: Role | None = None  # the last one that did
        self._over = asyncio.get_running_loop().create_future()
        self._is_closed = False

    @property
    def state(self) -> Literal["connecting", "open", "slow", "reconnecting", "closed"]:
        """How the connections stand."""
        if self._is_closed:
            return "closed"
        if len(self._open) == 3:
            return "open"
        return "reconnecting" if self._has_begun else "connecting"

    # The call's task

    async def run(self) -> int:
        """Keep the call linked to its services until the turns end it; return 1000.

        Raises:
            AgentUnavailable: When one of them cannot be had, at the start or after it was lost.
        """
        works = (self._stt.run(), self._llm.run(), self._mouth.run())
        tasks = [asyncio.ensure_future(work) for work in works]
        try:
            await asyncio.wait((*tasks, self._over), return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
            return 1000
        finally:
            self.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def close(self) -> None:
        """End all connections, and look for no others."""
        self._is_closed = True
        self._ears.close()
        self._stt.close()
        self._llm.close()
        self._mouth.close()
        if not self._over.done():
            self._over.set_result(None)

    async def closed(self) -> None:
        """Wait, not for long, until the services have answered `close`."""
        await asyncio.gather(self._stt.closed(), self._llm.closed(), self._mouth.closed())
        # The links and the ears know us: cycles that only the garbage collector would find.
        del self._ears, self._stt, self._llm, self._mouth
        self._events = None

    # From the session

    def send_audio(self, frame: bytes) -> None:
        """Take the caller's audio, 16 kHz in an encoded frame."""
        if self._is_closed:
            return
        self._stt.send_audio(frame)
        audio = frames.decode(frame)
        if isinstance(audio, AudioFrame):
            self._ears.process(audio.audio, time.monotonic())

    def tick(self, now: float) -> None:
        """Look what was played in this 20 ms, and what is due."""
        if self._is_closed:
            return
        self._mouth.tick()
        if now >= self._turns.due:
            self._do(self._turns.tick(now), now)

    def send_digit(self, digit: str) -> None:
        """Take a key that the caller has pressed for a word: it ends the agent's turn as one does,
        and is answered.
        """
        self._take_words(digit, final=True)

    def say(self, text: str) -> None:
        """Speak a text to the caller, after what is being said.

        Raises:
            CommandRefused: If too many wait.
        """
        if len(self._texts_to_say) >= MAX_TEXTS:
            raise CommandRefused("too_many_texts", f"{MAX_TEXTS} texts wait to be spoken already")
        self._texts_to_say.append(text)
        if self._has_begun:
            now = time.monotonic()
            self._do(self._turns.on_text_to_say(now), now)

    def inject(self, text: str, run_immediately: bool) -> None:
        """Take a text as if the caller had said it, or for the next turn only."""
        if run_immediately:
            self.on_final(text)
        else:
            self._history.add_caller(text)

    def look_at_audio(self, sent: bool, played: bool) -> None:
        """Play nothing of what the services say while ``played`` is to be looked at."""
        self._mouth.is_muted = played

    # What the turns ask for

    def _do(self, actions: list[Action], now: float) -> None:
        # What is done may make something happen at once: that comes after what is left to do.
        self._to_do.extend(actions)
        if self._is_doing:
            return
        self._is_doing = True
        try:
            while self._to_do:
                self._do_one(self._to_do.popleft(), now)
        finally:
            self._is_doing = False

    def _do_one(self, action: Action, now: float) -> None:
        match action:
            case act.CallerStarted():
                self._facts.publish("speaking", {"who": "caller", "started": True})
            case act.CallerStopped():
                self._facts.publish("speaking", {"who": "caller", "started": False})
            case act.AskWords(n):
                self._stt.stopped_speaking(n)
            case act.EndOfTurn(n):
                self._turn_ended_at = now
                self._stt.stopped_speaking(n)
            case act.AddWords(text):
                self._history.add_caller(text)
            case act.Generate(n, why, text):
                if text:
                    self._history.add_caller(text)
                self._mouth.begin(n)
                self._llm.generate(n, self._history.messages(why))
            case act.Say(n, speech):
                self._say(n, speech)
            case act.PausePlayout():
                self._line.hold()
            case act.ResumePlayout(repeat):
                self._line.resume(repeat)
                if repeat:
                    self._metrics.false_barge_ins.inc()
            case act.CancelTurn(n):
                self._cancel(n)
            case act.TurnEnded(n, how):
                self._metrics.turns.labels(how).inc()
                self._facts.publish("turn_ended", {"n": n, "how": how})
            case act.GiveUp(reason):
                logger.info("call %s: ended: %s", self._call.call_id, reason)
                if self._events is not None:
                    self._events.hang_up("system", _GIVE_UPS[reason])
                if not self._over.done():
                    self._over.set_result(None)

    def _say(self, n: int, speech: Speech) -> None:
        if speech is Speech.TEXT:
            self._mouth.say(n, self._texts_to_say.popleft())
            return
        texts = {
            Speech.FIRST_MESSAGE: self._first_message,
            Speech.NO_INPUT: self._no_input_prompt,
            # Should it be the TTS service that failed, what needs no service is heard.
            Speech.FALLBACK: "" if self._failed_role == "tts" else self._fallback_text,
        }
        if text := texts[speech]:
            self._mouth.say(n, text)
        else:
            self._mouth.play_fallback(n)

    def _cancel(self, n: int) -> None:
        self._llm.cancel(n)
        heard = self._mouth.cancel()
        data: dict[str, Any] = {"n": n, "discarded_ms": self._line.flush()}
        if heard is not None:
            data |= {"heard": heard.text, "estimated": heard.estimated}
            self._has_said(heard.text)
        self._facts.publish("interrupted", data)

    def _has_said(self, text: str) -> None:
        if text:
            self._history.add_agent(text)
            self._facts.words("agent", text, final=True)

    # From the mouth

    def on_agent_spoke(self) -> None:
        """The first audio of the call is there."""
        if self._events is not None:
            self._events.on_agent_spoke()

    def on_reply_started(self, n: int) -> None:
        """The caller hears it."""
        now = time.monotonic()
        if self._turn_ended_at:
            self._metrics.latency.observe(now - self._turn_ended_at)
            self._turn_ended_at = 0.0
        self._facts.publish("speaking", {"who": "agent", "started": True})
        self._do(self._turns.on_agent_started(n, now), now)

    def on_reply_finished(self, n: int, text: str) -> None:
        """The caller has heard it."""
        now = time.monotonic()
        self._facts.publish("speaking", {"who": "agent", "started": False})
        self._has_said(text)
        self._do(self._turns.on_agent_finished(n, now), now)

    def on_reply_failed(self, n: int, failed: Failed) -> None:
        """The caller will not hear it, or no more of it."""
        self._has_failed(n, failed)

    # From the ears

    def _on_voice(self, event: VoiceStarted | VoiceStopped) -> None:
        if not self._has_begun:
            return
        now = time.monotonic()
        if isinstance(event, VoiceStarted):
            if not event.confirmed:
                self._metrics.gate_alone.inc()
            self._do(self._turns.on_voice_started(now), now)
        else:
            self._do(self._turns.on_voice_stopped(now, event.quiet_s), now)

    # From the services

    def on_service_open(self, role: Role, connect_s: float) -> None:
        """A service is there; with the last of them the conversation begins."""
        self._open.add(role)
        self._facts.publish("service_connected", {"role": role, "connect_s": round(connect_s, 4)})
        if len(self._open) == len(get_args(Role)) and not self._has_begun:
            self._has_begun = True
            now = time.monotonic()
            self._do(self._turns.start(now), now)
            for _ in range(len(self._texts_to_say)):
                self._do(self._turns.on_text_to_say(now), now)

    def on_service_lost(self, role: Role, why: str) -> None:
        """Another one is looked for."""
        self._open.discard(role)
        self._facts.publish("service_lost", {"role": role, "why": why})

    def on_failed(self, failed: Failed) -> None:
        """The STT or the LLM service has failed a turn."""
        self._has_failed(failed.n, failed)

    def _has_failed(self, n: int, failed: Failed) -> None:
        """Let the turns decide what the caller hears."""
        self._metrics.fallbacks.labels(failed.role).inc()
        self._failed_role = failed.role
        logger.warning(
            "call %s: %s: %s %s", self._call.call_id, failed.role, failed.why, failed.message
        )
        now = time.monotonic()
        self._do(self._turns.on_failed(n, now), now)

    def on_interim(self, text: str) -> None:
        """Words that may change."""
        self._facts.words("caller", text, final=False)
        self._take_words(text, final=False)

    def on_final(self, text: str) -> None:
        """Words that are certain."""
        self._facts.words("caller", text, final=True)
        self._take_words(text, final=True)

    def _take_words(self, text: str, final: bool) -> None:
        if self._has_begun:
            now = time.monotonic()
            self._do(self._turns.on_words(text, final, now), now)

    def on_end_of_turn(self) -> None:
        """The STT service says that the caller has finished."""
        now = time.monotonic()
        self._do(self._turns.on_stt_end_of_turn(now), now)

    def on_stt_done(self, n: int, times: Times) -> None:
        """All words of a turn are there."""
        now = time.monotonic()
        self._metrics.transcript_time.observe(times.done_at - times.asked_at)
        self._do(self._turns.on_stt_done(n, now), now)

    def on_text(self, n: int, delta: str) -> None:
        """The language model writes."""
        self._mouth.write(n, delta)

    def on_llm_done(self, done: Done, times: Times) -> None:
        """The language model has written everything."""
        if times.first_at is not None:
            self._metrics.token_time.observe(times.first_at - times.asked_at)
        self._mouth.end(done.n)


def _options(config: Mapping[str, Any], ours: PipelineSettings) -> TurnOptions:
    flow = config.get("flow") or {}
    interruption = flow.get("interruption") or {}
    return TurnOptions(
        user_start_first=flow.get("user_start_first", False),
        has_first_message=bool(config["first_message"]),
        interruption_allowed=interruption.get("allowed", True),
        response_delay_s=flow.get("response_delay_ms", 0) / 1000,
        session_timeout_s=float(config.get("session_timeout_s", inf)),
        end_by=EndBy(ours.end_of_turn),
        end_silence_s=ours.end_silence_s,
        no_input_s=ours.no_input_s,
    )


def _voice(config: Mapping[str, Any], settings: Settings) -> Voice:
    chosen = config.get("voice") or {}
    name = str(chosen.get("voice_id") or settings.tts.voice)
    return Voice(name, config["language"], settings.tts.rate)
