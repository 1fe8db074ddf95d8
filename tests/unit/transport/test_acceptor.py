"""Accepting: batches, a process without files, the end. Real sockets, a shortage that is played."""

import asyncio
import errno
import logging
import os
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from mediad.metrics import Metrics
from mediad.transport import acceptor
from mediad.transport.acceptor import Acceptor, bind, turn_away

CLOSED = "mediad_audiosocket_connections_closed_total"
SOMAXCONN = Path("/proc/sys/net/core/somaxconn").read_text()
PAUSES = "mediad_audiosocket_accept_pauses_total"


class Scarce(socket.socket):
    """A listening socket that may lack files, until one is given back, and whose peers may go."""

    has_files = True
    gone = 0

    def accept(self) -> tuple[socket.socket, object]:
        if self.gone:
            self.gone -= 1
            raise ConnectionAbortedError(errno.ECONNABORTED, os.strerror(errno.ECONNABORTED))
        if not self.has_files:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return super().accept()


class Accepting:
    """An acceptor, and what it has accepted."""

    def __init__(self) -> None:
        self.sock = Scarce()
        self.sock.bind(("127.0.0.1", 0))
        self.sock.setblocking(False)
        self.sock.listen(acceptor.BACKLOG)
        self.address = self.sock.getsockname()
        self.metrics = Metrics()
        self.accepted: list[tuple[socket.socket, str]] = []
        self.acceptor = Acceptor(
            self.sock, lambda sock, address: self.accepted.append((sock, address)), self.metrics
        )

    def metric(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not holds():  # noqa: ASYNC110 (it has no event)
                await asyncio.sleep(0.005)


@asynccontextmanager
async def accepting() -> AsyncIterator[Accepting]:
    made = Accepting()
    made.acceptor.start()
    yield made
    made.acceptor.stop()
    for sock, _ in made.accepted:
        sock.close()


@contextmanager
def connected(address: tuple[str, int], count: int = 1) -> Iterator[list[socket.socket]]:
    socks = [socket.create_connection(address, timeout=5) for _ in range(count)]
    yield socks
    for sock in socks:
        sock.close()


async def test_more_than_a_batch_is_accepted_with_its_address() -> None:
    async with accepting() as it:
        with connected(it.address, 150):
            await it.until(lambda: len(it.accepted) == 150)
        assert {address for _, address in it.accepted} == {"127.0.0.1"}
        assert not it.accepted[0][0].getblocking()


async def test_who_is_gone_before_it_is_accepted_is_counted() -> None:
    async with accepting() as it:
        it.sock.gone = 2
        with connected(it.address):
            await it.until(lambda: len(it.accepted) == 1)
        assert it.metric(CLOSED, reason="empty") == 2


async def test_without_files_it_waits_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    async with accepting() as it:
        it.sock.has_files = False
        with connected(it.address):
            await it.until(lambda: it.metric(PAUSES) == 1)
            await asyncio.sleep(0.02)
            assert it.metric(PAUSES) <= 2  # it does not spin; this process may stand still
            it.sock.has_files = True
            await it.until(lambda: len(it.accepted) == 1)
        assert it.metric(CLOSED, reason="no_files") == 0
    assert {record.getMessage() for record in caplog.records} == {
        f"no connection can be accepted: {os.strerror(errno.EMFILE)}; trying again"
    }


async def test_who_waits_in_vain_gets_hangup(monkeypatch: pytest.MonkeyPatch) -> None:
    close = os.close
    async with accepting() as it:

        def give_back(fd: int) -> None:
            close(fd)
            it.sock.has_files = True

        def none_left(sock: socket.socket) -> None:
            it.sock.has_files = False
            turn_away(sock)

        with monkeypatch.context() as patch, connected(it.address) as (sock,):
            patch.setattr(os, "close", give_back)
            patch.setattr(acceptor, "turn_away", none_left)
            it.sock.has_files = False
            await it.until(lambda: it.metric(CLOSED, reason="no_files") == 1)
            assert sock.recv(10) == b"\x00\x00\x00"
            assert sock.recv(10) == b""
        assert it.accepted == []


async def test_shortage_is_told_once_a_second(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(acceptor, "_PAUSE_S", 0.01)
    caplog.set_level(logging.WARNING)
    began = time.monotonic()
    async with accepting() as it:
        it.sock.has_files = False
        with connected(it.address):
            await it.until(lambda: it.metric(PAUSES) >= 20)
        assert 1 <= len(caplog.records) <= 1 + int(time.monotonic() - began)


async def test_who_waits_at_the_end_gets_hangup() -> None:
    with ExitStack() as stack:
        async with accepting() as it:
            (sock,) = stack.enter_context(connected(it.address))  # the loop has not seen it
        assert sock.recv(10) == b"\x00\x00\x00"
        assert it.metric(CLOSED, reason="stopping") == 1
        assert it.accepted == []


async def test_every_address_of_a_host_is_listened_on_with_one_port() -> None:
    sockets = await bind("localhost", 0)
    try:
        assert len({sock.getsockname()[1] for sock in sockets}) == 1
        assert "127.0.0.1" in {sock.getsockname()[0] for sock in sockets}
    finally:
        for sock in sockets:
            sock.close()


async def test_so_many_connections_wait_in_the_kernel() -> None:
    (sock,) = await bind("127.0.0.1", 0)
    with sock:
        # struct tcp_info: a listening socket has what listen(2) has asked for in tcpi_sacked.
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
    assert struct.unpack_from("I", info, 28) == (min(1024, int(SOMAXCONN)),)


async def test_address_that_is_taken_is_named() -> None:
    (sock,) = await bind("127.0.0.1", 0)
    with sock, pytest.raises(OSError, match=r"in use: '127\.0\.0\.1:\d+'"):
        await bind("127.0.0.1", sock.getsockname()[1])


async def test_host_that_does_not_exist_is_an_oserror() -> None:
    with pytest.raises(OSError, match="not known|resolution"):
        await bind("no-such-host.invalid", 0)
