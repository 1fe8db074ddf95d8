"""Reads of the API beside calls, in short: nobody is refused, and no caller hears of it. And the
bench of it fails when one does.
"""

import sys
from dataclasses import replace
from importlib.util import find_spec
from math import inf
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bench import api as bench
from bench.api_beside_calls import Load, Measured, Reads, measure
from bench.build import build
from bench.generator import Result
from bench.process import BenchError, can_favour, choose_cores
from tests.missing import skip_or_fail

LOAD = Load(calls=10, reads_per_s=100, connections=10, seconds=5.0)
MAX_LAG_S = 0.020
"""For 99 of 100 wake-ups of the media loop; the bench, with more of everything, wants 10 ms."""


def run() -> Measured:
    """Measure; what is missing here must not be missing in CI."""
    try:
        if find_spec("mediad.line._core") is None:
            raise BenchError("the compiled core is not built")
        programs, cores = build(), choose_cores()
    except BenchError as exc:
        skip_or_fail(exc)
    return measure(programs, cores, LOAD)


def test_reads_beside_calls_are_answered_and_not_heard() -> None:
    measured = run()
    calls, reads = measured.calls, measured.reads
    assert (calls.started, calls.failed, calls.left_open) == (LOAD.calls, 0, 0)
    assert set(reads.statuses) == {200}
    assert reads.broken == 0
    assert set(reads.seconds) == {"a live call", "calls", "agents", "a transcript"}
    if not can_favour():
        pytest.skip("callers hear other programs, too, without real-time priority (CAP_SYS_NICE)")
    assert calls.window["underruns"] == 0, calls
    assert measured.lag_p99_s <= MAX_LAG_S, measured.lag


GOOD = Measured(
    cast(Result, SimpleNamespace(window={"underruns": 0})),
    Reads(10.0, {200: 2_000}, 0, {}),
    {0.01: 99.0, inf: 100.0},
)


@pytest.mark.parametrize(
    "bad",
    [
        {"reads": Reads(10.0, {200: 1_999}, 0, {})},
        {"reads": Reads(10.0, {200: 2_000, 503: 1}, 0, {})},
        {"reads": Reads(10.0, {200: 2_000}, 1, {})},
        {"calls": SimpleNamespace(window={"underruns": 1})},
        {"lag": {0.01: 98.0, inf: 100.0}},
    ],
)
def test_the_bench_fails_when_an_aim_is_missed(
    bad: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [GOOD, GOOD, GOOD, replace(GOOD, **bad)]
    monkeypatch.setattr(sys, "argv", ["bench.api"])
    monkeypatch.setattr(bench, "build", lambda: None)
    monkeypatch.setattr(bench, "choose_cores", lambda: (0, 1))
    monkeypatch.setattr(bench, "_measure", lambda *_: runs.pop(0))
    monkeypatch.setattr(bench, "_report", lambda *_: "")
    bench.main()
    with pytest.raises(SystemExit) as ended:
        bench.main()
    assert ended.value.code not in (None, 0)
