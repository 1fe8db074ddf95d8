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

__all__ = ["BUDGETS", "count_instructions"]

BUDGETS = {20: 27_000, 80: 16_000}
"""For a frame to the agent, one back, and what a tick does, by the number of calls, with CPython
3.11 on x86-64. Measured were 23,800 and 13,700 at most. With few calls the loop is woken for each
frame. Lower them when mediad gets cheaper.
"""

_RATE = 5  # calls a second: callgrind is slow, and what a call begins with is not counted
_SECONDS = 6
_COLLECTED = re.compile(r"Collected +: (\d+)")


def count_instructions(
    programs: Programs,
    calls: int,
    valgrind: Path,
    environment: Mapping[str, str] | None = None,
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
            *("--calls", str(calls), "--rate", str(_RATE)),
            *("--seconds", str(_SECONDS), "--warm", "1", "--signals"),
        )
        planned_s = calls / _RATE + _SECONDS
        result = generate(programs, target, cores, "calls", *options, seconds=planned_s)
    found = _COLLECTED.search(target.log.read_text())
    if found is None or result.failed:
        raise BenchError(f"callgrind counted nothing, or calls failed; see {target.log}")
    return 2 * int(found[1]) / (result.window["sent"] + result.window["agent_sent"])


def main() -> None:
    """Count and print."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        sys.exit("bench: there is no valgrind here (Debian: apt-get install valgrind)")
    try:
        for calls, budget in BUDGETS.items():
            counted = count_instructions(build(), calls, Path(valgrind))
            print(f"{counted:.0f} instructions for a frame with {calls} calls; budget {budget}")
    except BenchError as exc:
        sys.exit(f"bench: {exc}")


if __name__ == "__main__":
    main()
