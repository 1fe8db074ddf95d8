"""A whole pipeline call on a virtual clock: no socket, no thread; services that answer at once.

Only what would be the network is replaced: what the links and the services say to each other are
the real messages, and each is there with the next turn of the loop.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest

from mediad.ai.connect import CallInfo
from mediad.ai.dial import Refusal
from mediad.ai.services import connection as connection_module
from mediad.ai.services.service import make_services
from mediad.ai.tts_cache import SpeechStore, TtsCache
from mediad.bus.bus import Bus
from mediad.bus.events import Event
from mediad.call.ears import VoiceModel
from mediad.call.pipeline_metrics import PipelineMetrics
from mediad.call.session import Session
from mediad.call.shared import Shared
from mediad.call.ticker import TICK_S, Ticker
from mediad.config import Settings
from mediad.line import Line
from mediad.metrics import Metrics
from mediad.wire import frames, service
from mediad.wire.audiosocket import AUDIO_KIND_OF_RATE, Kind, audio_message, uuid_message
from mediad.wire.frames import AudioFrame, Interruption, Text, Transcription
from mediad.wire.service import (
    Done,
    FromMediad,
    FromService,
    Generate,
    Ready,
    Role,
    Start,
    StoppedSpeaking,
)
from tests.fakes.memory_socket import MemorySocket

__all__ = ["MemoryCall", "MemoryStore", "memory_call"]

RATE_HZ = 8000
ROLES: dict[str, Role] = {
    "ws://127.0.0.1:8771": "stt",
    "ws://127.0.0.1:8772": "llm",
    "ws://127.0.0.1:8773": "tts",
}
"""By their addresses, which are the settings' defaults."""
_FRAME = RATE_HZ // 50 * 2
_WAVE = bytes.fromhex("00200020002000e000e000e0")  # 1333 Hz
_SPEECH = _WAVE * (RATE_HZ // 6)  # a second
_TONE = _SPEECH


class MemoryStore:
    """Speech that was made, without a thread; it answers with the next turn of the loop."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    def fetch(self, digest: str, on_value: Callable[[bytes | None], None]) -> None:
        """Tell what there is."""
        asyncio.get_running_loop().call_soon(on_value, self.values.get(digest))

    def keep(self, digest: str, make: Callable[[], bytes | None]) -> None:
        """Keep it."""
        if (value := make()) is not None:
            self.values[digest] = value


class _NoModel(VoiceModel):
    def want(self) -> None:
        """There is none: it has a thread."""


class _Socket(MemorySocket):
    def __init__(self, call: "MemoryCall", *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._call = call
        self._loop = asyncio.get_running_loop()

    def take(self, asked: FromMediad) -> None:
        """Answer it."""
        self._call.asked.append(asked)
        if isinstance(asked, Start):
            self._call.sockets[asked.role] = self
        answers = self._call.answer(asked)
        messages = [service.encode(answer) for answer in answers]
        if type(asked) not in self._call.hangs:
            delay_s = self._call.delays_s.get(type(asked), 0.0)
            if delay_s:
                self._loop.call_later(delay_s, self.deliver, *messages)
            else:
                for message in messages:
                    self._loop.call_soon(self.deliver, message)

    def send_audio(self, frame: bytes) -> None:
        """Hear it."""


class MemoryCall:
    """A call, its caller and its services; also the caller's connection, which counts frames."""

    def __init__(self, loop: asyncio.AbstractEventLoop, metrics: Metrics) -> None:
        self._loop = loop
        self._metrics = metrics
        self.asked: list[FromMediad] = []
        """What the services were asked for."""
        self.written: list[tuple[float, bool]] = []
        """Each frame that was written to the caller: when, and whether there was sound in it."""
        self.decided: list[tuple[float, int]] = []
        """Ends of the caller's turns: when, and how many frames had been written."""
        self.said_at = 0.0
        """When the last of the caller's speech was sent."""
        self.heard = "hello"
        """What the STT service recognises; may be empty."""
        self.reply = "Yes."
        """What the language model says."""
        self.s_per_char = 0.0
        """How slowly a text is spoken; 0 makes each a second long."""
        self.llm_done: dict[str, Any] = {}
        """How it ends, beside its number."""
        self.hangs: set[type] = set()
        """What is never answered."""
        self.delays_s: dict[type, float] = {}
        """What is answered only so much later."""
        self.sockets: dict[Role, _Socket] = {}
        """The newest to each service."""
        self.refused: set[Role] = set()
        """Services that take no call."""
        self.connect_s = 0.0
        """How long a new connection takes."""
        self.is_hung_up = False
        self.facts: list[Event] = []
        """What was told of it."""
        self.session: Session

    def answer(self, asked: FromMediad) -> list[FromService]:
        """Do what good services do."""
        match asked:
            case Start():
                return [Ready(RATE_HZ)]
            case StoppedSpeaking(n) if n is not None:
                self.decided.append((self._loop.time(), len(self.written)))
                words = [Transcription(self.heard, "", "")] if self.heard else []
                return [*words, Done(n)]
            case Generate(n):
                text = [Text(n, self.reply)] if self.reply else []
                return [*text, Done(n, **self.llm_done)]
            case Text(n):
                tone = _TONE
                if self.s_per_char:
                    samples = round(len(asked.text) * self.s_per_char * RATE_HZ)
                    tone = (_WAVE * (samples // 6 + 1))[: 2 * samples]
                return [AudioFrame(tone, RATE_HZ, 1), Done(n)]
            case Interruption(n):
                return [Done(n, "cancelled")]
        return []

    # The caller's connection, as the session needs it

    def write(self, message: bytes) -> None:
        """Take a frame."""
        self.written.append((self._loop.time(), any(message[3:])))

    def hang_up(self) -> None:
        """Note the end."""
        self.is_hung_up = True

    def abort(self) -> None:
        """Note the end."""
        self.is_hung_up = True

    # What the caller does

    async def send(self, pcm: bytes) -> None:
        """Send audio as a telephone does, a frame every 20 ms."""
        for at in range(0, len(pcm), _FRAME):
            frame = pcm[at : at + _FRAME].ljust(_FRAME, b"\0")
            message = audio_message(Kind.SLIN, frame)
            now = self._loop.time()
            if any(frame):
                self.said_at = now
            self.session.receive(self.session.line.receive_caller(message, now))
            await asyncio.sleep(TICK_S)

    def send_silence(self, rate_hz: int) -> None:
        """Send 20 ms of silence at this rate."""
        frame = audio_message(AUDIO_KIND_OF_RATE[rate_hz], bytes(rate_hz // 25))
        self.session.receive(self.session.line.receive_caller(frame, self._loop.time()))

    async def be_quiet(self, seconds: float) -> None:
        """Send silence."""
        await self.send(bytes(round(seconds * 50) * _FRAME))

    async def speak(self, seconds: float) -> None:
        """Send something loud."""
        await self.send(_SPEECH[: round(seconds * 50) * _FRAME])

    def lose(self, role: Role) -> None:
        """Let a service be gone for good."""
        self.refused.add(role)
        self.sockets[role].close()

    def keep(self, fact: Event) -> bool:
        """Take a fact, as the journal does."""
        self.facts.append(fact)
        return True

    def said(self, direction: str) -> list[str]:
        """Return the words of one side, as the transcript has them."""
        words = [fact.data for fact in self.facts if fact.type == "transcript_created"]
        return [data["text"] for data in words if data["direction"] == direction]

    def metric(self, name: str, **labels: str) -> float:
        """Return what is counted; 0 when nothing is."""
        return self._metrics.registry.get_sample_value(name, labels) or 0.0

    def first_sound(self, since: int) -> int:
        """Return which frame, not before this one, was the first with sound."""
        return next(at for at in range(since, len(self.written)) if self.written[at][1])


@asynccontextmanager
async def memory_call(
    patch: pytest.MonkeyPatch,
    store: SpeechStore,
    phase_s: float = 0.0,
    agent: Mapping[str, Any] | None = None,
    playout_max_s: float = 60.0,
    is_sending: bool = True,
    **pipeline: Any,
) -> AsyncIterator[MemoryCall]:
    """Have a call on the running loop, whose clock becomes everybody's.

    Args:
        patch: Undone at the end of the test.
        store: Where speech is kept.
        phase_s: How long after a tick the caller's frames come.
        agent: The configuration of its agent.
        playout_max_s: What its line holds.
        is_sending: Whether audio comes with its UUID.
        pipeline: Settings.
    """
    loop = asyncio.get_running_loop()
    patch.setattr(time, "monotonic", loop.time)
    metrics = Metrics()
    call = MemoryCall(loop, metrics)

    async def dial(url: str, make_socket: Callable[[], Any], *_: object) -> Any:
        if ROLES[url] in call.refused:
            return Refusal("refused", True, "it takes no call")
        if call.connect_s:
            await asyncio.sleep(call.connect_s)
        return make_socket()

    def make_socket(*args: Any, **kwargs: Any) -> _Socket:
        return _Socket(call, *args, **kwargs)

    patch.setattr(connection_module, "dial", dial)
    patch.setattr(connection_module, "AgentSocket", make_socket)
    tables = {"pipeline": pipeline, "audiosocket": {"playout_max_s": playout_max_s}}
    settings = Settings.model_validate(tables)
    shared = Shared(
        make_services(settings, metrics, None),
        TtsCache(store, metrics),
        _NoModel(),
        PipelineMetrics(metrics.registry),
        pipeline.get("fallback_prompt", ""),
        frames.encode_audio(_TONE, RATE_HZ),
    )
    uuid = uuid4()
    line = Line("slin", "ulaw", playout_max_s)
    config = None if agent is None else {"prompt": "Be kind.", "language": "en-US", **agent}
    info = CallInfo(str(uuid), agent=config)
    session = Session(info, line, call, settings, Bus(metrics, call.keep), metrics, b"")
    call.session = session
    line.receive_caller(uuid_message(uuid), loop.time())
    session.open(shared, None)
    if is_sending:
        call.send_silence(RATE_HZ)
    ticker = Ticker(metrics, loop.time)
    ticker.add(session)
    ticker.start()
    running = loop.create_task(session.run())
    try:
        await asyncio.sleep(phase_s)
        yield call
    finally:
        session.caller_gone("normal_clearing")
        await running
        await session.goodbye()
        ticker.stop()
