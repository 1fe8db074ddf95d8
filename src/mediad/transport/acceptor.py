"""Accepts connections: in batches, and with a pause when no file can be opened. Not what they say.

asyncio's own servers log each failed accept and libuv's close what they cannot take; a caller of
ours gets 0x00, so that its dialplan goes on.
"""

import asyncio
import contextlib
import errno
import logging
import os
import socket
from collections.abc import Callable
from math import inf

from mediad.metrics import Metrics
from mediad.wire.audiosocket import HANGUP

__all__ = ["BACKLOG", "Acceptor", "bind", "turn_away"]

logger = logging.getLogger(__name__)

BACKLOG = 1024
"""Connections the kernel holds until they are accepted."""

_BATCH = 32  # accepted in one go; then others have their turn
_PAUSE_S = 0.1  # without files. Asterisk waits 2 s for a word from us
_LOG_EVERY_S = 1.0


def turn_away(sock: socket.socket) -> None:
    """Send 0x00 and close, waiting for nothing: who is turned away keeps no file of ours open."""
    with contextlib.suppress(OSError):
        sock.send(HANGUP)
    sock.close()


async def bind(host: str, port: int) -> list[socket.socket]:
    """Listen on every address that the host has, all with one port: a free one if ``port`` is 0.

    Raises:
        OSError: If one cannot be bound; it names the address.
    """
    infos = await asyncio.get_running_loop().getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    sockets: list[socket.socket] = []
    try:
        for family, _, _, _, address in dict.fromkeys(infos):
            try:
                sock = socket.socket(family, socket.SOCK_STREAM)
            except OSError as exc:  # a kernel without IPv6, whose names still have such addresses
                if exc.errno == errno.EAFNOSUPPORT and family == socket.AF_INET6:
                    continue
                raise
            sockets.append(sock)
            wanted = port or sockets[0].getsockname()[1]
            _listen(sock, (address[0], wanted, *address[2:]))
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _listen(sock: socket.socket, address: tuple[object, ...]) -> None:
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    try:
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as exc:
        raise OSError(exc.errno, exc.strerror, f"{address[0]}:{address[1]}") from exc


class Acceptor:
    """Accepts on one listening socket, which it owns.

    Args:
        accepted: Takes each connection, with the peer's address; the socket is its own from then.
    """

    def __init__(
        self,
        sock: socket.socket,
        accepted: Callable[[socket.socket, str], None],
        metrics: Metrics,
    ) -> None:
        self._sock = sock
        self._accepted = accepted
        self._metrics = metrics
        self._timer: asyncio.TimerHandle | None = None
        self._has_paused = False  # and nothing was accepted since
        self._logged_at = -inf
        # Given back when there are no others, to accept and send away who has waited.
        self._spare: int | None = _open_spare()

    def start(self) -> None:
        """Accept from now on, on the running loop."""
        asyncio.get_running_loop().add_reader(self._sock, self._accept)

    def stop(self) -> None:
        """Accept no more, and send away who waits to be accepted."""
        if self._timer is not None:
            self._timer.cancel()
        asyncio.get_running_loop().remove_reader(self._sock)
        self._send_away("stopping")
        self._sock.close()
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None

    def _accept(self) -> None:
        for _ in range(_BATCH):
            try:
                sock, address = self._sock.accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:  # it is gone already
                self._metrics.connections_closed.labels("empty").inc()
                continue
            except OSError as exc:  # no files, as a rule
                self._pause(exc)
                return
            self._has_paused = False
            sock.setblocking(False)
            self._accepted(sock, address[0])

    def _pause(self, exc: OSError) -> None:
        """Wait a moment for a file; whoever has waited for it in vain gets 0x00."""
        loop = asyncio.get_running_loop()
        self._metrics.accept_pauses.inc()
        if loop.time() - self._logged_at >= _LOG_EVERY_S:
            self._logged_at = loop.time()
            logger.warning("no connection can be accepted: %s; trying again", exc.strerror)
        if self._has_paused:
            self._send_away("no_files")
        self._has_paused = True
        loop.remove_reader(self._sock)
        self._timer = loop.call_later(_PAUSE_S, self.start)

    def _send_away(self, reason: str) -> None:
        if self._spare is not None:
            os.close(self._spare)
        with contextlib.suppress(OSError):  # nobody waits, or others have taken the spare file
            for _ in range(BACKLOG):
                sock, _ = self._sock.accept()
                self._metrics.connections_closed.labels(reason).inc()
                turn_away(sock)
        self._spare = _open_spare()


def _open_spare() -> int | None:
    try:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
