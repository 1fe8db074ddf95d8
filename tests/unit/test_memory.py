"""What glibc keeps of what was freed, in processes of their own: the heap is one of the process."""

import os
import platform
import subprocess
import sys
from typing import NamedTuple

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt(3) is glibc's")

MIB = 1 << 20

# One large block, freed, raises what glibc keeps. Then many of a MiB come and go, and then threads
# have memory at the same time. Told are the bytes that stayed, and what glibc says of its arenas.
PROGRAM = f"""
import ctypes, os, sys, threading
from mediad.memory import keep_little

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

if "keep little" in sys.argv:
    assert keep_little()
large = bytearray(24 * {MIB})
del large
before = resident()
blocks = [bytearray({MIB}) for _ in range(20)]
assert resident() - before > 19 * {MIB}
del blocks
print(resident() - before, flush=True)

THREADS = 6
together = threading.Barrier(THREADS + 1)

def work():
    blocks = [bytearray(10_000) for _ in range(20)]
    together.wait()
    together.wait()

for _ in range(THREADS):
    threading.Thread(target=work).start()
together.wait()
libc = ctypes.CDLL(None)
libc.malloc_info(0, ctypes.c_void_p.in_dll(libc, "stdout"))
libc.fflush(None)
together.wait()
"""


class Kept(NamedTuple):
    """What a process still has."""

    freed: int
    """Of 20 MiB that it freed, in bytes."""
    arenas: int


def run(*arguments: str, **environment: str) -> Kept:
    """Run the program with nothing else in the environment that glibc or Python would look at."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MALLOC_", "GLIBC_", "LD_PRELOAD", "PYTHONMALLOC"))
    }
    out = subprocess.check_output(
        (sys.executable, "-c", PROGRAM, *arguments), text=True, env=inherited | environment
    )
    freed, _, info = out.partition("\n")
    return Kept(int(freed), info.count("<heap nr="))


def test_what_is_freed_goes_back_to_the_system() -> None:
    kept = run("keep little")
    assert kept.freed < MIB
    assert kept.arenas == 2


def test_without_it_glibc_keeps_it_in_an_arena_for_each_thread() -> None:
    kept = run()
    assert kept.freed > 19 * MIB
    assert kept.arenas > 2


def test_what_the_environment_sets_stays() -> None:
    assert run("keep little", MALLOC_ARENA_MAX="1").arenas == 1
