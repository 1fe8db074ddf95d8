"""The proxy spoils what passes as it says, and nothing when it says nothing."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import pytest

from tests.faults.proxy import Fault, Link, proxy_to

SHORT_S = 0.1
CHUNKS = [bytes([number]) * 500 for number in range(20)]


class Ends(NamedTuple):
    """Both ends of one connection through a proxy."""

    link: Link
    client: tuple[asyncio.StreamReader, asyncio.StreamWriter]
    server: tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def connected() -> AsyncIterator[Ends]:
    """Connect to a server by way of a proxy."""
    accepted: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    server = await asyncio.start_server(lambda *ends: accepted.put_nowait(ends), "127.0.0.1", 0)
    async with proxy_to(server.sockets[0].getsockname()) as proxy:
        client = await asyncio.open_connection(*proxy.address)
        far = await accepted.get()
        async with asyncio.timeout(5):
            (link,) = proxy.links
            yield Ends(link, client, far)
        for _, writer in (client, far):
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
    server.close()
    await server.wait_closed()


async def is_quiet(reader: asyncio.StreamReader) -> bool:
    """Return whether nothing comes, and no end, for a short time."""
    try:
        async with asyncio.timeout(SHORT_S):
            await reader.read(1)
    except TimeoutError:
        return True
    return False


@pytest.mark.parametrize("fault", [Fault(), Fault(one_byte=True), Fault(jitter_s=0.01)])
async def test_bytes_arrive_in_order_and_the_end_after_them(fault: Fault) -> None:
    async with connected() as ends:
        ends.link.fault = fault
        for chunk in CHUNKS:
            ends.client[1].write(chunk)
            await asyncio.sleep(0)
        ends.client[1].write_eof()
        assert await ends.server[0].read() == b"".join(CHUNKS)
        ends.server[1].write(b"bye")
        ends.server[1].close()
        assert await ends.client[0].read() == b"bye"


async def test_delay_holds_bytes_back() -> None:
    async with connected() as ends:
        ends.link.fault = Fault(delay_s=SHORT_S)
        began = time.monotonic()
        ends.client[1].write(b"a")
        await ends.server[0].readexactly(1)
        assert time.monotonic() - began >= SHORT_S


async def test_one_way_is_dropped_and_the_other_is_not() -> None:
    async with connected() as ends:
        ends.link.fault = Fault(drops_to_server=True)
        ends.client[1].write(b"lost")
        ends.server[1].write(b"kept")
        assert await ends.client[0].readexactly(4) == b"kept"
        assert await is_quiet(ends.server[0])
        ends.link.fault = Fault()
        ends.client[1].write(b"more")
        assert await ends.server[0].readexactly(4) == b"more"


async def test_half_open_passes_neither_bytes_nor_ends_until_it_is_over() -> None:
    async with connected() as ends:
        ends.link.fault = Fault(is_frozen=True)
        ends.client[1].write(b"late")
        ends.client[1].write_eof()
        assert await is_quiet(ends.server[0])
        ends.link.fault = Fault()
        assert await ends.server[0].read() == b"late"


async def test_ends_of_a_link_that_vanished_hear_nothing_and_time_out() -> None:
    async with connected() as ends:
        ends.link.vanish()
        for reader, writer in (ends.client, ends.server):
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 500)
            writer.write(b"lost")
            with pytest.raises(TimeoutError):
                await reader.read()


async def test_reset_reaches_both_ends() -> None:
    async with connected() as ends:
        ends.link.reset()
        for reader, _ in (ends.client, ends.server):
            with pytest.raises(ConnectionResetError):
                await reader.read()


async def test_one_byte_is_read_at_a_time() -> None:
    async with connected() as ends:
        ends.link.fault = Fault(one_byte=True)
        ends.client[1].write(bytes(2000))
        reads = 0
        received = 0
        while received < 2000:
            received += len(await ends.server[0].read(2000))
            reads += 1
        assert reads > 20
