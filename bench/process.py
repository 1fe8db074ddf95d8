"""How the bench starts programs: pinned to a core, before all others, and what they are told."""

import os
import socket
from functools import cache
from pathlib import Path

__all__ = ["CACHE", "ROOT", "BenchError", "can_favour", "choose_cores", "favour", "free_port"]

ROOT = Path(__file__).parents[1]
CACHE = ROOT / ".cache/bench"

_FIRST = os.sched_param(1)


class BenchError(Exception):
    """The bench cannot go on; says what to do."""


def choose_cores() -> tuple[int, int]:
    """Return the core for the measured program and the one for the generator.

    Raises:
        BenchError: If there is only one.
    """
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise BenchError(
            "the bench needs two cores, one to measure and one for the generator; "
            f"this process may use {len(cores)}"
        )
    return cores[0], cores[-1]


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@cache
def can_favour() -> bool:
    """Tell whether programs may be given a real-time priority: it takes a privilege."""
    usual = os.sched_getscheduler(0)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, _FIRST)
    except PermissionError:
        return False
    os.sched_setscheduler(0, usual, os.sched_param(0))
    return True


def favour(pid: int, core: int) -> None:
    """Give a program that has just started a core, and let it go before all others there.

    What else runs on the machine would otherwise be measured, too: niceness does not keep it away
    where the kernel groups sessions (autogroup), nor from the few milliseconds of its turn.
    """
    os.sched_setaffinity(pid, {core})
    if can_favour():
        os.sched_setscheduler(pid, os.SCHED_FIFO, _FIRST)
