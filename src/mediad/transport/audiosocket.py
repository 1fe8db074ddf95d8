"""The AudioSocket listener: Asterisk connects, one TCP connection a call.

A connection that closes without a byte (a balancer's check, a channel that was not answered) is no
call. EOF is the normal hang-up.
"""

import asyncio
import contextlib
import logging
import os
import socket
import time
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import cast
from uuid import UUID

from mediad.call.registry import Registry
from mediad.call.session import Session
from mediad.config import AudioSocket
from mediad.line import CallerItem, Line, PlayoutRoom
from mediad.metrics import Metrics
from mediad.pump import Path
from mediad.transport import proxy_protocol
from mediad.transport.acceptor import Acceptor, bind, turn_away
from mediad.transport.proxy_protocol import ProxyHeaderError
from mediad.transport.source_rate import SourceRate, source_of
from mediad.wire.audiosocket import HANGUP, CallUuid, Violation

__all__ = ["MAX_WAITING", "AudioSocketListener"]

logger = logging.getLogger(__name__)

MAX_WAITING = 1024
"""Connections whose UUID has not come; one more is closed. Asterisk needs 1 ms."""

_HIGH_WATER_BYTES = 32 * 1024  # a second of unsent audio; then frames are dropped
_CLOSE_WAIT_S = 2.0  # for Asterisk to close after 0x00
_STOP_WAIT_S = 1.0  # the same, when we stop
_KEEPALIVE_PROBES = 3


class AudioSocketListener:
    """Listens for Asterisk."""

    def __init__(self, settings: AudioSocket, registry: Registry, metrics: Metrics) -> None:
        self.settings = settings
        self.registry = registry
        self.metrics = metrics
        self.playout_room = PlayoutRoom(settings.playout_max_bytes)
        metrics.watch(
            "playout_bytes",
            "Agent audio held for callers, of audiosocket.playout_max_bytes",
            lambda: self.playout_room.held_bytes,
        )
        self._rate = SourceRate(settings.max_connects_per_s)
        self._acceptors: list[Acceptor] = []
        self._connections: set[_Connection] = set()
        self._connecting: set[asyncio.Task[None]] = set()
        self._is_idle = asyncio.Event()
        self._is_idle.set()

    async def start(self) -> tuple[str, int]:
        """Listen; return the address.

        Raises:
            OSError: If the address cannot be bound.
        """
        sockets = await bind(self.settings.host, self.settings.port)
        self._acceptors = [Acceptor(sock, self._accepted, self.metrics) for sock in sockets]
        for acceptor in self._acceptors:
            acceptor.start()
        host, port = sockets[0].getsockname()[:2]
        return host, port

    async def stop(self) -> None:
        """Give Asterisk a moment to close its connections, then listen no more. Until then whoever
        comes is answered: to be refused would hang the caller up.
        """
        for connection in list(self._connections):
            if not connection.has_call:
                connection.hang_up()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_WAIT_S):
                await self._is_idle.wait()
        for acceptor in self._acceptors:
            acceptor.stop()
        self._acceptors = []
        await asyncio.gather(*self._connecting)
        for connection in list(self._connections):
            connection.cut()

    def reload(self, settings: AudioSocket) -> None:
        """Take other settings for the connections to come; the address stays."""
        if settings.max_connects_per_s != self.settings.max_connects_per_s:
            self._rate = SourceRate(settings.max_connects_per_s)
        self.settings = settings

    def _accepted(self, sock: socket.socket, address: str) -> None:
        """Take a connection, or send it away while that costs least: nothing is made for it yet."""
        source = source_of(address)
        if self.settings.proxy_protocol == "off":
            refusal = self.refusal_of(source)
        else:
            refusal = None if _is_in(self.settings.proxies, source) else "not_allowed"
            if refusal:
                logger.warning("connection from %s refused: not in audiosocket.proxies", source)
        if refusal:
            self.metrics.connections_closed.labels(refusal).inc()
            turn_away(sock)
            return
        task = asyncio.get_running_loop().create_task(self._connect(sock, source))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, sock: socket.socket, source: IPv4Address | IPv6Address) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(lambda: _Connection(self, source), sock)
        except OSError as exc:
            self.metrics.connections_closed.labels("empty").inc()
            logger.warning("connection from %s lost: %s", source, exc)
            sock.close()

    def refusal_of(self, source: IPv4Address | IPv6Address) -> str | None:
        """Return why whoever calls may not, as a counter's label; None when it may. This counts."""
        if not _is_in(self.settings.allow, source):
            logger.warning("connection from %s refused: not in audiosocket.allow", source)
            return "not_allowed"
        if not self._rate.take(source, time.monotonic()):
            logger.warning("connection from %s refused: audiosocket.max_connects_per_s", source)
            return "source_rate"
        return None

    def made(self, connection: "_Connection") -> None:
        """Take note of a connection."""
        self._connections.add(connection)
        self._is_idle.clear()

    def lost(self, connection: "_Connection") -> None:
        """Forget a connection."""
        self._connections.discard(connection)
        if not self._connections:
            self._is_idle.set()

    @property
    def is_crowded(self) -> bool:
        """Whether too many connections wait for their UUID."""
        return len(self._connections) - self.registry.live > MAX_WAITING


class _Connection(asyncio.Protocol):
    """One connection: bytes to the line, its items to the call, the call's messages out."""

    def __init__(self, listener: AudioSocketListener, source: IPv4Address | IPv6Address) -> None:
        self._listener = listener
        self._source = source  # the peer's, until a proxy has told the caller's
        settings = listener.settings
        # What has come of the proxy's header; None when there is none, or no more.
        self._proxy_header = None if settings.proxy_protocol == "off" else bytearray()
        self._line = Line(
            settings.codec, settings.g711, settings.playout_max_s, listener.playout_room
        )
        self._session: Session | None = None
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._path: Path | None = None  # which has the socket
        self._is_paused = False
        self._is_ended = False  # by us: what still comes is not read
        self._has_data = False

    # Called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of asyncio.Transport.
        self._transport = transport = cast(asyncio.Transport, transport)
        listener = self._listener
        listener.made(self)
        _set_options(transport, listener.settings.dead_peer_s)
        transport.set_write_buffer_limits(high=_HIGH_WATER_BYTES)
        if (refusal := listener.registry.refusal()) is not None:
            self._refuse(refusal, HANGUP)
        elif listener.is_crowded:
            logger.warning("connection refused: %d wait for their UUID", MAX_WAITING)
            self._refuse("max_waiting", HANGUP)
        else:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(listener.settings.uuid_timeout_s, self._give_up_waiting)

    def data_received(self, data: bytes) -> None:
        if self._is_ended:
            return
        self._has_data = True
        if self._proxy_header is not None:
            data = self._read_proxy_header(data)
            if not data:
                return
        items = self._line.receive_caller(data, time.monotonic())
        if not items:
            return
        if self._session is None and not self._begin(items):
            return
        assert self._session is not None
        self._session.receive(items)

    def eof_received(self) -> bool:
        # Asterisk has hung up. A peer that only stops sending and reads no more would keep the
        # connection open, but not the call.
        if self._session is not None:
            self._session.caller_gone("normal_clearing")
        return False  # close

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._leave_path()
        self._listener.lost(self)
        if self._session is not None:
            self._session.caller_gone(_cause_of(exc))
            self._session = None
        elif not self._is_ended:
            reason = "no_uuid" if self._has_data else "empty"
            self._listener.metrics.connections_closed.labels(reason).inc()
        self._is_ended = True
        self._transport = None

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False

    # The start of a call

    def _read_proxy_header(self, data: bytes) -> bytes:
        """Take the header of a balancer; return what came after it.

        What a balancer says for itself, after a header without an address, is judged as its own.
        """
        assert self._proxy_header is not None
        self._proxy_header += data
        try:
            header = proxy_protocol.parse(self._proxy_header)
        except ProxyHeaderError as exc:
            logger.warning("connection from %s closed: %s", self._source, exc)
            self._refuse("bad_proxy_header", b"")
            return b""
        if header is None:
            return b""
        rest = bytes(self._proxy_header[header.size :])
        self._has_data = bool(rest)
        if header.address is not None:
            self._source = source_of(header.address)
        elif not rest:  # a balancer's check says no more, and is nobody to judge
            return b""
        self._proxy_header = None
        if (refusal := self._listener.refusal_of(self._source)) is not None:
            self._refuse(refusal, HANGUP)
            if self._transport is not None:
                self._transport.close()  # as for who is turned away: it keeps no file open
            return b""
        return rest

    def _begin(self, items: list[CallerItem]) -> bool:
        first = items[0]
        if not isinstance(
            first, CallUuid
        ):  # the line lets nothing else through before the UUID but an end
            reason = first.reason if isinstance(first, Violation) else "no_uuid"
            detail = first.detail if isinstance(first, Violation) else "hang-up before the UUID"
            logger.warning("connection closed: %s", detail)
            self._refuse(reason, b"")
            return False
        return self._start_call(first.uuid)

    def _start_call(self, call_id: UUID) -> bool:
        self._stop_timer()
        started = self._listener.registry.start(call_id, self._line, self)
        if isinstance(started, str):
            logger.warning("call %s refused: %s", call_id, started)
            self._refuse(started, HANGUP)
            return False
        self._session = started
        self._move_to_path(started.path)
        return True

    def _move_to_path(self, path: Path | None) -> None:
        """Let the call's path have the socket: its line has the start of what is not complete."""
        transport = self._transport
        if path is None or transport is None or transport.get_write_buffer_size():
            return
        if path.take_caller(transport.get_extra_info("socket").fileno(), owner=self):
            transport.pause_reading()
            self._path = path

    def _leave_path(self) -> None:
        """Have the socket again, and send the rest of a message that was begun."""
        path, self._path = self._path, None
        if path is None or self._transport is None:
            return
        unsent = path.release_caller()
        if self._transport.is_closing():
            return
        if unsent:
            self._transport.write(unsent)
        self._transport.resume_reading()

    def _refuse(self, reason: str, farewell: bytes) -> None:
        self._listener.metrics.connections_closed.labels(reason).inc()
        self._end(farewell)

    def _give_up_waiting(self) -> None:
        if self._has_data:
            logger.warning("connection closed: its UUID did not come in time")
        self._refuse("uuid_timeout", b"")

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # Called by the session and the listener

    @property
    def has_call(self) -> bool:
        """Whether its UUID has come."""
        return self._session is not None

    def write(self, message: bytes) -> None:
        """Write one message in one piece, or drop and count it while Asterisk does not read."""
        if self._transport is None or self._is_ended:
            return
        if self._path is not None:
            if not self._path.write_caller(message):
                self.drop_audio()
        elif self._is_paused:
            self.drop_audio()
        else:
            self._transport.write(message)

    def drop_audio(self) -> None:
        """Count 20 ms that Asterisk did not take."""
        self._listener.metrics.caller_audio_dropped.inc()

    def on_path_end(self, error: int) -> None:
        """Take the socket back. asyncio reads its end, but an error is told only once."""
        self._leave_path()
        if error and self._session is not None:
            self._session.caller_gone(_cause_of(OSError(error, os.strerror(error))))
            self.cut()

    def hang_up(self) -> None:
        """Send 0x00 and close."""
        self._end(HANGUP)

    def abort(self) -> None:
        """Close at once."""
        self._end(b"")

    def cut(self) -> None:
        """Close at once, though 0x00 may not have been read."""
        self._leave_path()
        if self._transport is not None:
            self._transport.abort()

    def _end(self, farewell: bytes) -> None:
        transport = self._transport
        if transport is None or self._is_ended:
            return
        self._is_ended = True
        self._stop_timer()
        self._leave_path()
        if not farewell:
            transport.abort()
            return
        # Closing with bytes unread would reset the connection, perhaps before Asterisk has read the
        # 0x00: so only our side is closed, and Asterisk is given time to close its own.
        transport.write(farewell)
        transport.write_eof()
        self._timer = asyncio.get_running_loop().call_later(_CLOSE_WAIT_S, transport.abort)


def _is_in(
    networks: tuple[IPv4Network | IPv6Network, ...], source: IPv4Address | IPv6Address
) -> bool:
    """Tell whether the address is in one of the networks; if there are none, every address is."""
    return not networks or any(source in network for network in networks)


def _cause_of(end: Exception | None) -> str:
    # A reset is a hang-up too: Asterisk closes with our last frames unread. Only a peer that
    # keep-alive or TCP_USER_TIMEOUT found dead did not hang up.
    return "network_out_of_order" if isinstance(end, TimeoutError) else "normal_clearing"


def _set_options(transport: asyncio.Transport, dead_peer_s: float) -> None:
    sock: socket.socket = transport.get_extra_info("socket")
    interval_s = max(1, int(dead_peer_s / (_KEEPALIVE_PROBES + 1)))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, interval_s)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, interval_s)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _KEEPALIVE_PROBES)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(dead_peer_s * 1000))
