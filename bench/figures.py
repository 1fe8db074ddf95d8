"""The figures of the table: how each is measured, and what it must and should be."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench.generator import Result
from bench.measure import Bench, Measured
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
_MOST_OF_CORE = 0.75


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


def _at_most(value: float, must: float, aim: float, unit: str) -> tuple[Limit, Limit]:
    return Limit(f"≤ {must:g}{unit}", value <= must), Limit(f"≤ {aim:g}{unit}", value <= aim)


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
    return Row(
        f"CPU per call and second, {mediad.calls} calls",
        f"{mediad.cpu_ms:.3f} ms",
        f"{floor.cpu_ms:.3f} ms",
        ratio,
        must,
        aim,
        notes,
    )


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
    return Row(name, f"{value:.2f} ms", f"{least:.2f} ms", ratio, must, aim)


def _broken(run: Result) -> int:
    return run.broken + run.failed


def _quality_row(floor: Measured, mediad: Measured) -> Row:
    seconds = mediad.runs[0].seconds
    notes = [f"{max(map(_broken, mediad.runs))} in the worst run; failed calls count, too"]
    if many := sum(run.standstills for run in mediad.runs):
        longest_ms = max(run.standstill_ms for run in mediad.runs)
        by_machine = sum(run.broken_by_machine for run in mediad.runs)
        notes.append(
            f"in {len(mediad.runs)} runs the machine stood still {many} times, for "
            f"{longest_ms:.0f} ms at most; in these and the half second after each "
            f"{by_machine} more"
        )
    return Row(
        f"frames lost, doubled, silent or missing in {seconds:.0f} s, {mediad.calls} calls",
        f"{mediad.median(_broken):.0f}",
        f"{floor.median(_broken):.0f}",
        notes=notes,
    )


def _is_clean(measured: Measured) -> bool:
    return measured.median(_broken) == 0 and measured.median(_uplink) < _UPLINK_MS


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
    return [*_main_rows(floor, mediad), _capacity_row(bench, floor, mediad)]


def _capacity_row(bench: Bench, floor: Measured, mediad: Measured) -> Row:
    floors, found = {_MANY: floor}, {_MANY: mediad}
    if _is_clean(mediad):
        floors[_MOST], found[_MOST] = bench.steady((Kind.FLOOR, Kind.MEDIAD), _MOST).values()
    clean = {calls: run for calls, run in found.items() if _is_clean(run)}
    carried = {calls: run for calls, run in floors.items() if _is_clean(run)}
    most, least = max(clean, default=0), max(carried, default=0)
    used = clean[most].median(_of_core) if clean else 1.0
    notes = [f"{max(found)} tried"]
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
    )
    return [row, peer]


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
    if not bench.programs.has_tls:
        return [Row(name, "–", notes=["OpenSSL's headers are not here (Debian: libssl-dev)"])]
    kinds = (Kind.FLOOR, Kind.MEDIAD, Kind.MEDIAD_TLS)
    floor, plain, secured = bench.steady(kinds, _SECURED).values()
    share = secured.cpu_ms / plain.cpu_ms
    row = Row(
        name,
        f"{share:.2f}",
        must=Limit("reported", True),
        aim=Limit("≤ 1.5", share <= 1.5),
    )
    peers = (_cpu_of("mediad, ws://", floor, plain), _cpu_of("mediad, wss://", floor, secured))
    return [row, *peers]


def measure_setup(bench: Bench) -> list[Row]:
    """Calls set up per second."""
    best = {Kind.FLOOR: 0, Kind.MEDIAD: 0}
    echo_ms = 0.0
    for per_second in (100, 300):
        for kind in best:
            results = bench.setups(kind, per_second, 10)
            if not any(result.failed or result.left_open for result in results):
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
        )
    ]


def measure_slope(bench: Bench) -> list[Row]:
    """What is left behind by calls that are over."""
    grown = bench.slope(Kind.MEDIAD, 1000, 20_000, 200)
    share = 100 * (grown.after / grown.before - 1)
    must, aim = _at_most(share, 2, 0.5, " %")
    notes = [f"{grown.before} KiB, then {grown.after} KiB; {grown.failed} calls failed"]
    name = "memory after 20,000 short calls against after 1,000"
    return [Row(name, f"{share:+.2f} %", must=must, aim=aim, notes=notes)]


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
