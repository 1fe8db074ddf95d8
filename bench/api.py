"""The bench of the API beside calls: programs read, callers listen, one mediad serves both.

``python -m bench.api`` takes two minutes and prints the table; ``--write`` also writes it
to bench/API.md. It fails when an aim is missed.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.api_beside_calls import Load, Measured, measure
from bench.build import Programs, build
from bench.process import BenchError, choose_cores
from bench.table import describe_machine, markdown

_RESULTS = Path(__file__).with_name("API.md")
_MIN_SERVED_PER_S = 200
_MAX_LAG_S = 0.010

Cells = tuple[str, str, str, str]


class Aims(NamedTuple):
    """Which of its aims a run with reads has reached."""

    has_served_enough: bool
    has_failed_none: bool
    has_no_underrun: bool
    has_little_lag: bool


def aims_of(both: Measured) -> Aims:
    """Judge a run with reads."""
    return Aims(
        both.reads.served_per_s >= _MIN_SERVED_PER_S,
        not both.reads.failed,
        not both.calls.window["underruns"],
        both.lag_p99_s <= _MAX_LAG_S,
    )


def main() -> None:
    """Parse the options, measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.api", description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"also write {_RESULTS.name}")
    parser.add_argument("--seconds", type=float, default=60.0, help="of a run (60)")
    parser.add_argument("--calls", type=int, default=50)
    parser.add_argument("--reads", type=int, default=1000, help="offered a second (1000)")
    parser.add_argument("--connections", type=int, default=50)
    options = parser.parse_args()
    load = Load(options.calls, options.reads, options.connections, options.seconds)
    alone = Load(options.calls, 0, 1, options.seconds)
    try:
        programs, cores = build(), choose_cores()
        runs = [_measure(programs, cores, each) for each in (alone, load)]
    except BenchError as exc:
        sys.exit(f"bench: {exc}")
    except KeyboardInterrupt:
        sys.exit("bench: stopped")
    text = _report(cores, load, *runs)
    print(f"\n{text}")
    if options.write:
        _RESULTS.write_text(text + "\n")
        print(f"\nwritten to {_RESULTS}")
    if not all(aims_of(runs[-1])):
        sys.exit("bench: an aim is missed: see NO above")


def _measure(programs: Programs, cores: tuple[int, int], load: Load) -> Measured:
    run = measure(programs, cores, load)
    print(_line(load, run), flush=True)
    return run


def _line(load: Load, run: Measured) -> str:
    return (
        f"{load.calls} calls, {load.reads_per_s} reads a second: {run.reads.statuses}, "
        f"{run.calls.window['underruns']} underruns, {run.calls.broken} broken, lag p99 under "
        f"{1000 * run.lag_p99_s:g} ms; the machine stood still: {_standstills(run)}"
    )


def _standstills(run: Measured) -> str:
    calls = run.calls
    if not calls.standstills:
        return "never"
    return f"{calls.standstills} times, {calls.standstill_ms:.0f} ms at most"


def _report(cores: tuple[int, int], load: Load, alone: Measured, both: Measured) -> str:
    return "\n\n".join(
        (
            "# What the API takes beside calls",
            "\n".join(f"- {line}" for line in describe_machine(cores) if "Cores:" not in line),
            f"{load.calls} calls as in RESULTS.md, on one mediad with its embedded database, which "
            f"has core {cores[0]}; with reads at the highest priority that is not real-time. A "
            f"program on core {cores[1]} offers it {load.reads_per_s:,} reads a second over "
            f"{load.connections} keep-alive connections, each with a key of its own: a live call, "
            "the list of calls, the list of agents, the transcript of a past call, in turn. One "
            "that waits for its answer when the next is due sends that after it. Measured for "
            f"{load.seconds:.0f} s. Underruns are counted outside of the machine's own standstills "
            "(15 ms and more) and the half second after each.",
            markdown([("figure", "calls alone", "with reads", "aim"), *_rows(alone, both)]),
        )
    )


def _rows(alone: Measured, both: Measured) -> list[Cells]:
    def of_both(figure: str, cell: Callable[[Measured], str], aim: str = "–") -> Cells:
        return figure, cell(alone), cell(both), aim

    reads, aims = both.reads, aims_of(both)
    return [
        (
            "reads answered a second",
            "–",
            f"{reads.served_per_s:.0f}",
            _aim("200", aims.has_served_enough),
        ),
        (
            "other answers than 200, or none",
            "–",
            f"{reads.failed}",
            _aim("0", aims.has_failed_none),
        ),
        *(
            (f"{kind}: request to answer", "–", _times(seconds), "–")
            for kind, seconds in reads.seconds.items()
        ),
        of_both(
            "underruns that callers heard",
            lambda run: f"{run.calls.window['underruns']}",
            _aim("0", aims.has_no_underrun),
        ),
        of_both(
            "event loop's lag",
            lambda run: f"p99 under {1000 * run.lag_p99_s:g} ms",
            _aim("p99 under 10 ms", aims.has_little_lag),
        ),
        of_both("uplink", lambda run: f"p99 {run.calls.uplink.p99:.2f} ms"),
        of_both("egress jitter", lambda run: f"p99 {run.calls.jitter.p99:.2f} ms"),
        of_both("CPU, of a core", lambda run: f"{run.calls.cpu_of_core:.0%}"),
        of_both("the machine stood still", _standstills),
        of_both("underruns then", lambda run: f"{run.calls.disturbed['underruns']}"),
    ]


def _times(seconds: Sequence[float]) -> str:
    ordered = sorted(seconds)
    p50, p99 = (1000 * ordered[int(share * len(ordered))] for share in (0.5, 0.99))
    return f"p50 {p50:.0f}, p99 {p99:.0f} ms"


def _aim(text: str, is_reached: bool) -> str:
    return f"{text}: {'yes' if is_reached else 'NO'}"


if __name__ == "__main__":
    main()
