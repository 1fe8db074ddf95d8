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
from typing import Any, Literal, NamedTuple, Protocol, get_args

from mediad.ai.connect import CallInfo
from mediad.ai.services.events import Failed, Times
from mediad.ai.services.llm import LlmLink
from mediad.ai.services.stt import HELD_FRAMES, SttLink
from mediad.bus.commands import Who
from mediad.call.ears import Ears
from mediad.call.facts import Facts
from mediad.call.history import History
from mediad.call.mouth import Mouth
from mediad.call.pipeline_metrics import TurnWatch
from mediad.call.pipeline_options import agent_config, turn_options, voice_of
from mediad.call.pipeline_tools import HANG_UP, TOOLS, called
from mediad.call.shared import Shared
from mediad.call.ticker import TICK_S
from mediad.call.turn import actions as act
from mediad.call.turn.actions import Action, Ended, Speech
from mediad.call.turn.voice import VoiceStarted, VoiceStopped
from mediad.call.turn_loop import TurnLoop
from mediad.config import Settings
from mediad.errors import CommandRefused
from mediad.line import Line
from mediad.wire import frames
from mediad.wire.frames import AudioFrame
from mediad.wire.service import Done, Role

__all__ = ["MAX_TEXTS", "Pipeline", "PipelineEvents"]

logger = logging.getLogger(__name__)

MAX_TEXTS = 16
"""Texts and files that may wait to be heard on somebody's command."""

_FIRST_FRAME_S = 0.1  # after the call's UUID; some send nothing until they hear something

_GIVE_UPS = {
    "hang_up": ("agent", "normal_clearing"),
    "no_input": ("system", "no_user_response"),
    "session_timeout": ("system", "normal_unspecified"),
    "failures": ("system", "destination_out_of_order"),
}
"""Who ends the call then, and why."""


class PipelineEvents(Protocol):
    """Who hears of it; the call's session."""

    def on_agent_spoke(self) -> None:
        """The first of the agent's audio in this call is there."""
        ...

    def on_speaking(self, who: Who, started: bool) -> None:
        """Somebody has begun to speak, or stopped."""
        ...

    def hang_up(self, by: str, cause: str) -> None: ...


class _File(NamedTuple):
    frame: bytes
    duration_ms: int


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
        config = agent_config(call.agent, ours)
        self._call = call
        self._line = line
        self._facts = facts
        facts.language = config["language"]
        self._events: PipelineEvents | None = events
        self._metrics = shared.metrics
        self._no_input_prompt = ours.no_input_prompt
        self._fallback_text = shared.fallback_text
        self._first_message = config["first_message"] or ""
        self._history = History(config["prompt"])
        self._turn_loop = TurnLoop(turn_options(config, settings), self._do_one)
        self._turns = self._turn_loop.turns
        self._ears = Ears(shared.model, self._on_voice)
        self._stt = SttLink(shared.services.stt, call, config["language"], self)
        self._llm = LlmLink(shared.services.llm, call, config["language"], self)
        voice, held_s = voice_of(config, settings.tts), settings.audiosocket.playout_max_s
        self._mouth = Mouth(shared, call, voice, line, held_s, self)
        self._watch = TurnWatch(shared.metrics)
        self._is_agent_heard = False
        self._to_say: deque[str | _File] = deque()
        self._files_max_ms = held_s * 1000
        self._open: set[Role] = set()
        self._has_begun = False
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
            self._stop()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def close(self) -> None:
        """The call is over: tell what was heard of what was being said, and end all."""
        self._stop()
        self._turn_loop.do(self._turns.on_hung_up(), time.monotonic())
        heard = self._mouth.take_heard()
        if heard is not None:
            self._has_said(heard.text)

    def _stop(self) -> None:
        """End all connections, and look for no others."""
        self._is_closed = True
        self._turn_loop.close()
        self._line.resume(repeat=False)  # nobody else would: what is queued is heard out
        self._ears.close()
        self._stt.close()
        self._llm.close()
        self._mouth.close()
        if not self._over.done():
            self._over.set_result(None)

    async def closed(self) -> None:
        """Wait, not for long, until the services have answered `close`."""
        await asyncio.gather(self._stt.closed(), self._llm.closed(), self._mouth.closed())
        # They know us: cycles that only the garbage collector would find.
        del self._ears, self._stt, self._llm, self._mouth, self._turn_loop
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
        if not self._has_begun:
            self._begin(now)
        self._mouth.tick(now)
        self._turn_loop.tick(now)

    def send_digit(self, digit: str) -> None:
        """Take a key that the caller has pressed for a word: it ends the agent's turn as one does,
        and is answered.
        """
        self._take_typed(digit)

    def say(self, text: str) -> None:
        """Speak a text to the caller, after what is being said.

        Raises:
            CommandRefused: If too many wait.
        """
        self._say_later(text)

    def play(self, frame: bytes, duration_ms: int) -> None:
        """Play an audio frame to the caller, as `say` does a text.

        Raises:
            CommandRefused: If too many wait, or more than the playout holds.
        """
        waits_ms = sum(one.duration_ms for one in self._to_say if isinstance(one, _File))
        if waits_ms + duration_ms > self._files_max_ms:
            raise CommandRefused("playout_full", "too much audio waits to be played already")
        self._say_later(_File(frame, duration_ms))

    def _say_later(self, what: str | _File) -> None:
        if len(self._to_say) >= MAX_TEXTS:
            raise CommandRefused("too_many_texts", f"{MAX_TEXTS} texts wait to be spoken already")
        self._to_say.append(what)
        if self._has_begun:
            now = time.monotonic()
            self._turn_loop.do(self._turns.on_text_to_say(now), now)

    def inject(self, text: str, run_immediately: bool) -> None:
        """Take a text as if the caller had said it, or for the next turn only."""
        if run_immediately:
            self._facts.words("caller", text, final=True)
            self._take_typed(text)
        else:
            self._history.add_caller(text)

    def _take_typed(self, text: str) -> None:
        if self._has_begun:
            now = time.monotonic()
            self._turn_loop.do(self._turns.on_typed(text, now), now)

    def look_at_audio(self, sent: bool, played: bool) -> None:
        """Play silence for what the services say while ``played`` is to be looked at."""
        self._mouth.is_muted = played

    # What the turns ask for

    def _do_one(self, action: Action, now: float) -> None:
        match action:
            case act.CallerStarted():
                self._tell_speaking("caller", True)
            case act.CallerStopped():
                self._tell_speaking("caller", False)
            case act.AskWords(n):
                self._stt.stopped_speaking(n)
            case act.EndOfTurn(n):
                self._watch.turn_ended(n, now)
                self._stt.stopped_speaking(n)
            case act.AddWords(text, instead_of):
                self._history.add_caller(text, instead_of)
            case act.WordsStand(text):
                self._facts.words("caller", text, final=True)
            case act.Generate(n, why, text):
                if text:
                    self._history.add_caller(text)
                self._mouth.begin(n)
                self._llm.generate(n, self._history.messages(why), TOOLS)
            case act.Say(n, speech):
                self._say(n, speech)
            case act.PausePlayout():
                self._line.hold()
            case act.ResumePlayout(repeat):
                self._line.resume(repeat)
            case act.WasNoise():
                self._metrics.false_barge_ins.inc()
            case act.Overdue(n, awaits_words):
                self._blame_for_silence(n, awaits_words)
            case act.WordsLost(n):
                self._blame(Failed("stt", n, "lost", "it was lost, and words with it", False))
            case act.CancelTurn(n, how):
                self._cancel(n, how)
            case act.TurnEnded(n, how):
                self._watch.answer_ended()
                self._metrics.turns.labels(how).inc()
                self._facts.publish("turn_ended", {"n": n, "how": how})
            case act.GiveUp(reason):
                logger.info("call %s: ended: %s", self._call.call_id, reason)
                if self._events is not None:
                    self._events.hang_up(*_GIVE_UPS[reason])
                if not self._over.done():
                    self._over.set_result(None)

    def _say(self, n: int, speech: Speech) -> None:
        match speech:
            case Speech.FIRST_MESSAGE:
                self._mouth.say(n, self._first_message)
            case Speech.NO_INPUT:
                self._mouth.say(n, self._no_input_prompt)
            case Speech.FALLBACK:
                self._mouth.say_fallback(n, self._fallback_text)
            case Speech.TEXT:
                what = self._to_say.popleft()
                if isinstance(what, _File):
                    self._mouth.play(n, what.frame)
                else:
                    self._mouth.say(n, what)

    def _cancel(self, n: int, how: Ended) -> None:
        self._llm.cancel(n)
        heard = self._mouth.cancel()
        self._tell_speaking("agent", False)
        reason = "failed" if how is Ended.FAILED else "barge_in"
        data: dict[str, Any] = {"n": n, "reason": reason, "discarded_ms": self._line.flush()}
        if heard is not None:
            data |= {"heard": heard.text, "estimated": heard.estimated}
            self._has_said(heard.text)
        self._facts.publish("interrupted", data)

    def _tell_speaking(self, who: Who, started: bool) -> None:
        if who == "agent":
            if started == self._is_agent_heard:  # an answer without a sound
                return
            self._is_agent_heard = started
        if self._events is not None:
            self._events.on_speaking(who, started)

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
        self._watch.answer_started(now)
        self._tell_speaking("agent", True)
        self._turn_loop.do(self._turns.on_agent_started(n, now), now)

    def on_reply_finished(self, n: int, text: str) -> None:
        """The caller has heard it."""
        now = time.monotonic()
        self._tell_speaking("agent", False)
        self._has_said(text)
        actions = self._turns.on_agent_finished(n, now)
        if act.TurnEnded(n, Ended.FAILED) in actions:  # there was nothing to be heard
            self._blame(Failed("llm", n, "error", "it has written nothing", False))
        self._turn_loop.do(actions, now)

    def on_reply_failed(self, n: int, failed: Failed) -> None:
        """The caller will not hear it, or no more of it."""
        now = time.monotonic()
        self._let_hear(failed, self._turns.on_failed(n, now), now)

    def on_fallback_failed(self, failed: Failed) -> None:
        """The caller hears a sound in its place: the turn goes on."""
        self._blame(failed)

    # From the ears

    def _on_voice(self, event: VoiceStarted | VoiceStopped) -> None:
        if not self._has_begun:
            return
        now = time.monotonic()
        if isinstance(event, VoiceStarted):
            if not event.confirmed:
                self._metrics.gate_alone.inc()
            self._turn_loop.do(self._turns.on_voice_started(now), now)
        else:
            self._turn_loop.do(self._turns.on_voice_stopped(now, event.quiet_s), now)

    # From the services

    def on_service_open(self, role: Role, connect_s: float) -> None:
        """A service is there; with the last of them the conversation may begin."""
        self._open.add(role)
        self._facts.publish("service_connected", {"role": role, "connect_s": round(connect_s, 4)})
        if not self._has_begun:
            self._begin(time.monotonic())

    def _begin(self, now: float) -> None:
        """Begin the conversation when all services are there, and the caller's first frame, which
        tells the rate that the line plays.
        """
        has_rate = self._line.counters().caller_messages or self._facts.age_s >= _FIRST_FRAME_S
        if len(self._open) < len(get_args(Role)) or not has_rate:
            return
        self._has_begun = True
        self._turn_loop.do(self._turns.start(now), now)
        for _ in range(len(self._to_say)):
            self._turn_loop.do(self._turns.on_text_to_say(now), now)

    def on_service_lost(self, role: Role, why: str) -> None:
        """Another one is looked for."""
        self._open.discard(role)
        if role == "stt":
            self._turns.on_audio_lost(time.monotonic())
        self._facts.publish("service_lost", {"role": role, "why": why})

    def on_failed(self, failed: Failed) -> None:
        """The STT or the LLM service has failed a turn."""
        now = time.monotonic()
        is_stt = failed.role == "stt"
        fail = self._turns.on_stt_failed if is_stt else self._turns.on_failed
        self._let_hear(failed, fail(failed.n, now), now)

    def _let_hear(self, failed: Failed, actions: list[Action], now: float) -> None:
        """Do what the turns make of a failure, which may be nothing: its turn is over."""
        if actions:
            self._blame(failed)
        self._turn_loop.do(actions, now)

    def _blame(self, failed: Failed) -> None:
        self._metrics.fallbacks.labels(failed.role).inc()
        logger.warning(
            "call %s: %s: %s %s", self._call.call_id, failed.role, failed.why, failed.message
        )

    def _blame_for_silence(self, n: int, awaits_words: bool) -> None:
        role: Role = "stt" if awaits_words else "tts" if self._mouth.is_owed else "llm"
        if role == "tts":
            self._mouth.distrust()
        self._blame(Failed(role, n, "timeout", "not even its failure was told", False))

    def on_audio_dropped(self) -> None:
        """The STT service is away for too long."""
        self._turns.on_audio_lost(time.monotonic() - HELD_FRAMES * TICK_S)

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
            self._turn_loop.do(self._turns.on_words(text, final, now), now)

    def on_end_of_turn(self) -> None:
        """The STT service says that the caller has finished."""
        now = time.monotonic()
        self._turn_loop.do(self._turns.on_stt_end_of_turn(now), now)

    def on_stt_done(self, n: int, times: Times) -> None:
        """All words of a turn are there."""
        now = time.monotonic()
        self._watch.transcript_ended(n, times.done_at - times.asked_at)
        self._turn_loop.do(self._turns.on_stt_done(n, now), now)

    def on_text(self, n: int, delta: str) -> None:
        """The language model writes."""
        self._mouth.write(n, delta)

    def on_llm_done(self, done: Done, times: Times) -> None:
        """The language model has written everything."""
        if times.first_at is not None:
            self._metrics.token_time.observe(times.first_at - times.asked_at)
        for tool in called(done.tool_calls):
            self._metrics.tool_calls.labels(tool).inc()
            if tool == HANG_UP:
                self._turns.on_last_answer(done.n)
        self._mouth.end(done.n)
