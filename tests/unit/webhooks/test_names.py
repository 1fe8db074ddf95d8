"""Names that hang take their own threads, no others', and not all of those."""

import asyncio
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextvars import copy_context
from typing import Any

import pytest

from mediad import config
from mediad.webhooks.names import MAX_OF_CUSTOMER, MAX_THREADS, Names, asking_customer
from mediad.webhooks.sender import Outcome, Sender

TIMEOUT_S = 0.2


class NameServer:
    """In place of the system's look-ups: names that begin with ``hang`` get no answer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: Counter[str] = Counter()
        self.answers = threading.Event()
        self._system = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self._getaddrinfo)

    def _getaddrinfo(self, host: str, *args: Any, **options: Any) -> Any:
        self.asked[host] += 1
        if host.startswith("hang"):
            self.answers.wait(20)
        return self._system("127.0.0.1", *args, **options)


@pytest.fixture
def name_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServer]:
    """A name server; in the end it answers everything."""
    server = NameServer(monkeypatch)
    yield server
    server.answers.set()


async def resolve(names: Names, host: str, customer_id: str = "one") -> str:
    """Return a name's address, or why it has none."""

    async def ask() -> str:
        asking_customer.set(customer_id)
        try:
            (found,) = await names.resolve(host, 80)
        except OSError as exc:
            return exc.strerror or ""
        assert (found["hostname"], found["port"]) == (host, 80)
        return found["host"]

    return await asyncio.create_task(ask(), context=copy_context())


async def hang(names: Names, count: int, customer_id: str = "one") -> None:
    """Have so many names of a customer hang."""
    hosts = [f"hang-{customer_id}-{number}" for number in range(count)]
    assert set(await asyncio.gather(*(resolve(names, h, customer_id) for h in hosts))) <= {
        "no address within 0.2 s",
        "too many other names have no address in time",
    }


async def test_what_hangs_leaves_other_names_their_threads(name_server: NameServer) -> None:
    names = Names(TIMEOUT_S)
    await hang(names, MAX_OF_CUSTOMER - 1)
    for number in range(17):
        assert await resolve(names, f"good{number}") == "127.0.0.1"


async def test_a_customer_has_a_share_and_others_do_not_notice(name_server: NameServer) -> None:
    names = Names(TIMEOUT_S)
    await hang(names, 20)
    assert sum(name_server.asked.values()) == MAX_OF_CUSTOMER
    assert "too many" in await resolve(names, "good")
    assert await resolve(names, "good", "two") == "127.0.0.1"


async def test_threads_are_bounded(name_server: NameServer) -> None:
    names = Names(TIMEOUT_S)
    for number in range(6):
        await hang(names, MAX_OF_CUSTOMER, f"customer{number}")
    assert sum(name_server.asked.values()) == MAX_THREADS


async def test_a_name_that_hangs_is_asked_for_once(name_server: NameServer) -> None:
    names = Names(TIMEOUT_S)
    first = await asyncio.gather(*(resolve(names, "hang") for _ in range(4)))
    async with asyncio.timeout(TIMEOUT_S / 2):  # it is not waited for any more
        again = await resolve(names, "hang", "two")
    assert {*first, again} == {"no address within 0.2 s"}
    assert name_server.asked == {"hang": 1}
    name_server.answers.set()
    async with asyncio.timeout(5):
        while await resolve(names, "hang") != "127.0.0.1":  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_whoever_waits_goes_on_when_a_thread_is_free(name_server: NameServer) -> None:
    names = Names(5.0)
    hanging = [asyncio.create_task(resolve(names, f"hang{n}")) for n in range(MAX_OF_CUSTOMER)]
    waiting = [asyncio.create_task(resolve(names, f"good{n}")) for n in range(20)]
    await asyncio.sleep(0.05)
    assert not any(task.done() for task in waiting)
    name_server.answers.set()
    assert set(await asyncio.gather(*hanging, *waiting)) == {"127.0.0.1"}


async def test_what_was_found_is_kept_and_what_was_not_is_asked_for_again(
    name_server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = Names(TIMEOUT_S)
    for _ in range(3):
        assert await resolve(names, "good") == "127.0.0.1"
    assert name_server.asked == {"good": 1}

    def refuse(host: str, *_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert await resolve(names, "bad") == "Name or service not known"
    monkeypatch.undo()
    assert "label too long" in await resolve(names, 64 * "x")


async def test_requests_to_names_that_hang_fail_and_nobody_elses_look_ups_wait(
    name_server: NameServer,
) -> None:
    sender = Sender(config.Webhooks(timeout_s=2 * TIMEOUT_S))
    try:

        async def post(number: int) -> Outcome:
            return await sender.post("one", f"http://hang{number}.example.com/", {}, b"{}")

        # More than a loop has threads for look-ups of its own.
        outcomes = await asyncio.gather(*(post(number) for number in range(20)))
        assert all("in time" in str(o.error) or "0.2 s" in str(o.error) for o in outcomes)
        async with asyncio.timeout(TIMEOUT_S):
            assert await asyncio.get_running_loop().getaddrinfo("agent", 8765)
    finally:
        await sender.close()
