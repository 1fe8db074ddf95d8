"""A TCP proxy between mediad and a peer that spoils what passes, while connections live."""

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from tests.half_open import vanish

__all__ = ["Breakable", "Fault", "Link", "Proxy", "proxy_to"]

_CHUNK_BYTES = 1 << 16
_WAITING_CHUNKS = 256  # beyond them it reads no more, as a slow network
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: no FIN, RST


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a connection; nothing by default."""

    delay_s: float = 0.0
    """Each chunk arrives so much later, in its place."""
    jitter_s: float = 0.0
    """And up to so much more, anew for each chunk."""
    drops_to_server: bool = False
    """What the client sends is swallowed."""
    drops_to_client: bool = False
    """What the server sends is swallowed."""
    is_frozen: bool = False
    """Half-open: nothing is read, nothing arrives, nothing closes."""
    one_byte: bool = False
    """Each byte is a segment of its own."""


class Breakable(Protocol):
    """One connection, or all of a proxy."""

    fault: Fault

    def reset(self) -> None:
        """End it with RST."""


class Link:
    """One connection: the client's socket, the server's, and what is wrong between them."""

    def __init__(self, client: socket.socket, server: socket.socket, fault: Fault) -> None:
        self._client = client
        self._server = server
        self._fault = fault
        self._moving = asyncio.Event()
        self.fault = fault

    @property
    def fault(self) -> Fault:
        """What is wrong; may be set at any time."""
        return self._fault

    @fault.setter
    def fault(self, fault: Fault) -> None:
        self._fault = fault
        if fault.is_frozen:
            self._moving.clear()
        else:
            self._moving.set()

    async def carry(self) -> None:
        """Move bytes both ways until both ends have closed, or one is reset."""
        self._task = asyncio.current_task()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._carry(self._client, self._server))
                group.create_task(self._carry(self._server, self._client))
        except* OSError:  # one end is gone, and so is the other
            pass
        finally:
            self._client.close()
            self._server.close()

    def reset(self) -> None:
        """End both connections with RST."""
        for end in (self._client, self._server):
            with contextlib.suppress(OSError):  # it is closed already
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        assert self._task is not None
        self._task.cancel()

    def vanish(self) -> None:
        """Be gone for both ends: nothing is told, nothing is acknowledged any more."""
        self.fault = Fault(is_frozen=True)
        for end in (self._client, self._server):
            vanish(end)

    async def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        # Due times rise: what is delayed less does not overtake.
        chunks: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_WAITING_CHUNKS)
        reading = asyncio.create_task(self._read(source, chunks))
        try:
            await self._write(sink, chunks)
        finally:
            reading.cancel()
            await asyncio.wait((reading,))

    async def _read(
        self, source: socket.socket, chunks: asyncio.Queue[tuple[float, bytes]]
    ) -> None:
        loop = asyncio.get_running_loop()
        data = b"-"
        while data:
            await self._moving.wait()
            try:
                data = await loop.sock_recv(source, _CHUNK_BYTES)
            except OSError:
                data = b""
            fault = self._fault
            is_dropped = fault.drops_to_server if source is self._client else fault.drops_to_client
            if data and is_dropped:
                continue
            late_s = fault.delay_s + random.uniform(0.0, fault.jitter_s)
            await chunks.put((loop.time() + late_s, data))

    async def _write(self, sink: socket.socket, chunks: asyncio.Queue[tuple[float, bytes]]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, data = await chunks.get()
            await asyncio.sleep(due - loop.time())
            await self._moving.wait()
            if not data:
                sink.shutdown(socket.SHUT_WR)
                return
            if not self._fault.one_byte:
                await loop.sock_sendall(sink, data)
                continue
            for byte in data:
                await loop.sock_sendall(sink, bytes((byte,)))
                await asyncio.sleep(0)


class Proxy:
    """Listens on a free port of 127.0.0.1 for one server; see `proxy_to`."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self.links: list[Link] = []
        """Every connection so far, oldest first."""
        self._fault = Fault()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return ("127.0.0.1", self.port)

    @property
    def fault(self) -> Fault:
        """What is wrong with all connections, those to come as well."""
        return self._fault

    @fault.setter
    def fault(self, fault: Fault) -> None:
        self._fault = fault
        for link in self.links:
            link.fault = fault

    def reset(self) -> None:
        """Reset all connections."""
        for link in self.links:
            link.reset()

    async def serve(self) -> None:
        """Take connections until cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                client, _ = await loop.sock_accept(self._listener)
                task = loop.create_task(self._serve_one(client))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        finally:
            self._listener.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve_one(self, client: socket.socket) -> None:
        server = socket.socket()
        server.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(server, self._address)
        except OSError:
            client.close()
            server.close()
            return
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link = Link(client, server, self._fault)
        self.links.append(link)
        await link.carry()


@asynccontextmanager
async def proxy_to(address: tuple[str, int]) -> AsyncIterator[Proxy]:
    """Run a proxy in front of a server while the block lasts."""
    proxy = Proxy(address)
    serving = asyncio.create_task(proxy.serve())
    try:
        yield proxy
    finally:
        serving.cancel()
        await asyncio.wait((serving,))
