"""The caller on a socket: connects, sends, listens. It decides nothing about codecs or timing."""

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable
from typing import NamedTuple, Self, cast
from uuid import UUID, uuid4

from mediad.caller.replies import Garbage, Hangup, Reply, ReplyParser, SlinAudio
from mediad.caller.track import Track
from mediad.caller.voice import CODECS, Pacer, Voice
from mediad.media.resample import Resampler
from mediad.wire.audiosocket import digit_message, uuid_message

__all__ = ["CallEnded", "Caller", "CallerError", "End"]

_CLOSE_S = 1.0
_TURN_PAUSE_S = 0.6  # the caller may pause for breath without ending its turn


class CallerError(Exception):
    """Base of what goes wrong with a call."""


class CallEnded(CallerError):
    """The call is over while something is still awaited from it."""


class End(NamedTuple):
    """How a call ended."""

    by: str
    """``caller``, ``server`` or ``network``."""
    how: str
    """``closed`` (the caller hung up), ``hangup`` (0x00), ``eof``, ``reset``, ``garbage``, or
    ``stalled`` (the server stopped reading)."""
    at: float
    """Monotonic seconds."""
    detail: str = ""


class Caller(asyncio.Protocol):
    """One call to an AudioSocket server, as Asterisk makes it.

    It sends one message of ``ptime_ms`` every ptime, silence when there is nothing to say, and
    hangs up by closing the connection.

    Usage::

        async with Caller("127.0.0.1", 9092, codec="ulaw") as caller:
            caller.say(pcm, 16000)
            await caller.said()
            await caller.wait_for_speech(timeout_s=5)
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        call_id: UUID | None = None,
        codec: str = "slin",
        ptime_ms: int = 20,
        connect_timeout_s: float = 5.0,
    ) -> None:
        self.call_id = call_id or uuid4()
        self.voice = Voice(CODECS[codec], ptime_ms)
        self.sent = Track(self.voice.codec.rate_hz, _TURN_PAUSE_S)
        """What was sent, and when."""
        self.heard = Track(self.voice.codec.rate_hz)
        """What came back, and when; brought to the caller's rate where it has another."""
        self.digits_sent: list[tuple[float, str]] = []
        """When each digit was sent (monotonic seconds), and which."""
        self.connect_s = 0.0
        """How long the TCP connection took, in seconds."""
        self.started_at = 0.0
        """When the UUID was sent, monotonic seconds: the call's time zero."""
        self.split_messages = 0
        """How often a read ended inside a message; 5 ms of that and Asterisk may drop the call."""
        self.end: End | None = None
        """How the call ended; None while it goes on."""
        self._address = (host, port)
        self._connect_timeout_s = connect_timeout_s
        self._parser = ReplyParser()
        self._resamplers: dict[int, Resampler] = {}
        self._changed = asyncio.Event()  # pulsed whenever a waiter may have something to see
        self._closed = asyncio.Event()

    # Starting and ending.

    async def __aenter__(self) -> Self:
        """Connect and send the UUID.

        Raises:
            OSError: If the server cannot be reached; a TimeoutError after ``connect_timeout_s``.
        """
        self._began_at = time.monotonic()
        async with asyncio.timeout(self._connect_timeout_s):
            await asyncio.get_running_loop().create_connection(lambda: self, *self._address)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.hang_up()
        await self._closed.wait()

    def hang_up(self) -> None:
        """End the call by closing the connection, which is all that Asterisk does."""
        self._close(End("caller", "closed", time.monotonic()))

    async def ended(self) -> End:
        """Wait until the call is over and the connection closed; return how it ended."""
        await self._closed.wait()
        assert self.end is not None  # set before the connection is closed
        return self.end

    # Talking.

    def say(self, pcm: bytes, rate_hz: int) -> None:
        """Queue words: s16le mono PCM of any rate."""
        self.voice.say(pcm, rate_hz)

    def press(self, digits: str, hole_s: float = 0.0) -> None:
        """Queue digits; see `Voice.press`."""
        self.voice.press(digits, hole_s)

    async def said(self) -> None:
        """Wait until all words and digits have been sent.

        Raises:
            CallEnded: If the call ends before that.
        """
        await self._until(lambda: not self.voice.busy, None)

    def stop_sending(self) -> None:
        """Send nothing any more, not even silence, as a phone with DTX; `start_sending` goes on."""
        self.voice.muted = True

    def start_sending(self) -> None:
        """Send again after `stop_sending`."""
        self.voice.muted = False

    def send_raw(self, data: bytes) -> None:
        """Send bytes as they are, for tests of bad input."""
        self._transport.write(data)

    # Listening.

    async def wait_for_speech(self, *, timeout_s: float | None = 10.0) -> float:
        """Wait until something audible is heard; return when that was, in monotonic seconds.

        Raises:
            CallEnded: If the call ends before that.
            TimeoutError: After ``timeout_s``.
        """
        moment = time.monotonic()
        await self._until(lambda: (self.heard.last_audible or 0.0) > moment, timeout_s)
        return max(moment, self.heard.spans[-1].start)

    async def wait_for_answer(self, since: float, *, timeout_s: float | None = 10.0) -> float:
        """Wait for speech that begins after ``since``; both are monotonic seconds.

        Unlike `wait_for_speech` it does not take the rest of what is being heard.

        Raises:
            CallEnded: If the call ends before that.
            TimeoutError: After ``timeout_s``.
        """
        await self._until(lambda: self.heard.span_after(since) is not None, timeout_s)
        return self.heard.spans[-1].start

    async def wait_for_quiet(
        self, *, quiet_s: float = 0.8, timeout_s: float | None = 30.0
    ) -> float:
        """Wait until nothing audible was heard for ``quiet_s``; return when the quiet began.

        Raises:
            CallEnded: If the call ends before that.
            TimeoutError: After ``timeout_s``.
        """
        await self._until(lambda: time.monotonic() - self._quiet_since() >= quiet_s, timeout_s)
        return self._quiet_since()

    def _quiet_since(self) -> float:
        last = self.heard.last_audible
        return self.started_at if last is None else last

    async def _until(self, condition: Callable[[], bool], timeout_s: float | None) -> None:
        async with asyncio.timeout(timeout_s):
            while not condition():
                if self.end:
                    raise CallEnded(f"the call is over ({self.end.by}: {self.end.how})")
                await self._changed.wait()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the UUID and start the clock."""
        self._transport = cast(asyncio.Transport, transport)  # create_connection makes no other
        tcp = transport.get_extra_info("socket")
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.started_at = time.monotonic()
        self.connect_s = self.started_at - self._began_at
        self._transport.write(uuid_message(self.call_id))
        self._pacer = Pacer(self.started_at, self.voice.ptime_s)
        self._arm()

    def data_received(self, data: bytes) -> None:
        """Record what the server sends."""
        if self.end:
            return
        now = time.monotonic()
        for reply in self._parser.receive_data(data):
            self._on_reply(now, reply)
        self.split_messages += self._parser.unfinished
        self._pulse()

    def eof_received(self) -> None:
        """Note that the server closed the connection; asyncio then closes ours."""
        detail = "in the middle of a message" if self._parser.unfinished else ""
        self._finish(End("server", "eof", time.monotonic(), detail))

    def pause_writing(self) -> None:
        """Give up: 64 KiB wait behind a full kernel buffer, where Asterisk's write is cut short."""
        self._finish(End("server", "stalled", time.monotonic(), "it no longer reads"))
        self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let those go on who wait for the end."""
        self._finish(End("network", "reset", time.monotonic(), str(exc or "")))
        self._timer.cancel()
        self._closed.set()

    # The clock.

    def _arm(self) -> None:
        delay = self._pacer.delay(time.monotonic())
        self._timer = asyncio.get_running_loop().call_later(delay, self._tick)

    def _tick(self) -> None:
        for _ in range(self._pacer.take(time.monotonic())):
            if self.end:
                return
            self._send_next()
        self._pulse()
        self._arm()

    def _send_next(self) -> None:
        pcm, digit = self.voice.next()
        now = time.monotonic()
        if digit:
            self._transport.write(digit_message(digit))
            self.digits_sent.append((now, digit))
        if pcm is not None:
            self._transport.write(self.voice.codec.message(pcm))
            self.sent.add(now, pcm)

    def _pulse(self) -> None:
        self._changed.set()
        if self.end is None:
            self._changed.clear()

    # What the server says.

    def _on_reply(self, now: float, reply: Reply) -> None:
        match reply:
            case SlinAudio(rate_hz, pcm):
                self.heard.add(now, self._at_own_rate(rate_hz, pcm))
            case Hangup():
                self._close(End("server", "hangup", now))
            case Garbage(detail):
                self._close(End("server", "garbage", now, detail))

    def _at_own_rate(self, rate_hz: int, pcm: bytes) -> bytes:
        if rate_hz == self.heard.rate_hz:
            return pcm
        if rate_hz not in self._resamplers:
            self._resamplers[rate_hz] = Resampler(rate_hz, self.heard.rate_hz)
        return self._resamplers[rate_hz].process(pcm)

    def _close(self, end: End) -> None:
        """End the call. What still comes is taken and forgotten until the server closes, too.

        Closing with bytes unread would reset the connection; Asterisk, in a thread of its own for
        each call, has none.
        """
        if self.end is None and not self._transport.is_closing():
            with contextlib.suppress(OSError):  # it is reset already, and will soon be lost
                self._transport.write_eof()
            self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_later(_CLOSE_S, self._transport.abort)
        self._finish(end)

    def _finish(self, end: End) -> None:
        """Take the first end; what follows it (EOF after 0x00, say) is no news."""
        if self.end is None:
            self.end = end
            self._pulse()
