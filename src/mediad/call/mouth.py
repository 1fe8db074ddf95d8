"""How a pipeline's agent speaks: text is cut into sentences, each is given to the TTS service at
once, and what is played of it is followed. Called on the media loop; nothing waits.
"""

import math
import time
from collections.abc import Iterable
from typing import Protocol

from mediad.ai.connect import CallInfo
from mediad.ai.services.events import Failed, Times
from mediad.ai.speaker import Speaker
from mediad.call.ahead import Ahead, Coming
from mediad.call.reply import Reply
from mediad.call.shared import Shared
from mediad.call.turn.heard import Heard
from mediad.call.turn.sentences import Sentences, cut
from mediad.line import Line
from mediad.media.playout import PREBUFFER_WAIT_S
from mediad.wire import frames
from mediad.wire.frames import AudioFrame, BadFrame
from mediad.wire.service import Role, Voice

__all__ = ["MAX_GAP_S", "Mouth", "MouthEvents"]

MAX_GAP_S = 10.0
"""The longest silence within a reply, in seconds: then the language model, which may write all the
while, has failed. What keeps the TTS service silent has the time of its requests.
"""

_PAUSE_S = 0.2  # a language model that writes nothing for so long may have ended a sentence


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
        """All of it was, and this much was heard; or there was nothing to say: it is empty."""
        ...

    def on_reply_failed(self, n: int, failed: Failed) -> None:
        """A sentence of it cannot be spoken."""
        ...

    def on_fallback_failed(self, failed: Failed) -> None:
        """The service has failed a fallback's text, too; the caller hears a sound in its place."""
        ...


class Mouth:
    """One call's. `run` it in a task of the call, `tick` it every 20 ms.

    Args:
        playout_max_s: How much audio the line holds, in seconds.
    """

    def __init__(
        self,
        shared: Shared,
        call: CallInfo,
        voice: Voice,
        line: Line,
        playout_max_s: float,
        events: MouthEvents,
    ) -> None:
        self._metrics = shared.metrics
        self._fallback_frame = shared.fallback_frame
        self._language = voice.language
        self._line = line
        self._events = events
        rate_hz = line.playout_rate_hz
        self._speaker = Speaker(shared.speech, shared.services.tts, call, voice, rate_hz, self)
        self._ahead = Ahead(playout_max_s, voice.rate or 1.0)
        self._reply: Reply | None = None
        # What comes of it, by the number it was asked with: each sentence has its own.
        self._coming: dict[int, Coming] = {}
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
        """Speak no more; what is queued may still be heard."""
        self._speaker.close()
        self._coming.clear()

    async def closed(self) -> None:
        """Wait, not for long, until the service has answered `close`."""
        await self._speaker.closed()

    # What is to be said

    def begin(self, n: int) -> None:
        """Begin the reply of a turn; it is yet to be written."""
        self._reply = Reply(n, Sentences(self._language))

    def write(self, n: int, delta: str) -> None:
        """Take more of its text."""
        reply = self._reply
        if reply is not None and reply.n == n:
            reply.written_at = time.monotonic()
            self._speak(reply, reply.cutter.add(delta))

    def end(self, n: int) -> None:
        """All of its text was written."""
        reply = self._reply
        if reply is not None and reply.n == n:
            reply.written_at = math.inf
            reply.is_written = True
            self._speak(reply, reply.cutter.finish())

    def say(self, n: int, text: str) -> None:
        """Say a text as the reply of a turn; with one under way in it, after that."""
        reply = self._reply
        if reply is None or reply.n != n:
            reply = self._reply = Reply(n, Sentences(self._language), is_written=True)
        self._speak(reply, cut(text, self._language))

    def play(self, n: int, frame: bytes) -> None:
        """Play audio as the reply of a turn, also while the agent is muted."""
        reply = self._reply = Reply(n, Sentences(self._language), is_written=True)
        self._queue(reply, frame)
        reply.answer.end()

    def say_fallback(self, n: int, text: str) -> None:
        """Let the caller hear, as the reply of a turn, that something is wrong: this text, without
        the service if that has just failed. What cannot be spoken is replaced by a sound.
        """
        reply = self._reply = Reply(n, Sentences(self._language), is_fallback=True)
        reply.may_ask = self._is_there and self._is_trusted
        reply.is_written = True
        if text:
            self._speak(reply, cut(text, self._language))
        else:
            self._play_fallback(reply)

    def _play_fallback(self, reply: Reply) -> None:
        self._speaker.cancel(self._n)
        self._coming.clear()
        reply.waiting.clear()
        reply.asked_at = None
        reply.answer.give_up()
        self._queue(reply, self._heard(self._fallback_frame))

    def _queue(self, reply: Reply, frame: bytes) -> None:
        self._n += 1
        start_s = self._line.queued_s
        self._line.receive_agent(frame, time.monotonic())
        reply.answer.add(self._n, "")
        reply.answer.on_audio(self._n, start_s, self._line.queued_s)
        reply.answer.on_done(self._n)

    def distrust(self) -> None:
        """The service has failed: let fallbacks do without it until it has spoken again."""
        self._is_trusted = False

    @property
    def is_owed(self) -> bool:
        """Whether it is the service, and not the language model, for which the caller waits."""
        reply = self._reply
        return bool(self._coming) or (reply is not None and reply.is_written)

    def cancel(self) -> Heard | None:
        """Say nothing more; return what was heard of the reply, if there is one. What is queued is
        yet to be flushed.
        """
        self._speaker.cancel(self._n)
        self._coming.clear()
        return self.take_heard()

    def take_heard(self) -> Heard | None:
        """End the reply, if there is one; return what was heard of it."""
        reply, self._reply = self._reply, None
        return reply.answer.heard(self._line.played_s) if reply is not None else None

    def _speak(self, reply: Reply, sentences: Iterable[str] = ()) -> None:
        """Give the TTS service as much as it may have."""
        reply.waiting += sentences
        self._speaker.rate_hz = self._line.playout_rate_hz  # known with the first audio
        while reply.waiting and self._has_room(reply.waiting[0]):
            sentence = reply.waiting.popleft()
            self._n += 1
            self._coming[self._n] = Coming(sentence, self._ahead.length_s(sentence))
            reply.answer.add(self._n, sentence)
            if reply.asked_at is None:
                reply.asked_at = time.monotonic()
            self._speaker.speak(self._n, sentence, may_ask=reply.may_ask)
        if reply.is_written and not reply.waiting:
            reply.answer.end()

    def _has_room(self, sentence: str) -> bool:
        held_s = self._line.queued_s - self._line.played_s
        return self._ahead.has_room(sentence, held_s, self._coming.values())

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
            self._speak(reply, reply.cutter.pause())
        if reply.waiting:
            self._speak(reply)
        played_s = self._line.played_s
        if not reply.is_started and reply.answer.has_started(played_s):
            reply.is_started = True
            if reply.first_at is not None:
                self._metrics.frame_time.observe(now - reply.first_at)
            self._events.on_reply_started(reply.n)
        is_dry = reply.is_started and not (reply.is_written or self._coming or self._line.held_ms)
        reply.dry_since = min(reply.dry_since, now) if is_dry else math.inf
        if now - reply.dry_since >= MAX_GAP_S:
            late = Failed("llm", reply.n, "timeout", "it writes no other sentence", True)
            self._events.on_reply_failed(reply.n, late)
        if reply is self._reply and reply.answer.has_finished(played_s):
            self._reply = None
            self._finish(reply, played_s)

    def _finish(self, reply: Reply, played_s: float) -> None:
        if reply.asked_at is not None and not reply.is_started:
            silent = Failed("tts", reply.n, "error", "it has made nothing to be heard", False)
            self._fail(reply, silent)
        else:
            self._events.on_reply_finished(reply.n, reply.answer.heard(played_s).text)

    def _fail(self, reply: Reply, failed: Failed) -> None:
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
        reply, coming = self._reply, self._coming.get(n)
        if reply is None or coming is None:
            return
        if not self._has_spoken:
            self._has_spoken = True
            self._events.on_agent_spoke()
        now = time.monotonic()
        if reply.first_at is None:
            reply.first_at = now
            if reply.asked_at is not None:
                self._metrics.audio_time.observe(now - reply.asked_at)
        if coming.is_cut:
            reply.answer.on_lost(n, _length_s(message))
            return
        start_s, refused = self._line.queued_s, self._line.counters().refused_bytes
        # The playout's wait is for senders in real time. A service sends as fast as it can: as soon
        # as there is enough the next tick plays it.
        frame = self._line.receive_agent(self._heard(message), now - PREBUFFER_WAIT_S)
        if isinstance(frame, BadFrame):
            self._metrics.bad_audio.labels(frame.reason).inc()
        end_s = self._line.queued_s
        coming.came_s += end_s - start_s
        reply.answer.on_audio(n, start_s, end_s)
        if self._line.counters().refused_bytes > refused:
            # What follows would be heard as if nothing were missing: the sentence ends here.
            coming.is_cut = True
            reply.answer.on_lost(n, max(_length_s(message) - (end_s - start_s), 0.001))

    def on_word(self, n: int, text: str, offset_ms: int) -> None:
        """Where in its audio a word begins."""
        if self._reply is not None and n in self._coming:
            self._reply.answer.on_word(n, text, offset_ms / 1000)

    def on_tts_done(self, n: int, times: Times) -> None:
        """A sentence's audio is complete."""
        if times.tries:
            self._is_trusted = True
        reply, coming = self._reply, self._coming.pop(n, None)
        if reply is None or coming is None:
            return
        reply.answer.on_done(n)
        if not coming.is_cut:
            self._ahead.learn(coming.text, coming.came_s)

    def on_failed(self, failed: Failed) -> None:
        """A sentence cannot be spoken, or not to its end."""
        reply = self._reply
        if self._coming.pop(failed.n, None) is not None and reply is not None:
            self._fail(reply, failed)


def _length_s(message: bytes) -> float:
    """Return how long an audio frame is, in seconds."""
    frame = frames.decode(message)
    if not isinstance(frame, AudioFrame) or not frame.sample_rate * frame.num_channels:
        return 0.0
    return len(frame.audio) / 2 / frame.num_channels / frame.sample_rate
