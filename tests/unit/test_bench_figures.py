"""What the bench makes of its runs: which count, what is called reached, and what is told."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.build import Programs
from bench.figures import FIGURES, Limit, Row, measure_main, measure_setup, measure_slope
from bench.generator import Durations, Result, disagreements
from bench.measure import Bench, Growth, Measured
from bench.process import BenchError
from bench.table import render, summarise
from bench.targets import Kind

COUNTERS = (
    *("sent", "agent_received", "agent_sent", "received", "lost", "duplicates", "reordered"),
    *("underruns", "underrun_frames", "undecoded", "missing", "wrong_messages", "gaps_over_40_ms"),
)
NOTHING = dict.fromkeys(COUNTERS, 0)
QUICK = Durations(1000, 0.1, 0.2, 0.3, 0.4, 0.5)
GOOD = Result(
    calls=500,
    seconds=60.0,
    started=500,
    finished=500,
    failed=0,
    left_open=0,
    cpu_s=30.0,
    cpu_user_s=10.0,
    cpu_of_core=0.5,
    cpu_ms_per_call_s=1.0,
    rss_before_kib=1000,
    rss_kib=1000,
    others_of_core=0.0,
    steal_of_core=0.0,
    generator_of_core=0.5,
    standstills=0,
    standstill_ms=0.0,
    window={**NOTHING, "sent": 1_500_000},
    disturbed=NOTHING,
    total=NOTHING,
    lateness=QUICK,
    uplink=QUICK,
    downlink=QUICK,
    round_trip=QUICK,
    jitter=QUICK,
    first_echo=QUICK,
)


class RecordedBench(Bench):
    """Gives results that are there already, in turns, in the place of measuring."""

    def __init__(self, journal: Path, results: dict[tuple[Kind, int], Sequence[Result]]) -> None:
        programs = Programs(Path(), Path(), has_tls=True)
        super().__init__(programs, (0, 1), 60.0, 3, 2, lambda _: None, journal)
        self._left = {of: list(some) for of, some in results.items()}

    def _steady_once(self, kind: Kind, calls: int) -> Result:
        return self._left[kind, calls].pop(0)


def bench_with(tmp_path: Path, mediad: Sequence[Result]) -> RecordedBench:
    """A bench whose floor is good and whose mediad with 500 calls is so."""
    good = 5 * [GOOD]
    return RecordedBench(
        tmp_path / "runs.jsonl",
        {
            (Kind.FLOOR, 500): good,
            (Kind.FLOOR_ON_GRID, 500): good,
            (Kind.MEDIAD, 500): mediad,
            (Kind.FLOOR, 750): good,
            (Kind.MEDIAD, 750): good,
        },
    )


def with_window(**counters: int) -> Result:
    return replace(GOOD, window={**GOOD.window, **counters})


def row_of(rows: list[Row], begin: str) -> Row:
    """The row whose figure begins so."""
    (found,) = [row for row in rows if row.figure.startswith(begin)]
    return found


def test_the_median_of_three_stands(tmp_path: Path) -> None:
    runs = [replace(GOOD, cpu_ms_per_call_s=ms) for ms in (9.0, 1.2, 1.3)]
    row = row_of(measure_main(bench_with(tmp_path, runs)), "CPU per call and second")
    assert (row.value, row.ratio) == ("1.300 ms", 1.3)
    assert row.must == Limit("≤ 1.4 × floor", True)
    assert row.aim == Limit("≤ 1.15 × floor", False)


LATE = replace(GOOD, lateness=replace(QUICK, p99=5.0))
STILL = replace(GOOD, standstills=9, disturbed={**NOTHING, "sent": 100_000})


@pytest.mark.parametrize("bad", [LATE, STILL])
def test_a_run_that_does_not_count_is_made_again_and_told(tmp_path: Path, bad: Result) -> None:
    bench = bench_with(tmp_path, [bad, GOOD, GOOD, GOOD])
    measured = bench.steady((Kind.MEDIAD,), 500)[Kind.MEDIAD]
    assert measured.runs == (GOOD, GOOD, GOOD)
    assert measured.flaws == ()
    (told,) = bench.thrown_away
    assert told.startswith("mediad, 500 calls: ")


FEW = [LATE, LATE, LATE, GOOD, GOOD]
FAILED = [GOOD, GOOD, replace(GOOD, failed=3)]
DISAGREES = [GOOD, GOOD, replace(GOOD, disagreements=("mediad_underruns_total 5, …",))]


@pytest.mark.parametrize("runs", [FEW, FAILED, DISAGREES])
def test_nothing_is_reached_by_flawed_runs(tmp_path: Path, runs: list[Result]) -> None:
    bench = bench_with(tmp_path, runs)
    rows = measure_main(bench)
    limits = [limit for row in rows for limit in (row.must, row.aim) if limit]
    assert limits
    assert not any(limit.is_reached for limit in limits)
    assert len(bench.flaws) == 1


def test_calls_on_a_core_need_runs_without_a_broken_frame(tmp_path: Path) -> None:
    clean, broken = 2 * [GOOD], 2 * [with_window(underruns=1)]
    row = row_of(measure_main(bench_with(tmp_path, [*clean, with_window(lost=7)])), "calls on one")
    assert row.value == "750 at 50%"
    assert row.must == Limit("500", True)
    row = row_of(measure_main(bench_with(tmp_path, [*broken, GOOD])), "calls on one")
    assert row.value == "under 500"
    assert row.must == Limit("500", False)


def test_a_core_without_a_run_that_counts_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="the generator was always late"):
        measure_main(bench_with(tmp_path, 5 * [LATE]))


class SetupBench(RecordedBench):
    """Sets up calls as a result says, however many are asked for."""

    def __init__(self, journal: Path, **changes: Any) -> None:
        super().__init__(journal, {})
        self._changes = changes

    def setups(self, kind: Kind, per_second: int, seconds: int) -> list[Result]:
        whole = replace(GOOD, finished=per_second * seconds, seconds=seconds + 0.6)
        return [whole, whole, replace(whole, **self._changes)]


@pytest.mark.parametrize(
    ("changes", "value"),
    [
        ({}, "300"),
        ({"failed": 1}, "0"),
        ({"left_open": 1}, "0"),
        ({"finished": 999}, "0"),  # of 1,000, and of 3,000
        ({"seconds": 12.5}, "0"),
        ({"lateness": replace(QUICK, p99=80.0)}, "0"),  # they had to wait for one another
    ],
)
def test_set_ups_are_sustained_when_all_are_in_time(
    tmp_path: Path, changes: dict[str, Any], value: str
) -> None:
    (row,) = measure_setup(SetupBench(tmp_path / "runs.jsonl", **changes))
    assert row.value == value


class SlopeBench(RecordedBench):
    """Has so much memory before and after."""

    def __init__(self, journal: Path, grown: Growth) -> None:
        super().__init__(journal, {})
        self._grown = grown

    def slope(self, kind: Kind, first: int, all_: int, per_second: int) -> Growth:
        return self._grown


def test_the_slope_is_of_calls_that_all_came_and_went(tmp_path: Path) -> None:
    (row,) = measure_slope(SlopeBench(tmp_path / "runs", Growth(100_000, 101_000, 20_000, 0)))
    assert (row.must, row.aim) == (Limit("≤ 2 %", True), Limit("≤ 0.5 %", False))
    for finished, failed in ((19_999, 0), (20_000, 1)):
        with pytest.raises(BenchError):
            measure_slope(SlopeBench(tmp_path / "runs", Growth(1, 1, finished, failed)))


def test_every_figure_is_of_a_name_that_only_takes() -> None:
    assert {"main", "setup", "memory", "slope", "wss"} < FIGURES.keys()


METRICS = {
    "mediad_caller_messages_total": 1000.0,
    "mediad_agent_frames_sent_total": 1000.0,
    "mediad_agent_frames_total": 1000.0,
    "mediad_played_frames_total": 1000.0,
    "mediad_underruns_total": 2.0,
    "mediad_underrun_frames_total": 2.0,
    "mediad_agent_audio_dropped_frames_total": 1.0,
    "mediad_caller_audio_dropped_frames_total": 2.0,
}
TOTAL = {
    **dict.fromkeys(("sent", "agent_received", "agent_sent", "received"), 1005),
    **{"underruns": 2, "underrun_frames": 2, "lost": 3},
}


def test_counters_agree_within_a_hundredth() -> None:
    before = dict.fromkeys(METRICS, 0.0)
    assert disagreements(before, METRICS, TOTAL) == ()
    assert disagreements(before, METRICS, {**TOTAL, "sent": 1011}) == (
        "mediad_caller_messages_total 1000, the generator 1011 sent",
    )
    (lost,) = disagreements(before, METRICS, {**TOTAL, "lost": 4})
    assert lost.endswith("3, the generator 4 lost")
    with pytest.raises(KeyError):
        disagreements({}, METRICS, TOTAL)


MISSED = Row(
    "calls", "3", "4", 0.75, Limit("5", False), Limit("9", False), obstacle="They are long."
)


def test_what_is_missed_is_said_with_what_stands_in_the_way() -> None:
    assert summarise([MISSED]).splitlines() == [
        '- "must" NOT reached: calls: 3 (0.75 × floor), wanted 5.',
        '- "aim" NOT reached: calls: 3 (0.75 × floor), wanted 9. They are long.',
    ]
    reached = replace(MISSED, must=Limit("5", True), aim=None)
    assert summarise([reached]).splitlines() == [
        '- Every "must" is reached.',
        '- Every "aim" is reached.',
    ]
    assert "| 5: NO" in render([MISSED])
    assert "NO" not in render([MISSED], is_judged=False)


def test_flaws_are_those_of_what_is_measured() -> None:
    assert Measured(Kind.FLOOR, 1, (GOOD,)).flaws == ()
