"""How many instructions mediad executes for a frame: the same today and tomorrow, busy machine or
not. ``python -m bench.instructions`` prints it.

Callgrind counts what the process executes outside the kernel, only while the generator measures:
neither its start nor the set-up of the calls is in it. The counts of two runs differ by a few
percent, for a slower machine finds more to do in one go.
"""

import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from bench.build import Programs, build, build_window
from bench.generator import generate
from bench.process import CACHE, BenchError, choose_cores, free_port
from bench.targets import Kind, running

__all__ = ["BUDGET", "CALLS", "count_instructions"]

CALLS = 40
"""As many as mediad carries under callgrind without falling behind. With fewer, what it does
besides counts for more, and differs from run to run.
"""

BUDGET = 24_000
"""For a frame to the agent, one back, and what a tick does, with CPython 3.11 on x86-64. Measured
were 20,800 to 21,300; on a busy machine it is less. Lower it when mediad gets cheaper.
"""

_RATE = 5  # calls a second: callgrind is slow, and what a call begins with is not counted
_WARM_S = 3  # until the last calls are set up: under callgrind that takes its time, too
_SECONDS = 6
_COLLECTED = re.compile(r"Collected +: (\d+)")


def count_instructions(
    programs: Programs, valgrind: Path, environment: Mapping[str, str] | None = None
) -> float:
    """Return how many instructions a frame takes, there and back.

    Args:
        valgrind: The program; its headers and tools are beside it.
        environment: What it needs to run, besides our own.

    Raises:
        BenchError: If nothing could be counted.
    """
    cores = choose_cores()
    root = valgrind.parents[1]
    out = CACHE / "callgrind.out"
    wrapper = (
        *(str(valgrind), "--tool=callgrind", "--instr-atstart=no"),
        f"--callgrind-out-file={out}",
    )
    extra = {
        **(environment or {}),
        "LD_PRELOAD": str(build_window(root / "include")),
        "PYTHONHASHSEED": "0",
    }
    if (root / "libexec/valgrind").is_dir():  # it may have been unpacked and not installed
        extra["VALGRIND_LIB"] = str(root / "libexec/valgrind")
    context = running(Kind.MEDIAD, programs, free_port(), cores[0], wrapper=wrapper, extra=extra)
    with context as target:
        options = (
            *("--calls", str(CALLS), "--rate", str(_RATE)),
            *("--seconds", str(_SECONDS), "--warm", str(_WARM_S), "--signals"),
        )
        planned_s = CALLS / _RATE + _WARM_S + _SECONDS
        result = generate(programs, target, cores, "calls", *options, seconds=planned_s)
    found = _COLLECTED.search(target.log.read_text())
    if found is None or result.failed:
        raise BenchError(f"callgrind counted nothing, or calls failed; see {target.log}")
    return 2 * int(found[1]) / (result.counted("sent") + result.counted("agent_sent"))


def main() -> None:
    """Count and print."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        sys.exit("bench: there is no valgrind here (Debian: apt-get install valgrind)")
    try:
        counted = count_instructions(build(), Path(valgrind))
    except BenchError as exc:
        sys.exit(f"bench: {exc}")
    print(f"{counted:.0f} instructions for a frame with {CALLS} calls; budget {BUDGET}")


if __name__ == "__main__":
    main()
