"""Runs that count: long enough, the generator in time and the machine, too; of three the median
stands.
"""

import json
import re
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

from bench.build import Programs, make_certificate
from bench.generator import Result, generate
from bench.process import CACHE, BenchError, free_port
from bench.targets import Kind, running

__all__ = ["Bench", "Growth", "Measured", "Syscalls"]

MAX_LATENESS_MS = 5.0
"""Of the generator, p99, in a run that counts."""

MAX_DISTURBED = 0.05
"""What a run that counts may have near standstills of the machine, of all frames."""

RAMP_PER_S = 100
WARM_S = 3.0
_SETTLE_S = 2.0
_GRID_US = 500
_FINE_GRID_US = 50  # with few calls the generator has the time for it
_FEW_CALLS = 10
_TRACED_CALLS = 10  # strace makes everything slow, and a read late takes two frames
_READS = frozenset(("read", "readv", "recvfrom", "recvmsg"))
_WRITES = frozenset(("write", "writev", "sendto", "sendmsg"))


@dataclass(frozen=True, slots=True)
class Measured:
    """The counted runs of one program at one number of calls."""

    kind: Kind
    calls: int
    runs: tuple[Result, ...]
    flaws: tuple[str, ...] = ()
    """Why no figure of these runs may be called reached."""

    def median(self, pick: Callable[[Result], float]) -> float:
        """Return the median of what is picked from each run."""
        return statistics.median(pick(run) for run in self.runs)

    @property
    def cpu_ms(self) -> float:
        """CPU per call and second, in milliseconds."""
        return self.median(lambda run: run.cpu_ms_per_call_s)


class Growth(NamedTuple):
    """Resident memory around some calls, in KiB."""

    before: int
    after: int
    finished: int
    """Calls that have come and gone in between."""
    failed: int


class Syscalls(NamedTuple):
    """What a relay asks of the kernel for one call and 20 ms."""

    reads: float
    writes: float
    others: float


@dataclass(slots=True)
class Bench:
    """Measures on these cores."""

    programs: Programs
    cores: tuple[int, int]
    seconds: float
    """How long a run is measured."""
    runs: int
    spare_runs: int
    """How many of each may be thrown away."""
    say: Callable[[str], None]
    journal: Path = CACHE / "runs.jsonl"
    """Every run as it was, also those that do not count."""
    thrown_away: list[str] = field(default_factory=list, init=False)
    """Which runs of what, and why."""
    others: list[float] = field(default_factory=list, init=False)
    """What other programs took of the measured core, in each run that counts."""
    flaws: list[str] = field(default_factory=list, init=False)
    """Too few runs, failed calls, counters that disagree."""
    _known: dict[tuple[Kind, int], Measured] = field(default_factory=dict, init=False)

    def steady(self, kinds: Sequence[Kind], calls: int) -> dict[Kind, Measured]:
        """Measure programs under a steady load, in turns: what disturbs one disturbs all. What was
        measured before is not measured again.
        """
        new = [kind for kind in kinds if (kind, calls) not in self._known]
        good: dict[Kind, list[Result]] = {kind: [] for kind in new}
        for _ in range(self.runs + self.spare_runs):
            for kind in new:
                if len(good[kind]) == self.runs:
                    continue
                result = self._steady_once(kind, calls)
                if self._counts(kind, calls, result):
                    good[kind].append(result)
        for kind, runs in good.items():
            self._known[kind, calls] = self._judge(kind, calls, runs)
        return {kind: self._known[kind, calls] for kind in kinds}

    def setups(self, kind: Kind, per_second: int, seconds: int) -> list[Result]:
        """Set so many calls up per second, each to its first echo and hung up 0.5 s later."""
        results = []
        for _ in range(self.runs):
            with running(kind, self.programs, free_port(), self.cores[0]) as target:
                options = ("--rate", str(per_second), "--seconds", str(seconds))
                result = generate(
                    self.programs, target, self.cores, "setup", *options, seconds=seconds
                )
            results.append(result)
            self._note(kind, per_second, result)
            self.say(
                f"{kind}: {per_second} calls a second for {seconds} s: {result.failed} failed, "
                f"first echo p99 {result.first_echo.p99:.0f} ms"
            )
        return results

    def memory(self, kind: Kind, calls: int) -> Growth:
        """Hold calls whose agent says nothing; compare with no call ever taken."""
        with running(kind, self.programs, free_port(), self.cores[0]) as target:
            time.sleep(_SETTLE_S)
            empty = target.rss_kib()
            options = ("--calls", str(calls), "--rate", str(RAMP_PER_S), "--no-echo")
            result = generate(
                self.programs, target, self.cores, "calls", *options, seconds=10 + calls
            )
        grown = (result.rss_kib - empty) / calls
        self.say(f"{kind}: {grown:.1f} KiB a call with {calls} calls")
        return Growth(empty, result.rss_kib, 0, result.failed)

    def slope(self, kind: Kind, first: int, all_: int, per_second: int) -> Growth:
        """Compare memory after some short calls with memory after many more."""
        with running(kind, self.programs, free_port(), self.cores[0]) as target:
            sizes, finished, failed = [], 0, 0
            for total in (first, all_ - first):
                options = ("--rate", str(per_second), "--total", str(total), "--hold", "100")
                result = generate(
                    self.programs,
                    target,
                    self.cores,
                    "setup",
                    *options,
                    seconds=total / per_second,
                )
                finished += result.finished
                failed += result.failed
                time.sleep(_SETTLE_S)
                sizes.append(target.rss_kib())
                self.say(f"{kind}: {sizes[-1]} KiB after {finished} calls, {failed} failed")
        return Growth(sizes[0], sizes[1], finished, failed)

    def syscalls(self, kind: Kind) -> Syscalls:
        """Count what a program asks of the kernel for each frame, with strace: the difference of
        two runs, so that its start is not in it.

        Raises:
            BenchError: If strace cannot be run.
        """
        (few, some), (many, more) = (self._trace(kind, seconds) for seconds in (2, 12))
        counts = {name: (many[name] - few[name]) / (more - some) for name in many}
        reads = sum(count for name, count in counts.items() if name in _READS)
        writes = sum(count for name, count in counts.items() if name in _WRITES)
        return Syscalls(reads, writes, sum(counts.values()) - reads - writes)

    def _trace(self, kind: Kind, seconds: int) -> tuple[Counter[str], float]:
        with tempfile.NamedTemporaryFile("r", suffix=".strace") as table:
            wrapper = ("strace", "-f", "-c", "-o", table.name)
            try:
                context = running(kind, self.programs, free_port(), self.cores[0], wrapper=wrapper)
                with context as target:
                    options = ("--calls", str(_TRACED_CALLS), "--seconds", str(seconds))
                    result = generate(
                        self.programs, target, self.cores, "calls", *options, seconds=seconds
                    )
            except FileNotFoundError as exc:
                raise BenchError("there is no strace here") from exc
            lines = re.findall(r"^ *\S+ +\S+ +\S+ +(\d+) .*?(\w+)$", table.read(), re.MULTILINE)
        if not lines or result.failed:
            raise BenchError(f"strace shows nothing of {kind}")
        counts = Counter({name: int(count) for count, name in lines if name != "total"})
        return counts, (result.total["sent"] + result.total["agent_sent"]) / 2

    def _steady_once(self, kind: Kind, calls: int) -> Result:
        secured = make_certificate() if kind is Kind.MEDIAD_TLS else None
        options = [
            *("--calls", str(calls), "--rate", str(RAMP_PER_S), "--warm", str(WARM_S)),
            *("--seconds", str(self.seconds)),
            *("--grid", str(_FINE_GRID_US if calls <= _FEW_CALLS else _GRID_US)),
        ]
        if secured:
            options += ["--tls-cert", str(secured[0]), "--tls-key", str(secured[1])]
        ca_file = secured[0] if secured else None
        with running(kind, self.programs, free_port(), self.cores[0], ca_file) as target:
            return generate(
                self.programs,
                target,
                self.cores,
                kind.mode,
                *options,
                seconds=self.seconds + WARM_S + calls / RAMP_PER_S,
            )

    def _counts(self, kind: Kind, calls: int, result: Result) -> bool:
        self._note(kind, calls, result)
        fault = _fault(result)
        self.say(
            f"{kind}, {calls} calls: {result.cpu_ms_per_call_s:.3f} ms, uplink p99 "
            f"{result.uplink.p99:.2f} ms, jitter p99 {result.jitter.p99:.2f} ms, "
            f"{result.broken} broken, {result.failed} failed, "
            f"lateness p99 {result.lateness.p99:.2f} ms, {_standstills(result)}, others "
            f"{result.others_of_core:.0%} of the core{f': thrown away, {fault}' if fault else ''}"
        )
        if fault:
            self.thrown_away.append(f"{kind}, {calls} calls: {fault}")
        else:
            self.others.append(result.others_of_core)
        return not fault

    def _judge(self, kind: Kind, calls: int, runs: list[Result]) -> Measured:
        if not runs:
            raise BenchError(
                f"no run of {kind} with {calls} calls counts: the generator was always late; "
                "is the machine busy with something else?"
            )
        flaws = [f"{kind}, {calls} calls: {flaw}" for flaw in _flaws(runs, self.runs)]
        self.flaws += flaws
        return Measured(kind, calls, tuple(runs), tuple(flaws))

    def _note(self, kind: Kind, calls: int, result: Result) -> None:
        with self.journal.open("a") as file:
            file.write(json.dumps({"kind": kind, "plan": calls, **asdict(result)}) + "\n")


def _fault(result: Result) -> str:
    """Return why a run does not count; nothing if it does."""
    if result.lateness.p99 >= MAX_LATENESS_MS:
        return f"the generator was late, p99 {result.lateness.p99:.1f} ms"
    if result.disturbed_share > MAX_DISTURBED:
        return f"{result.disturbed_share:.0%} of it near standstills of the machine"
    return ""


def _flaws(runs: Sequence[Result], wanted: int) -> Iterator[str]:
    if len(runs) < wanted:
        yield f"only {len(runs)} of {wanted} runs count"
    if failed := sum(run.failed for run in runs):
        yield f"{failed} calls failed"
    for run in runs:
        yield from run.disagreements


def _standstills(result: Result) -> str:
    if not result.standstills:
        return "no standstill"
    return (
        f"{result.standstills} standstills, {result.standstill_ms:.0f} ms at most, with "
        f"{result.broken_by_machine} broken"
    )
