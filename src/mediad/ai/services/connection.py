"""One WebSocket to a service, from the handshake over mediad-start and mediad-ready to its end.
What is asked over it, and what becomes of that when it ends, is its link's business.
"""

import asyncio
import time
from collections.abc import Callable, Iterable

from mediad import blot
from mediad.ai.connect import CallInfo
from mediad.ai.dial import Refusal, dial
from mediad.ai.services.asked import Asked
from mediad.ai.services.service import Service
from mediad.ai.socket import AgentSocket
from mediad.wire import service as wire
from mediad.wire.frames import MAX_MESSAGE_SIZE
from mediad.wire.service import Failure, FromService, Malformed, Ready, Start, Voice

__all__ = ["MAX_BAD_MESSAGES", "READY_S", "Connection"]

READY_S = 2.0
"""How long a service may take to be ready after mediad-start, in seconds."""

MAX_BAD_MESSAGES = 10
"""Messages that break the protocol, over one connection; one more, and it is given up."""

_GOOD_S = 5.0  # a connection that lasted so long was good, though nothing was answered over it

Taker = Callable[["Connection", FromService | Malformed, bytes], bool]
"""Takes what a service said, and the message itself; returns whether it was wanted audio or text,
of which there may be any number a second.
"""


class Connection:
    """A connection of one link.

    Args:
        url: The address, as it stands in the settings.
        asked: What is asked over it.
        start: How it begins.
        take: Takes all that comes once it is ready, on the event loop.
        on_over: Called when it has ended.
    """

    def __init__(
        self,
        url: str,
        asked: Asked,
        start: Start,
        take: Taker,
        on_over: Callable[["Connection"], None],
    ) -> None:
        self.url = url
        self.asked = asked
        self.voice = Voice(start.voice, start.language, start.rate)
        """In force for the next text."""
        self.is_good = False
        """Whether anything was answered over it."""
        self.bad_messages = 0
        self.over = asyncio.Event()
        """Set when its link need not wait for it any more."""
        self._start = start
        self._take = take
        self._on_over = on_over
        self._socket: AgentSocket | None = None
        self._closing: asyncio.Task[int] | None = None
        self._greeting: asyncio.Future[Ready | Failure | None]
        self._greeting = asyncio.get_running_loop().create_future()
        self._is_ready = False
        self._ready_at = 0.0
        self._limit: asyncio.TimerHandle | None = None
        self.connect_s = 0.0
        """From the attempt until it was ready, in seconds."""

    @property
    def is_open(self) -> bool:
        """Whether anything can be sent."""
        return self._socket is not None and self._socket.is_open

    @property
    def age_s(self) -> float:
        """For how long it has been ready, in seconds."""
        return time.monotonic() - self._ready_at

    @property
    def was_good(self) -> bool:
        """Whether this address is worth asking again at once."""
        return self.is_good or self.age_s >= _GOOD_S

    async def open(self, service: Service, call: CallInfo, timeout_s: float) -> Refusal | None:
        """Connect and wait until the service is ready; return why it is not."""
        started = time.monotonic()
        socket = await dial(
            service.url_for(self.url, call),
            lambda: self._make_socket(service),
            service.headers(call),
            service.tls,
            timeout_s,
        )
        if isinstance(socket, Refusal):
            return socket
        self._socket = socket
        self._closing = asyncio.get_running_loop().create_task(socket.closed())
        self._closing.add_done_callback(self._end)
        try:
            refusal = await self._greet(socket)
        except BaseException:
            self.close()
            raise
        if refusal is not None:
            self.close()
        self._ready_at = time.monotonic()
        self.connect_s = self._ready_at - started
        return refusal

    async def _greet(self, socket: AgentSocket) -> Refusal | None:
        socket.send_control(wire.encode(self._start))
        try:
            async with asyncio.timeout(READY_S):
                greeting = await self._greeting
        except TimeoutError:
            return Refusal("not_ready", False, f"it is not ready within {READY_S:g} s")
        match greeting:
            case None:
                return Refusal("closed", False, "it closes the connection before it is ready")
            case Failure(_, code, message, retry):
                said = (blot.quoted(code), blot.quoted(message))
                return Refusal("error", not retry, "it reports an error, code %s: %s", said)
            case Ready(protocol=protocol) if protocol != wire.PROTOCOL:
                return Refusal("protocol", True, "it speaks protocol %d", (protocol,))
        return None

    def send(self, messages: Iterable[bytes]) -> None:
        """Send what must not be lost; when the service does not read even that, this ends."""
        socket = self._socket
        for message in messages:
            if socket is None or not socket.send_control(message):
                return

    def send_audio(self, frame: bytes) -> None:
        """Send audio over an open connection, or withhold and count it while the service does not
        read.
        """
        assert self._socket is not None
        self._socket.send_audio(frame)

    def let_go(self, limit_s: float) -> None:
        """Let its link go on without it; it is closed when it has lasted so long."""
        self.over.set()
        self._limit = asyncio.get_running_loop().call_later(limit_s, self.close)

    def close(self) -> None:
        """End it politely; nothing that still comes is taken."""
        if self._socket is not None:
            self._socket.close()

    async def closed(self) -> None:
        """Wait, not for long, for the end that `close` began."""
        if self._closing is not None:
            await asyncio.wait((self._closing,))

    def _make_socket(self, service: Service) -> AgentSocket:
        return AgentSocket(
            lambda: None,
            self._take_message,
            lambda is_slow: None,  # it is counted; STT audio is withheld meanwhile
            service.counts,
            service.ping_s,
            # A conversation is one message, and the next may follow while it is on its way.
            max_control_bytes=2 * MAX_MESSAGE_SIZE,
        )

    def _take_message(self, message: bytes) -> bool:
        item = wire.from_service(message)
        if not self._is_ready:
            if isinstance(item, Ready | Failure) and not self._greeting.done():
                self._is_ready = isinstance(item, Ready)
                self._greeting.set_result(item)
            return False
        if item is None or isinstance(item, Ready):
            return False
        return self._take(self, item, message)

    def _end(self, _: asyncio.Task[int]) -> None:
        if not self._greeting.done():
            self._greeting.set_result(None)
        self.over.set()
        if self._limit is not None:
            self._limit.cancel()
        self._socket = None  # it knows us: a cycle that only the garbage collector would find
        self._on_over(self)
