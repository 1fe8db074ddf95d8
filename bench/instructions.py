"""How many instructions mediad executes for a frame: the same today and tomorrow, busy machine or
not. ``python -m bench.instructions`` prints it.

Valgrind counts what the whole process executes outside the kernel, its start included; so mediad
runs twice, with the same calls for a shorter and a longer time, and the difference is divided by
the frames it carried more.
"""

import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from bench.build import Programs, build
from bench.generator import generate
from bench.process import BenchError, choose_cores, free_port
from bench.targets import Kind, running

__all__ = ["BUDGET", "count_instructions"]

BUDGET = 26_000
"""For a frame to the agent, one back, and what a tick does, with CPython 3.11 on x86-64: measured
23,300, which repeats within 1 %, and 12 % of room. Lower it when mediad gets cheaper."""

CALLS = 20
_SHORT_S = 1
_LONG_S = 8
_COUNTER = ("--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null")


def count_instructions(
    programs: Programs, valgrind: Path, environment: Mapping[str, str] | None = None
) -> float:
    """Return how many instructions a frame takes, there and back.

    Args:
        valgrind: The program.
        environment: What it needs to run, besides our own.

    Raises:
        BenchError: If a run fails.
    """
    counted = [
        _run(programs, valgrind, environment or {}, time_s) for time_s in (_SHORT_S, _LONG_S)
    ]
    (some, few_frames), (more, many_frames) = counted
    return (more - some) / (many_frames - few_frames)


def _run(
    programs: Programs, valgrind: Path, environment: Mapping[str, str], seconds: int
) -> tuple[int, float]:
    cores = choose_cores()
    wrapper = (str(valgrind), *_COUNTER)
    # The same order of dictionaries and sets each time, so that both starts take as long.
    extra = {**environment, "PYTHONHASHSEED": "0"}
    tools = valgrind.parents[1] / "libexec/valgrind"
    if tools.is_dir():  # it may have been unpacked and not installed
        extra["VALGRIND_LIB"] = str(tools)
    context = running(Kind.MEDIAD, programs, free_port(), cores[0], wrapper=wrapper, extra=extra)
    with context as target:
        options = ("--calls", str(CALLS), "--seconds", str(seconds), "--warm", "1")
        result = generate(programs, target, cores, "calls", *options, seconds=seconds)
    found = re.search(r"I +refs: +([\d,]+)", target.log.read_text())
    if found is None or result.failed:
        raise BenchError(f"valgrind counted nothing, or calls failed; see {target.log}")
    frames = (result.total["sent"] + result.total["agent_sent"]) / 2
    return int(found[1].replace(",", "")), frames


def main() -> None:
    """Count and print."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        sys.exit("bench: there is no valgrind here (Debian: apt-get install valgrind)")
    try:
        counted = count_instructions(build(), Path(valgrind))
    except BenchError as exc:
        sys.exit(f"bench: {exc}")
    print(f"{counted:.0f} instructions for a frame there and back; the budget is {BUDGET}")


if __name__ == "__main__":
    main()
