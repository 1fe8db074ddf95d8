"""mediad's part against a service under test: asks, waits, and watches all that comes.

What a check waits for and does not get is `Failed`. What is wrong with anything that comes,
whatever is being checked then, is a `Fault` of the rule that it breaks.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI
from websockets.frames import CloseCode

from mediad.speech.check import tools
from mediad.wire import frames, service
from mediad.wire.frames import AudioFrame, Interruption, Text, Transcription
from mediad.wire.service import (
    Done,
    Failure,
    FromService,
    Generate,
    Ready,
    Role,
    Start,
    StoppedSpeaking,
    Word,
)

__all__ = ["Failed", "Fault", "Late", "Peer", "Target"]

READY_S = 2.0
CANCEL_S = 0.5
ANSWER_S = 20.0
"""How long a service may take, in seconds: to get ready, to cancel, to answer."""

ROOM_S = 3.0
"""How much longer is waited, in seconds, to tell who is late from who does not answer at all."""

_CONNECT_S = 5.0
_MAX_FAULTS = 100
_STT_RATE_HZ = 16_000
_FRAME_S = 0.02
_SILENCE_S = 0.4
_SHORT_TEXT = "This is a short sentence."
_LONG_TEXT = "and then the old captain went back to his lighthouse to look at the ships, " * 12
_SHORT_QUESTION = "Say hello in one sentence."
_LONG_QUESTION = "Count from one to three hundred in words, and leave out nothing."


class Failed(Exception):
    """A check has failed; the text says what was seen."""


class Late(Failed):
    """What should come has come too late. A machine that stood still may be to blame."""


class Fault(NamedTuple):
    """Something that broke a rule, which has a check of its own."""

    rule: str
    detail: str


@dataclass(frozen=True, slots=True)
class Target:
    """The service under test, and what it did wrong so far."""

    url: str
    role: Role
    faults: list[Fault] = field(default_factory=list)

    @asynccontextmanager
    async def connect(self, *, first_n: int = 1) -> AsyncGenerator["Peer"]:
        """Open a connection.

        Raises:
            Failed: If the service cannot be reached.
        """
        try:
            websocket = await connect(
                self.url,
                compression=None,
                max_size=frames.MAX_MESSAGE_SIZE,
                open_timeout=_CONNECT_S,
                proxy=None,
            )
        except (OSError, TimeoutError, InvalidHandshake, InvalidURI) as exc:
            raise Failed(f"cannot connect to {self.url}: {exc}") from exc
        peer = Peer(websocket, self.role, self.faults, first_n)
        reading = asyncio.create_task(peer.read())
        try:
            yield peer
        finally:
            await websocket.close()
            await reading


_T = TypeVar("_T")


class Peer:
    """One connection to the service."""

    def __init__(
        self, websocket: ClientConnection, role: Role, faults: list[Fault], first_n: int
    ) -> None:
        self.role: Role = role
        self.ready: Ready | None = None
        self.content = 0
        """How many audio messages, texts or final transcripts came."""
        self._websocket = websocket
        self._faults = faults
        self._next = first_n
        self._undone: list[int] = []
        self._dones: list[Done] = []
        self._interrupted: list[int] = []  # whose done is awaited
        self._failures: list[Failure] = []
        # Of the n that is being answered.
        self._audio_ms = 0.0
        self._word_ms = 0
        self._changed = asyncio.Condition()
        self._closed = False

    # What mediad says.

    async def start(self) -> Ready:
        """Open the call."""
        await self.send(Start(self.role, "00000000-0000-4000-8000-000000000000", "en-US"))
        return await self._wait_in_time(lambda: self.ready, READY_S, "no mediad-ready came")

    async def ask(self, *, long: bool = False, nothing: bool = False) -> int:
        """Send a request of the service's role; return its n.

        Args:
            long: Ask for what takes long.
            nothing: Ask for what has no words: to say ``…``, to go on with no conversation.
        """
        n = self._new_n()
        match self.role:
            case "stt":
                await self.send(StoppedSpeaking(n))
            case "llm":
                question = _LONG_QUESTION if long else _SHORT_QUESTION
                messages = [{"role": "user", "content": question}]
                await self.send(Generate(n, [] if nothing else messages))
            case "tts":
                said = _LONG_TEXT if long else _SHORT_TEXT
                await self.send(Text(n, "…" if nothing else said))
        return n

    async def ask_with_tool(self) -> int:
        """Ask an LLM service to go on with a conversation, perhaps by calling a tool; return n."""
        n = self._new_n()
        await self.send(Generate(n, tools.CONVERSATION, tools.OFFERED))
        return n

    def _new_n(self) -> int:
        n, self._next = self._next, self._next + 1
        self._undone.append(n)
        return n

    async def be_silent(self) -> None:
        """Send an STT service a little silence, in real time."""
        if self.role != "stt":
            return
        silence = frames.encode_audio(bytes(int(2 * _STT_RATE_HZ * _FRAME_S)), _STT_RATE_HZ)
        for _ in range(round(_SILENCE_S / _FRAME_S)):
            await self.send_raw(silence)
            await asyncio.sleep(_FRAME_S)

    async def interrupt(self, n: int) -> None:
        """Cancel n and all before it."""
        self._interrupted.append(n)
        self._undone = [asked for asked in self._undone if asked > n]
        await self.send(Interruption(n))

    async def send(self, message: service.FromMediad) -> None:
        """Send a message of the protocol."""
        await self.send_raw(service.encode(message))

    async def send_raw(self, message: bytes) -> None:
        """Send anything."""
        try:
            await self._websocket.send(message)
        except ConnectionClosed as exc:
            raise Failed(f"the service closed the connection ({_why(exc)})") from exc

    # What the service should say.

    async def done(self, n: int) -> Done:
        """Wait for the done of n."""
        return await self._wait(lambda: self._find(n), ANSWER_S, f"no mediad-done came for n {n}")

    async def cancelled(self, n: int) -> None:
        """Wait for the done of n that answers an interruption."""

        def answered() -> bool | None:
            return None if n in self._interrupted else True

        await self._wait_in_time(
            answered, CANCEL_S, f'no mediad-done with the reason "cancelled" came for n {n}'
        )

    async def some_content(self, n: int) -> None:
        """Wait until n is being answered, or is done."""
        before = self.content
        await self._wait(
            lambda: self.content > before or self._find(n), ANSWER_S, f"nothing came for n {n}"
        )

    async def quiet(self, seconds: float) -> None:
        """Wait for nothing; faults are noted meanwhile."""
        await asyncio.sleep(seconds)

    def _find(self, n: int) -> Done | None:
        return next((done for done in self._dones if done.n == n), None)

    async def _wait_in_time(
        self, what: Callable[[], _T | None], limit_s: float, otherwise: str
    ) -> _T:
        """Wait for what the protocol gives so much time.

        Raises:
            Late: If it comes, but later.
            Failed: If it does not come.
        """
        asked = time.monotonic()
        found = await self._wait(what, limit_s + ROOM_S, otherwise)
        took_s = time.monotonic() - asked
        if took_s > limit_s:
            raise Late(f"{otherwise} within {limit_s:g} s, but after {took_s:.2f} s")
        return found

    async def _wait(self, what: Callable[[], _T | None], within_s: float, otherwise: str) -> _T:
        def look() -> bool:
            return bool(what()) or self._closed

        try:
            async with asyncio.timeout(within_s), self._changed:
                await self._changed.wait_for(look)
        except TimeoutError:
            raise Failed(f"{otherwise} within {within_s:g} s{self.told()}") from None
        found = what()
        if not found:
            raise Failed(f"{otherwise}: the service closed the connection{self.told()}")
        return found

    def told(self) -> str:
        """Return what the service says is wrong, if it does."""
        if not self._failures:
            return ""
        last = self._failures[-1]
        return f" (it says {last.code or 'error'}: {last.message[:200]})"

    # What comes.

    async def read(self) -> None:
        """Read until the service closes."""
        try:
            async for message in self._websocket:
                async with self._changed:
                    self._take(message)
                    self._changed.notify_all()
        except ConnectionClosed as exc:
            if exc.sent and exc.sent.code == CloseCode.MESSAGE_TOO_BIG:
                self._fault("messages", f"a message of over {frames.MAX_MESSAGE_SIZE} bytes")
        async with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _take(self, message: bytes | str) -> None:
        if isinstance(message, str):
            self._fault("messages", "a WebSocket text message; all of them are binary")
            return
        read = service.from_service(message)
        if isinstance(read, service.Malformed):
            self._fault("messages", f"{read.reason}: {read.detail}")
        elif self.ready is None and not isinstance(read, Ready | Failure | None):
            self._fault("messages", f"{type(read).__name__} before mediad-ready")
        else:
            self._note(read)

    def _note(self, message: FromService | None) -> None:
        match message:
            case Ready():
                self.ready = message
            case Failure():
                self._failures.append(message)
            case Done():
                self._note_done(message)
            case Word(n, text, offset_ms):
                self._note_word(n, text, offset_ms)
            case AudioFrame() if self.role == "tts":
                self._note_audio(message)
            case Text() if self.role == "llm":
                self._note_content("a TextFrame")
            case Transcription() if self.role == "stt":
                self.content += 1

    def _note_done(self, done: Done) -> None:
        n = done.n
        if n in self._undone[:1] and done.reason != "cancelled":
            self._check_words()
        if n <= max(self._interrupted, default=0) and n < self._next:
            if done.reason == "cancelled":  # another reason: it was done when that was on its way
                self._interrupted = [other for other in self._interrupted if other > n]
        elif n not in self._undone:
            was = "again" if n < self._next and self._find(n) else "that nobody asked for"
            self._fault("numbers", f"mediad-done for n {n} {was}")
        elif n != self._undone[0]:
            self._fault("order", f"mediad-done for n {n} before that of n {self._undone[0]}")
        self._undone = [asked for asked in self._undone if asked != n]
        self._dones.append(done)
        self._audio_ms, self._word_ms = 0.0, 0

    def _note_content(self, what: str) -> None:
        if not self._undone and not self._interrupted:
            self._fault("after-done", f"{what} came although every n was done")
        self.content += 1

    def _note_audio(self, audio: AudioFrame) -> None:
        self._note_content("audio")
        assert self.ready is not None
        if audio.sample_rate != self.ready.sample_rate:
            announced = self.ready.sample_rate
            self._fault("sample-rate", f"audio of {audio.sample_rate} Hz; announced: {announced}")
        if audio.num_channels != 1 or len(audio.audio) % 2:
            self._fault(
                "sample-rate", f"{audio.num_channels} channels, {len(audio.audio)} bytes; not mono"
            )
        self._audio_ms += len(audio.audio) / 2 / max(1, audio.sample_rate) * 1000

    def _note_word(self, n: int, text: str, offset_ms: int) -> None:
        if self.role != "tts":
            return
        # Before the service has read an interruption, words of all that it cancels may be sent.
        if n not in self._undone[:1] and n > max(self._interrupted, default=0):
            self._fault("words", f"bot-tts-text {text!r} for n {n}, which is not being answered")
        if offset_ms < self._word_ms:
            self._fault("words", f"offset_ms falls from {self._word_ms} to {offset_ms}")
        self._word_ms = offset_ms

    def _check_words(self) -> None:
        if self._word_ms > self._audio_ms:
            last, all_ms = self._word_ms, round(self._audio_ms)
            self._fault("words", f"a word begins at {last} ms of {all_ms} ms of audio")

    def _fault(self, rule: str, detail: str) -> None:
        fault = Fault(rule, detail)
        if fault not in self._faults and len(self._faults) < _MAX_FAULTS:
            self._faults.append(fault)


def _why(closed: ConnectionClosed) -> str:
    close = closed.rcvd
    return f"{close.code} {close.reason}".strip() if close else "without a close frame"
