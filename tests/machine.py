"""How long the machine itself stood still: what no program on it can help."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["MachineWatch", "watch_machine"]

# On one core: sleep 2 ms at a time, note the worst lateness, and print it when asked to stop.
_WATCH = """
import os, sys, threading, time
os.sched_setaffinity(0, {int(sys.argv[1])})
stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
worst = 0.0
while not stop.is_set():
    due = time.monotonic() + 0.002
    time.sleep(0.002)
    worst = max(worst, time.monotonic() - due)
print(worst)
"""


class MachineWatch:
    """What was seen while the block ran."""

    worst_s = 0.0
    """The longest that a program which only wanted to wake up had to wait, on any core."""


@asynccontextmanager
async def watch_machine() -> AsyncIterator[MachineWatch]:
    """Watch every core while the block runs; the result is there after it."""
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _WATCH, str(core)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        for core in sorted(os.sched_getaffinity(0))
    ]
    watch = MachineWatch()
    try:
        yield watch
    finally:
        for process in processes:
            out, _ = await process.communicate(b"")  # its stdin ends
            watch.worst_s = max(watch.worst_s, float(out))
        print(f"the machine stood still for {watch.worst_s * 1000:.0f} ms at the most")
