"""Names of endpoints, looked up in threads of their own.

The event loop's own look-ups share a few threads with the whole process, on uvloop two at a time:
two dead name servers would keep calls from their agents. A look-up cannot be ended, and a thread is
gone until the system gives it up. So they are few, a customer has a share of them, and a name has
one at most; nobody waits for them when the process ends.
"""

import asyncio
import socket
import threading
from collections import Counter
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass

from aiohttp.abc import AbstractResolver, ResolveResult

__all__ = ["MAX_OF_CUSTOMER", "MAX_THREADS", "Names", "asking_customer"]

MAX_THREADS = 32
"""Look-ups at once."""

MAX_OF_CUSTOMER = 8
"""Of those for one customer; it has twenty webhooks at most."""

_KEEP_S = 10.0  # what was found

asking_customer: ContextVar[str] = ContextVar("asking_customer")
"""For whom a name is looked up: aiohttp has no way to say it."""

Found = list[tuple[socket.AddressFamily, int, str]]
"""Addresses, each with its family and protocol."""


@dataclass(slots=True)
class _LookUp:
    """A name's, while it runs and a while after."""

    found: asyncio.Future[Found | OSError]
    is_late: bool = False
    """Whether somebody has given it up."""


class Names(AbstractResolver):
    """Finds addresses, on the loop that it is made on.

    Whoever waits for a thread is one of an endpoint's few requests, so these need no other bound.

    Args:
        timeout_s: How long to wait for a thread, and then for an answer, in seconds.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._look_ups: dict[str, _LookUp] = {}
        self._threads: Counter[str] = Counter()  # by customer
        self._freed = asyncio.Event()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return a host's addresses of all families.

        Raises:
            OSError: If there are none, or none in time. While a name's look-up goes on after that,
                nobody waits for it any more.
        """
        look_up = await self._begun(host)
        if not look_up.is_late:
            await asyncio.wait((look_up.found,), timeout=self._timeout_s)
        if not look_up.found.done():
            look_up.is_late = True
            raise _error(f"no address within {self._timeout_s:g} s")
        found = look_up.found.result()
        if isinstance(found, OSError):
            raise found
        flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        return [
            ResolveResult(
                hostname=host, host=address, port=port, family=of, proto=protocol, flags=flags
            )
            for of, protocol, address in found
        ]

    async def close(self) -> None:
        """Do nothing: what runs cannot be ended."""

    async def _begun(self, host: str) -> _LookUp:
        """Return a name's look-up; begin it when there is room.

        Raises:
            OSError: If there is no room in time.
        """
        customer_id = asking_customer.get()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._timeout_s):
                while (look_up := self._look_ups.get(host)) is None:
                    if self._has_room(customer_id):
                        return self._begin(host, customer_id)
                    await self._freed.wait()
                return look_up
        raise _error("too many other names have no address in time")

    def _has_room(self, customer_id: str) -> bool:
        is_full = self._threads.total() >= MAX_THREADS
        return not is_full and self._threads[customer_id] < MAX_OF_CUSTOMER

    def _begin(self, host: str, customer_id: str) -> _LookUp:
        def work() -> None:
            found = _addresses(host)
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._end, host, customer_id, found)

        # A pool's threads would be waited for when the process ends.
        threading.Thread(target=work, name="mediad-names", daemon=True).start()
        self._threads[customer_id] += 1
        look_up = self._look_ups[host] = _LookUp(self._loop.create_future())
        return look_up

    def _end(self, host: str, customer_id: str, found: Found | OSError) -> None:
        self._threads -= Counter((customer_id,))  # and forget who has none
        self._look_ups[host].found.set_result(found)
        if isinstance(found, OSError):
            del self._look_ups[host]
        else:
            self._loop.call_later(_KEEP_S, self._look_ups.pop, host)
        self._freed.set()  # wakes all who wait now
        self._freed.clear()


def _addresses(host: str) -> Found | OSError:
    """Return a host's addresses, or why there are none. Takes as long as the system likes."""
    try:
        infos = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    except OSError as exc:
        return exc
    except UnicodeError as exc:  # it is no name
        return _error(str(exc))
    return [(family, protocol, str(address[0])) for family, _, protocol, _, address in infos]


def _error(why: str) -> OSError:
    return socket.gaierror(socket.EAI_AGAIN, why)
