"""Callers that come and go while mediad stands still: each is a call in its books, or a connection
that it has counted as closed unread.
"""

import asyncio
import signal
import socket
import struct
from pathlib import Path
from uuid import uuid4

import pytest

from mediad.caller import Caller
from mediad.config import Database as DatabaseSettings
from mediad.wire.audiosocket import uuid_message
from tests.books import as_environment, journal_empty, read_rows
from tests.fakes.agent import FakeAgent
from tests.mediad_process import MediadProcess, run_mediad
from tests.soak.callers import Made
from tests.soak.check import check_books, closed_connections, totals

EACH = 10  # callers of a kind
TALK_S = 0.2
WAIT_S = 30.0

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: no time for what is unsent


def gone(call_id: str, ended: str) -> Made:
    """Return a caller that has heard nothing."""
    return Made(call_id, False, False, 0, 0, 0, 0.0, ended)


async def hang_up(address: tuple[str, int]) -> Made:
    """Call, talk and hang up, as Asterisk does."""
    async with Caller(*address, connect_timeout_s=WAIT_S) as caller:
        await asyncio.sleep(TALK_S)
    return gone(str(caller.call_id), "caller: closed")


def reset(address: tuple[str, int]) -> Made:
    """Call and reset the connection."""
    call_id = uuid4()
    with socket.create_connection(address) as sock:
        sock.sendall(uuid_message(call_id))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    return gone(str(call_id), "caller: reset")


def say_nothing(address: tuple[str, int]) -> Made:
    """Connect and close, as somebody who was late with the UUID."""
    socket.create_connection(address).close()
    return gone(str(uuid4()), "caller: closed")


async def all_told(mediad: MediadProcess, callers: int) -> str:
    """Return the metrics once they have told of so many callers, and no call lives."""
    async with asyncio.timeout(WAIT_S):
        while True:
            metrics = await mediad.get("/metrics")
            counted = totals(metrics)
            told = counted["mediad_calls_started_total"] + closed_connections(metrics).total()
            if told >= callers and counted["mediad_calls"] == 0:
                return metrics
            await asyncio.sleep(0.1)


async def test_callers_while_mediad_stands_still_are_calls_or_counted(tmp_path: Path) -> None:
    settings = DatabaseSettings(directory=tmp_path)
    async with (
        FakeAgent() as agent,
        run_mediad(agent.url, **as_environment(settings)) as mediad,
    ):
        mediad.signal(signal.SIGSTOP)
        try:
            resets = [reset(mediad.audiosocket) for _ in range(EACH)]
            silent = [say_nothing(mediad.audiosocket) for _ in range(EACH)]
            hung_up = await asyncio.gather(*(hang_up(mediad.audiosocket) for _ in range(EACH)))
        finally:
            mediad.signal(signal.SIGCONT)
        made = [*resets, *silent, *hung_up]
        metrics = await all_told(mediad, len(made))
        await journal_empty(mediad, WAIT_S)
    rows = await read_rows(settings)
    unread = check_books(made, rows, metrics)
    # What was sent stays readable after the end, even after a reset: of those no call is lost.
    assert {call.call_id for call in unread} == {call.call_id for call in silent}
    with pytest.raises(AssertionError):  # nobody is excused whom mediad has not counted
        check_books([*made, gone(str(uuid4()), "caller: closed")], rows, metrics)
