"""The bench: one command measures mediad, the floor and the peers, and prints the table.

``python -m bench.run`` takes about an hour and writes bench/RESULTS.md; ``--quick`` takes a minute
and writes nothing.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.build import build
from bench.figures import FIGURES, Limit, Row, measure_quick
from bench.measure import MAX_DISTURBED, MAX_LATENESS_MS, Bench
from bench.process import BenchError, choose_cores
from bench.table import describe_machine, render, summarise
from bench.targets import Kind

_RESULTS = Path(__file__).with_name("RESULTS.md")
_SECONDS = 60.0
_RUNS = 3
_SPARE_RUNS = 6
_QUICK_SECONDS = 7.0
_QUICK_RUNS = 2
_QUICK_SPARE_RUNS = 1
_QUICK_CALLS = 100


def main() -> None:
    """Parse the options, measure and print."""
    options = _parse_options()
    started = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - started:5.0f} s] {line}", flush=True)

    try:
        spare = _QUICK_SPARE_RUNS if options.quick else _SPARE_RUNS
        bench = Bench(build(), choose_cores(), options.seconds, options.runs, spare, say)
        bench.journal.unlink(missing_ok=True)
        rows, floor = _measure(bench, options)
    except BenchError as exc:
        sys.exit(f"bench: {exc}")
    except KeyboardInterrupt:
        sys.exit("bench: stopped")
    counts = options.seconds >= _SECONDS and options.runs >= _RUNS and not options.quick
    text = _report(bench, rows, floor, counts)
    print(f"\n{text}")
    if counts and not options.only:
        _RESULTS.write_text(text + "\n")
        print(f"\nwritten to {_RESULTS}")
    if counts and any(row.must and not row.must.is_reached for row in rows):
        sys.exit('bench: a "must" is not reached: see above')


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.run", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under 90 s; decides nothing")
    parser.add_argument("--calls", type=int, default=_QUICK_CALLS, help="at a time, with --quick")
    parser.add_argument("--seconds", type=float, help="how long a run is measured (60)")
    parser.add_argument("--runs", type=int, help="counted runs of which the median stands (3)")
    parser.add_argument(
        "--only", choices=FIGURES, nargs="+", default=[], help="some of the figures"
    )
    options = parser.parse_args()
    options.seconds = options.seconds or (_QUICK_SECONDS if options.quick else _SECONDS)
    options.runs = options.runs or (_QUICK_RUNS if options.quick else _RUNS)
    return options


def _measure(bench: Bench, options: argparse.Namespace) -> tuple[list[Row], str]:
    if options.quick:
        return measure_quick(bench, options.calls), ""
    rows: list[Row] = []
    for name, measure in FIGURES.items():
        if not options.only or name in options.only:
            bench.say(f"--- {name}")
            try:
                rows += measure(bench)
            except BenchError as exc:  # the other figures have taken their time, too
                bench.say(str(exc))
                missing = Limit("to be measured", False)
                rows.append(Row(name, "not measured", must=missing, notes=[str(exc)]))
    return rows, _syscalls(bench)


def _syscalls(bench: Bench) -> str:
    shown = []
    try:
        for kind in (Kind.FLOOR, Kind.MEDIAD):
            calls = bench.syscalls(kind)
            shown.append(
                f"{kind} {calls.reads:.2f} reads, {calls.writes:.2f} writes, "
                f"{calls.others:.2f} others"
            )
    except BenchError as exc:
        return f"The floor's two reads and two writes are not shown: {exc}."
    return f"System calls per call and 20 ms, by `strace -c`: {'; '.join(shown)}."


def _report(bench: Bench, rows: list[Row], floor: str, is_judged: bool) -> str:
    parts = [
        "# What a core carries",
        "\n".join(f"- {line}" for line in describe_machine(bench.cores)),
        "Slin 8 kHz from and to the caller, 16 kHz to and from an agent that echoes, 20 ms frames. "
        f"Each run is measured for {bench.seconds:.0f} s after 3 s of warm-up; of {bench.runs} "
        f"runs the median stands. Broken frames are counted outside of the machine's own "
        "standstills (15 ms and more) and the half second after each; those within are told apart. "
        f"A run does not count when the generator was late (p99 of {MAX_LATENESS_MS:g} ms or more) "
        f"or more than {MAX_DISTURBED:.0%} of it was near standstills. "
        f"{_disturbance(bench)}".strip(),
        render(rows, is_judged),
        summarise(rows) if is_judged else "A short form: it decides nothing.",
        *([floor] if floor else []),
        _agreement(bench),
        _listed("Runs that do not count:", bench.thrown_away) or "Every run counts.",
    ]
    return "\n\n".join(parts)


def _disturbance(bench: Bench) -> str:
    if not bench.others:
        return ""
    middle, most = statistics.median(bench.others), max(bench.others)
    return (
        f"Other programs took {max(middle, 0):.0%} of the measured core (median; at most "
        f"{max(most, 0):.0%}): CPU is dearer for it, for all that is measured."
    )


def _agreement(bench: Bench) -> str:
    title = "Flaws; nothing that was measured with them is called reached:"
    return _listed(title, bench.flaws) or (
        "In all runs with a steady load mediad's own counters of frames, underruns and losses "
        "agree with the callers' stamps within 1 %."
    )


def _listed(title: str, lines: Sequence[str]) -> str:
    return f"{title}\n\n" + "\n".join(f"- {line}" for line in lines) if lines else ""


if __name__ == "__main__":
    main()
