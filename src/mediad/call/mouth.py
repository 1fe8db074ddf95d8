"""How a pipeline's agent speaks: text is cut into sentences, each is given to the TTS service at
once, and what is played of it is followed. Called on the media loop; nothing waits.
"""

import math
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

from mediad.ai.connect import CallInfo
from mediad.ai.services.events import Failed, Times
from mediad.ai.speaker import Speaker
from mediad.call.shared import Shared
from mediad.call.turn.answer import Answer
from mediad.call.turn.heard import Heard
from mediad.call.turn.sentences import Sentences
from mediad.line import Line
from mediad.media.playout import PREBUFFER_WAIT_S
from mediad.wire import frames
from mediad.wire.frames import AudioFrame, BadFrame
from mediad.wire.service import Role, Voice

__all__ = ["Mouth", "MouthEvents"]

_LINE_RATE_HZ = 8000
_PAUSE_S = 0.2  # a language model that writes nothing for so long may have ended a sentence

# A long answer is written far sooner than it is heard. What waits for its turn does so as text: the
# playout holds so much audio and no more, and most of it may be cut off by a barge-in.
_MAX_ASKED = 8  # sentences that the TTS service has not finished
_MAX_AHEAD_S = 20.0  # of audio that waits to be played


class MouthEvents(Protocol):
    """Who hears of it."""

    def on_service_open(self, role: Role, connect_s: float) -> None: ...
    def on_service_lost(self, role: Role, why: str) -> None: ...

    def on_agent_spoke(self) -> None:
        """The first audio of the call is there."""
        ...

    def on_reply_started(self, n: int) -> None:
        """The first of it was handed to the caller."""
        ...

    def on_reply_finished(self, n: int, text: str) -> None:
        """All of it was; or there was nothing to say, and the text is empty."""
        ...

    def on_reply_failed(self, n: int, failed: Failed) -> None:
        """A sentence of it cannot be spoken."""
        ...

    def on_fallback_failed(self, failed: Failed) -> None:
        """The service has failed a fallback's text, too; the caller hears a sound in its place."""
        ...


@dataclass(slots=True)
class _Reply:
    """What the agent says in one turn."""

    n: int
    cutter: Sentences
    answer: Answer = field(default_factory=Answer)
    sentences: list[str] = field(default_factory=list)
    """Those given to the TTS service."""
    waiting: deque[str] = field(default_factory=deque)
    """Those that are yet to be."""
    is_fallback: bool = False
    may_ask: bool = True
    """Whether the TTS service may be asked; else only what was spoken before is heard."""
    is_written: bool = False
    written_at: float = math.inf
    """When the newest of its text came; infinity once it was looked at for that."""
    first_at: float | None = None
    """When the first of its audio came."""
    is_started: bool = False


class Mouth:
    """One call's. `run` it in a task of the call, `tick` it every 20 ms."""

    def __init__(
        self,
        shared: Shared,
        call: CallInfo,
        voice: Voice,
        line: Line,
        events: MouthEvents,
    ) -> None:
        self._metrics = shared.metrics
        self._fallback_frame = shared.fallback_frame
        self._language = voice.language
        self._line = line
        self._events = events
        self._speaker = Speaker(
            shared.speech, shared.services.tts, call, voice, _LINE_RATE_HZ, self
        )
        self._reply: _Reply | None = None
        # What is being spoken, by the number it was asked with: each sentence has its own.
        self._speaking: dict[int, _Reply] = {}
        self._n = 0
        self._has_spoken = False
        self._is_there = False  # a TTS service
        self._is_trusted = True  # it has not just failed
        self.is_muted = False
        """Whether silence is played in the place of what comes."""
        line.keep_played()

    async def run(self) -> None:
        """Keep the call linked to a TTS service, until it is cancelled.

        Raises:
            AgentUnavailable: As `Speaker.run`.
        """
        await self._speaker.run()

    def close(self) -> None:
        """Speak no more."""
        self._speaker.close()
        self._reply = None
        self._speaking.clear()

    async def closed(self) -> None:
        """Wait, not for long, until the service has answered `close`."""
        await self._speaker.closed()

    # What is to be said

    def begin(self, n: int) -> None:
        """Begin the reply of a turn; it is yet to be written."""
        self._reply = _Reply(n, Sentences(self._language))

    def write(self, n: int, delta: str) -> None:
        """Take more of its text."""
        reply = self._reply
        if reply is not None and reply.n == n:
            reply.written_at = time.monotonic()
            for sentence in reply.cutter.add(delta):
                self._speak(reply, sentence)

    def end(self, n: int) -> None:
        """All of its text was written."""
        reply = self._reply
        if reply is not None and reply.n == n:
            reply.written_at = math.inf
            reply.is_written = True
            for sentence in reply.cutter.finish():
                self._speak(reply, sentence)
            self._feed(reply)

    def say(self, n: int, text: str) -> None:
        """Say a text as the reply of a turn; with one under way in it, after that."""
        reply = self._reply
        if reply is None or reply.n != n:
            reply = self._reply = _Reply(n, Sentences(self._language), is_written=True)
        self._speak(reply, text)

    def say_fallback(self, n: int, text: str) -> None:
        """Let the caller hear, as the reply of a turn, that something is wrong: this text, without
        the service if that has just failed. What cannot be spoken is replaced by a sound.
        """
        cutter = Sentences(self._language)
        may_ask = self._is_there and self._is_trusted
        self._reply = reply = _Reply(
            n, cutter, is_fallback=True, may_ask=may_ask, is_written=True
        )
        if text:
            self._speak(reply, text)
        else:
            self._play_fallback(reply)

    def _play_fallback(self, reply: _Reply) -> None:
        self._speaker.cancel(self._n)
        self._speaking.clear()
        reply.waiting.clear()
        reply.sentences.clear()
        reply.answer = Answer()
        self._n += 1
        start_s = self._line.queued_s
        self._line.receive_agent(self._heard(self._fallback_frame), time.monotonic())
        reply.answer.add(self._n, "")
        reply.answer.on_audio(self._n, start_s, self._line.queued_s)
        reply.answer.on_done(self._n)
        reply.answer.end()

    def distrust(self) -> None:
        """The service has failed: let fallbacks do without it until it has spoken again."""
        self._is_trusted = False

    @property
    def is_owed(self) -> bool:
        """Whether it is the service, and not the language model, for which the caller waits."""
        reply = self._reply
        return bool(self._speaking) or (reply is not None and reply.is_written)

    def cancel(self) -> Heard | None:
        """Say nothing more; return what was heard of the reply, if there is one. What is queued is
        yet to be flushed.
        """
        self._speaker.cancel(self._n)
        self._speaking.clear()
        reply, self._reply = self._reply, None
        return reply.answer.heard(self._line.played_s) if reply is not None else None

    def _speak(self, reply: _Reply, sentence: str) -> None:
        reply.waiting.append(sentence)
        self._feed(reply)

    def _feed(self, reply: _Reply) -> None:
        """Give the TTS service as much as it may have."""
        line = self._line
        while (
            reply.waiting
            and len(self._speaking) < _MAX_ASKED
            and line.queued_s - line.played_s < _MAX_AHEAD_S
        ):
            sentence = reply.waiting.popleft()
            self._n += 1
            self._speaking[self._n] = reply
            reply.answer.add(self._n, sentence)
            reply.sentences.append(sentence)
            self._speaker.speak(self._n, sentence, may_ask=reply.may_ask)
        if reply.is_written and not reply.waiting:
            reply.answer.end()

    # What is played

    def _heard(self, message: bytes) -> bytes:
        """Return what is played of it: of a muted agent silence, for its turns last as long."""
        frame = frames.decode(message) if self.is_muted else None
        if not isinstance(frame, AudioFrame):
            return message
        return frames.encode_audio(bytes(len(frame.audio)), frame.sample_rate, frame.num_channels)

    def tick(self, now: float) -> None:
        """Look what was played by now."""
        reply = self._reply
        if reply is None:
            return
        if now - reply.written_at >= _PAUSE_S:
            reply.written_at = math.inf
            for sentence in reply.cutter.pause():
                self._speak(reply, sentence)
        if reply.waiting:
            self._feed(reply)
        played_s = self._line.played_s
        if not reply.is_started and reply.answer.has_started(played_s):
            reply.is_started = True
            if reply.first_at is not None:
                self._metrics.frame_time.observe(now - reply.first_at)
            self._events.on_reply_started(reply.n)
        if reply is self._reply and reply.answer.has_finished(played_s):
            self._reply = None
            self._finish(reply)

    def _finish(self, reply: _Reply) -> None:
        if reply.sentences and not reply.is_started:
            silent = Failed("tts", reply.n, "error", "it has made nothing to be heard", False)
            self._fail(reply, silent)
        else:
            text = " ".join(reply.sentences) if reply.is_started else ""
            self._events.on_reply_finished(reply.n, text)

    def _fail(self, reply: _Reply, failed: Failed) -> None:
        self._is_trusted = False
        if not reply.is_fallback:
            self._events.on_reply_failed(reply.n, failed)
            return
        self._reply = reply
        self._play_fallback(reply)
        if reply.may_ask:
            self._events.on_fallback_failed(failed)

    # From the TTS service

    def on_service_open(self, role: Role, connect_s: float) -> None:
        """It is there."""
        self._is_there = True
        self._events.on_service_open(role, connect_s)

    def on_service_lost(self, role: Role, why: str) -> None:
        """It is given up."""
        self._is_there = False
        self._events.on_service_lost(role, why)

    def on_audio(self, n: int, message: bytes) -> None:
        """A sentence's audio comes."""
        reply = self._speaking.get(n)
        if reply is None:
            return
        if not self._has_spoken:
            self._has_spoken = True
            self._events.on_agent_spoke()
        now = time.monotonic()
        reply.first_at = reply.first_at or now
        start_s = self._line.queued_s
        # The playout's wait is for senders in real time. A service sends as fast as it can: as soon
        # as there is enough the next tick plays it.
        frame = self._line.receive_agent(self._heard(message), now - PREBUFFER_WAIT_S)
        if isinstance(frame, BadFrame):
            self._metrics.bad_audio.labels(frame.reason).inc()
        reply.answer.on_audio(n, start_s, self._line.queued_s)

    def on_word(self, n: int, text: str, offset_ms: int) -> None:
        """Where in its audio a word begins."""
        if (reply := self._speaking.get(n)) is not None:
            reply.answer.on_word(n, text, offset_ms / 1000)

    def on_tts_done(self, n: int, times: Times) -> None:
        """A sentence's audio is complete."""
        if times.tries:
            self._is_trusted = True
        reply = self._speaking.pop(n, None)
        if reply is not None:
            reply.answer.on_done(n)
            if times.first_at is not None and not reply.is_started:
                self._metrics.audio_time.observe(times.first_at - times.head_at)

    def on_failed(self, failed: Failed) -> None:
        """A sentence cannot be spoken, or not to its end."""
        reply = self._speaking.pop(failed.n, None)
        if reply is not None:
            self._fail(reply, failed)
