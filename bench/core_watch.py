"""Tells whether a core stood still: then nobody who runs there is to blame for what came late.

``python -m bench.core_watch CORE`` wants to run there every 5 ms until its input ends, and prints
the longest that it came too late, in milliseconds. A process of its own: within a busy one it would
wait for the others' Python.
"""

import os
import select
import subprocess
import sys
import time
from types import TracebackType
from typing import Self

from bench.process import ROOT, can_favour

__all__ = ["CoreWatch"]

_EVERY_S = 0.005
_BEFORE_ALL = os.sched_param(2)  # what is measured has 1 at most; see `bench.process.favour`
_STOP_S = 5.0


class CoreWatch:
    """Watches a core while the block lasts."""

    def __init__(self, core: int) -> None:
        self._core = core
        self.worst_ms = 0.0
        """The longest that nothing ran there; known after the block."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            (sys.executable, "-m", "bench.core_watch", str(self._core)),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            worst, _ = self._process.communicate(timeout=_STOP_S)
        finally:
            self._process.kill()
        self.worst_ms = float(worst)


def main() -> None:
    """Watch, and print."""
    os.sched_setaffinity(0, {int(sys.argv[1])})
    if can_favour():
        os.sched_setscheduler(0, os.SCHED_FIFO, _BEFORE_ALL)
    worst_s = 0.0
    while True:
        due = time.monotonic() + _EVERY_S
        ended, _, _ = select.select([sys.stdin], [], [], _EVERY_S)
        if ended:
            break
        worst_s = max(worst_s, time.monotonic() - due)
    print(1000 * worst_s)


if __name__ == "__main__":
    main()
