"""Reads of the API beside calls, in short: nobody is refused, and no caller hears of it."""

from importlib.util import find_spec

from bench.api_beside_calls import Load, Measured, measure
from bench.build import build
from bench.process import BenchError, can_favour, choose_cores
from tests.missing import skip_or_fail

LOAD = Load(calls=10, reads_per_s=100, connections=10, seconds=5.0)
TRIES = 3
"""A busy machine gives our programs less than a core each."""


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
    for _ in range(TRIES):
        measured = run()
        calls, reads = measured.calls, measured.reads
        assert (calls.started, calls.failed, calls.left_open) == (LOAD.calls, 0, 0)
        assert set(reads.statuses) == {200}
        assert reads.broken == 0
        assert set(reads.seconds) == {"a live call", "calls", "agents", "a transcript"}
        if not calls.window["underruns"]:
            return
    # Without the privilege to go first, other programs are heard, too.
    assert not can_favour(), calls
