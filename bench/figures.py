"""The figures of the table: how each is measured, and what it must and should be."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from bench.generator import Result
from bench.measure import MAX_LATENESS_MS, Bench, Measured
from bench.process import BenchError
from bench.targets import Kind

__all__ = ["FIGURES", "Limit", "Row", "measure_quick"]

MAX_FLOOR_MS = 1.0
"""A floor that takes more CPU per call and second is none."""

_MANY = 500
_MOST = 750
_SECURED = 250  # with 500 TLS leaves nothing of the core
_FEW = 30  # what fills a Pipecat agent's core about as much as 500 calls fill mediad's
_UPLINK_MS = 10.0
_SETUP_S = 10
_SETUP_END_S = 2.0  # for the last of them, which talks for 0.5 s
_SHORT_CALLS = 20_000
_MOST_OF_CORE = 0.75

# What stands in the way of an aim, as profiles show it; README.md says how to take one.
_CPU_OBSTACLE = (
    "The kernel's part (0.56 ms) and the filters are as in the floor; on top come playout, pacing, "
    "queues and counters in compiled code, and a twentieth in the interpreter."
)
_CAPACITY_OBSTACLE = (
    "By CPU they fit. Where machine and generator are late by 10 ms on both ways, which is no "
    "standstill yet, calls run dry whose two frames of pre-buffer came with the least to spare."
)
_PIPECAT_OBSTACLE = (
    "Seven tenths of mediad's are the kernel's, for two sockets a call; such an agent has one."
)
_MEMORY_OBSTACLE = (
    "A fifth are buffers, as the floor has them; the rest are the Python objects of session, "
    "WebSocket and what is told of a call."
)
_SLOPE_OBSTACLE = (
    "Most of it comes with the first 2,400 calls, half of that a cache that is full then; after "
    "these a call leaves 0.1 KiB."
)
_WSS_OBSTACLE = (
    "Frames go through OpenSSL and the event loop's transport, not through the pump, and each is "
    "asked for by a poll() whether it will be taken."
)


@dataclass(frozen=True, slots=True)
class Limit:
    """What a figure has to reach."""

    text: str
    is_reached: bool


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table."""

    figure: str
    value: str
    floor: str = "–"
    ratio: float | None = None
    """To the floor of the same session."""
    must: Limit | None = None
    aim: Limit | None = None
    notes: Sequence[str] = field(default=())
    obstacle: str = ""
    """What stands in the way of the aim, where it is not reached."""


def _at_most(value: float, must: float, aim: float, unit: str) -> tuple[Limit, Limit]:
    return Limit(f"≤ {must:g}{unit}", value <= must), Limit(f"≤ {aim:g}{unit}", value <= aim)


def _judged_by(row: Row, *measured: Measured) -> Row:
    """Return the row; of flawed runs nothing is reached."""
    if not any(one.flaws for one in measured):
        return row
    must, aim = (limit and Limit(limit.text, False) for limit in (row.must, row.aim))
    return replace(row, must=must, aim=aim, notes=[*row.notes, "runs of it are flawed, see below"])


def _uplink(run: Result) -> float:
    return run.uplink.p99


def _jitter(run: Result) -> float:
    return run.jitter.p99


def _of_core(run: Result) -> float:
    return run.cpu_of_core


def _cpu_row(floor: Measured, mediad: Measured) -> Row:
    ratio = mediad.cpu_ms / floor.cpu_ms
    must, aim = _at_most(ratio, 1.4, 1.15, " × floor")
    notes = []
    if floor.cpu_ms > MAX_FLOOR_MS:
        notes.append(f"the floor took over {MAX_FLOOR_MS} ms: it is not accepted as one")
        must, aim = Limit(must.text, False), Limit(aim.text, False)
    row = Row(
        f"CPU per call and second, {mediad.calls} calls",
        f"{mediad.cpu_ms:.3f} ms",
        f"{floor.cpu_ms:.3f} ms",
        ratio,
        must,
        aim,
        notes,
        _CPU_OBSTACLE,
    )
    return _judged_by(row, floor, mediad)


def _duration_row(
    name: str,
    floor: Measured,
    mediad: Measured,
    pick: Callable[[Result], float],
    limits: tuple[float, float],
) -> Row:
    value, least = mediad.median(pick), floor.median(pick)
    must, aim = _at_most(value, *limits, " ms")
    ratio = value / least if least else None
    row = Row(name, f"{value:.2f} ms", f"{least:.2f} ms", ratio, must, aim)
    return _judged_by(row, floor, mediad)


def _broken(run: Result) -> int:
    return run.broken + run.failed


def _quality_row(floor: Measured, mediad: Measured) -> Row:
    seconds = mediad.runs[0].seconds
    late = max(run.counted("gaps_over_40_ms") for run in mediad.runs)
    notes = [
        f"{_worst(mediad)}; failed calls count, too",
        f"gaps of over 40 ms between two messages: at most {late} in a run",
    ]
    if many := sum(run.standstills for run in mediad.runs):
        longest_ms = max(run.standstill_ms for run in mediad.runs)
        by_machine = sum(run.broken_by_machine for run in mediad.runs)
        share = max(run.disturbed_share for run in mediad.runs)
        notes.append(
            f"in {len(mediad.runs)} runs the machine stood still {many} times, for "
            f"{longest_ms:.0f} ms at most; in these and the half second after each, "
            f"{share:.1%} of a run at most, {by_machine} more"
        )
    return Row(
        f"frames lost, doubled, silent or missing in {seconds:.0f} s, {mediad.calls} calls",
        f"{mediad.median(_broken):.0f}",
        f"{floor.median(_broken):.0f}",
        notes=notes,
    )


def _worst(measured: Measured) -> str:
    return f"{max(map(_broken, measured.runs))} in the worst run with {measured.calls} calls"


def _is_clean(measured: Measured) -> bool:
    is_in_time = measured.median(_uplink) < _UPLINK_MS
    return not measured.flaws and measured.median(_broken) == 0 and is_in_time


def _main_rows(floor: Measured, mediad: Measured) -> list[Row]:
    calls = mediad.calls
    return [
        _cpu_row(floor, mediad),
        _duration_row(f"uplink p99, {calls} calls", floor, mediad, _uplink, (10, 7)),
        _duration_row(f"egress jitter p99, {calls} calls", floor, mediad, _jitter, (8, 5)),
        _quality_row(floor, mediad),
    ]


def measure_main(bench: Bench) -> list[Row]:
    """CPU, delays and capacity, mediad and the floor in turns."""
    kinds = (Kind.FLOOR, Kind.MEDIAD)
    floor, mediad = bench.steady(kinds, _MANY).values()
    (on_grid,) = bench.steady((Kind.FLOOR_ON_GRID,), _MANY).values()
    grid_row = _cpu_of("floor that wakes up every millisecond only", floor, on_grid)
    return [*_main_rows(floor, mediad), grid_row, _capacity_row(bench, floor, mediad)]


def _capacity_row(bench: Bench, floor: Measured, mediad: Measured) -> Row:
    floors, found = {_MANY: floor}, {_MANY: mediad}
    if _is_clean(mediad):
        floors[_MOST], found[_MOST] = bench.steady((Kind.FLOOR, Kind.MEDIAD), _MOST).values()
    clean = {calls: run for calls, run in found.items() if _is_clean(run)}
    carried = {calls: run for calls, run in floors.items() if _is_clean(run)}
    most, least = max(clean, default=0), max(carried, default=0)
    used = clean[most].median(_of_core) if clean else 1.0
    tried = max(found)
    broken = found[tried].median(_broken)
    notes = [f"{tried} tried: {broken:.0f} frames broken, {_worst(found[tried])}"]
    if clean:
        notes.append(f"uplink p99 {clean[most].median(_uplink):.2f} ms at {most}")
    return Row(
        "calls on one core, 0 underruns, uplink p99 < 10 ms",
        f"{most} at {used:.0%}" if clean else f"under {_MANY}",
        f"{least} at {carried[least].median(_of_core):.0%}" if carried else f"under {_MANY}",
        most / least if carried else None,
        Limit(f"{_MANY}", most >= _MANY),
        Limit(f"{_MOST} at ≤ {_MOST_OF_CORE:.0%}", most >= _MOST and used <= _MOST_OF_CORE),
        notes,
        _CAPACITY_OBSTACLE,
    )


def measure_one(bench: Bench) -> list[Row]:
    """The delay that one call alone gets."""
    floor, mediad = bench.steady((Kind.FLOOR, Kind.MEDIAD), 1).values()
    return [_duration_row("added delay p99, one call", floor, mediad, _uplink, (2, 1))]


def measure_pipecat(bench: Bench) -> list[Row]:
    """A stock Pipecat agent, at about the share of a core that mediad has with 500 calls."""
    kinds = (Kind.FLOOR, Kind.MEDIAD, Kind.PIPECAT)
    floor, few, pipecat = bench.steady(kinds, _FEW).values()
    (mediad,) = bench.steady((Kind.MEDIAD,), _MANY).values()
    share = mediad.cpu_ms / pipecat.cpu_ms
    peer = _cpu_of("peer: stock Pipecat agent", floor, pipecat)
    row = Row(
        "CPU per call against a stock Pipecat agent",
        f"1/{1 / share:.1f}",
        must=Limit("≤ 1/10", share <= 1 / 10),
        aim=Limit("≤ 1/20", share <= 1 / 20),
        notes=[
            f"mediad at {_MANY} calls, Pipecat at {_FEW} ({pipecat.median(_of_core):.0%} of "
            "its core), without AudioSocket and resampling",
            f"both at {_FEW}: 1/{pipecat.cpu_ms / few.cpu_ms:.1f}; a core that is nearly idle "
            "is woken for each frame",
        ],
        obstacle=_PIPECAT_OBSTACLE,
    )
    return [_judged_by(row, floor, few, mediad, pipecat), peer]


def _cpu_of(name: str, floor: Measured, measured: Measured) -> Row:
    broken = max(map(_broken, measured.runs))
    return Row(
        f"{name}, CPU per call, {measured.calls} calls",
        f"{measured.cpu_ms:.3f} ms",
        f"{floor.cpu_ms:.3f} ms",
        measured.cpu_ms / floor.cpu_ms,
        notes=[f"{broken} frames broken in the worst run"] if broken else [],
    )


def measure_peers(bench: Bench) -> list[Row]:
    """The line in Python, and a thread per call, at what a Pipecat agent carries, too."""
    kinds = (Kind.FLOOR, Kind.MEDIAD, Kind.MEDIAD_PYTHON, Kind.THREADS)
    floor, mediad, python, threads = bench.steady(kinds, _FEW).values()
    return [
        _cpu_of("mediad", floor, mediad),
        _cpu_of("mediad, MEDIAD_CORE=python", floor, python),
        _cpu_of("peer: thread per call, local echo", floor, threads),
    ]


def measure_wss(bench: Bench) -> list[Row]:
    """What TLS to the agent costs."""
    name = "wss:// against ws://, CPU per call"
    reported = Limit("reported", bench.programs.has_tls)
    if not reported.is_reached:
        notes = ["OpenSSL's headers are not here (Debian: libssl-dev)"]
        return [Row(name, "not measured", must=reported, notes=notes)]
    kinds = (Kind.FLOOR, Kind.MEDIAD, Kind.MEDIAD_TLS)
    floor, plain, secured = bench.steady(kinds, _SECURED).values()
    share = secured.cpu_ms / plain.cpu_ms
    row = Row(
        name,
        f"{share:.2f}",
        must=reported,
        aim=Limit("≤ 1.5", share <= 1.5),
        obstacle=_WSS_OBSTACLE,
    )
    peers = (_cpu_of("mediad, ws://", floor, plain), _cpu_of("mediad, wss://", floor, secured))
    return [_judged_by(row, floor, plain, secured), *peers]


def measure_setup(bench: Bench) -> list[Row]:
    """Calls set up per second."""
    best = {Kind.FLOOR: 0, Kind.MEDIAD: 0}
    echo_ms = 0.0
    for per_second in (100, 300):
        for kind in best:
            results = bench.setups(kind, per_second, _SETUP_S)
            if all(_is_sustained(result, per_second) for result in results):
                best[kind] = per_second
                if kind is Kind.MEDIAD:
                    echo_ms = max(result.first_echo.p99 for result in results)
    most, floor = best[Kind.MEDIAD], best[Kind.FLOOR]
    return [
        Row(
            "calls set up per second for 10 s, none failed",
            f"{most}",
            f"{floor}",
            most / floor if floor else None,
            Limit("100", most >= 100),
            Limit("300", most >= 300),
            [f"first echo p99 {echo_ms:.0f} ms; more than 300 is not tried"],
        )
    ]


def _is_sustained(result: Result, per_second: int) -> bool:
    """Return whether all calls of a run began when they were due, were answered, and ended: who
    takes fewer lets those that wait pile up until none can begin.
    """
    is_whole = result.finished == per_second * _SETUP_S and not (result.failed or result.left_open)
    is_in_time = result.lateness.p99 < MAX_LATENESS_MS and result.seconds < _SETUP_S + _SETUP_END_S
    return is_whole and is_in_time


def measure_memory(bench: Bench) -> list[Row]:
    """What a call costs in memory."""
    floor, mediad = (bench.memory(kind, _MANY) for kind in (Kind.FLOOR, Kind.MEDIAD))
    if mediad.failed or floor.failed:
        raise BenchError("calls failed while memory was measured")
    value, least = ((grown.after - grown.before) / _MANY for grown in (mediad, floor))
    must, aim = _at_most(value, 128, 48, " KiB")
    return [
        Row(
            "memory per call, nothing queued",
            f"{value:.1f} KiB",
            f"{least:.1f} KiB",
            value / least,
            must,
            aim,
            [f"an empty daemon has {mediad.before / 1024:.0f} MiB"],
            _MEMORY_OBSTACLE,
        )
    ]


def measure_slope(bench: Bench) -> list[Row]:
    """What is left behind by calls that are over."""
    grown = bench.slope(Kind.MEDIAD, 1000, _SHORT_CALLS, 200)
    if grown.failed or grown.finished < _SHORT_CALLS:
        raise BenchError(f"of {_SHORT_CALLS} short calls {grown.failed} failed")
    share = 100 * (grown.after / grown.before - 1)
    must, aim = _at_most(share, 2, 0.5, " %")
    notes = [f"{grown.before} KiB, then {grown.after} KiB"]
    name = f"memory after {_SHORT_CALLS:,} short calls against after 1,000"
    return [Row(name, f"{share:+.2f} %", must=must, aim=aim, notes=notes, obstacle=_SLOPE_OBSTACLE)]


def measure_quick(bench: Bench, calls: int) -> list[Row]:
    """A few seconds of the main thing; it decides nothing."""
    floor, mediad = bench.steady((Kind.FLOOR, Kind.MEDIAD), calls).values()
    return _main_rows(floor, mediad)


FIGURES: dict[str, Callable[[Bench], list[Row]]] = {
    "main": measure_main,
    "one": measure_one,
    "pipecat": measure_pipecat,
    "setup": measure_setup,
    "memory": measure_memory,
    "slope": measure_slope,
    "wss": measure_wss,
    "peers": measure_peers,
}
"""By the name that ``--only`` takes."""
