"""The ticker on a clock of the test's own."""

import asyncio
from collections.abc import Callable

import pytest

from mediad.call.ticker import MAX_LATE_S, SLOTS, TICK_S, Ticker
from mediad.metrics import Metrics


class Clock:
    """A loop with one timer, and its time."""

    def __init__(self) -> None:
        self.now = 100.0
        self._timers: list[tuple[float, Callable[[], None]]] = []

    def call_later(self, delay: float, callback: Callable[[], None]) -> "Clock":
        """Set a timer."""
        self._timers.append((self.now + delay, callback))
        return self

    def cancel(self) -> None:
        """Cancel it."""
        self._timers.clear()

    def run(self, until: float, late_s: float = 0.0) -> None:
        """Let time pass; every timer is late by as much."""
        while self._timers and self._timers[0][0] + late_s <= until:
            due, callback = self._timers.pop(0)
            self.now = max(self.now, due + late_s)
            callback()
        self.now = max(self.now, until)


class Call:
    """Something ticked."""

    def __init__(self, error: Exception | None = None) -> None:
        self.ticks: list[float] = []
        self.failures = 0
        self._error = error

    def tick(self, now: float) -> None:
        """Take note of it."""
        self.ticks.append(now)
        if self._error:
            raise self._error

    def fail(self) -> None:
        """Take note of it."""
        self.failures += 1


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock, in the loop's place."""
    clock = Clock()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: clock)
    return clock


@pytest.fixture
def metrics() -> Metrics:
    """Metrics of this test's own."""
    return Metrics()


@pytest.fixture
def ticker(clock: Clock, metrics: Metrics) -> Ticker:
    """A ticker that runs."""
    ticker = Ticker(metrics, lambda: clock.now)
    ticker.start()
    return ticker


def skipped(metrics: Metrics) -> float | None:
    """Return the counter."""
    return metrics.registry.get_sample_value("mediad_ticks_skipped_total")


def test_every_call_is_ticked_once_in_20_ms(clock: Clock, ticker: Ticker) -> None:
    calls = [Call() for _ in range(10)]
    for call in calls:
        ticker.add(call)
    clock.run(until=101.0)
    for call in calls:
        assert len(call.ticks) in (50, 51)
        gaps = {round(b - a, 6) for a, b in zip(call.ticks, call.ticks[1:], strict=False)}
        assert gaps == {TICK_S}


def test_calls_are_spread_over_the_slots(clock: Clock, ticker: Ticker) -> None:
    calls = [Call() for _ in range(SLOTS * 3)]
    for call in calls:
        ticker.add(call)
    clock.run(until=100.1)
    phases = [round((call.ticks[0] - 100.0) / (TICK_S / SLOTS)) % SLOTS for call in calls]
    assert sorted(phases) == sorted(list(range(SLOTS)) * 3)


def test_late_wake_ups_do_not_move_later_ticks(clock: Clock, ticker: Ticker) -> None:
    call = Call()
    ticker.add(call)
    clock.run(until=101.0, late_s=0.003)
    assert len(call.ticks) == 50
    assert call.ticks[-1] == pytest.approx(call.ticks[0] + 49 * TICK_S)


def test_short_stall_is_caught_up(clock: Clock, ticker: Ticker, metrics: Metrics) -> None:
    call = Call()
    ticker.add(call)
    clock.run(until=100.2)
    before = len(call.ticks)
    clock.now += MAX_LATE_S - 0.006
    clock.run(until=100.4)
    assert len(call.ticks) - before == 10
    assert skipped(metrics) == 0


def test_long_stall_is_skipped_and_counted(clock: Clock, ticker: Ticker, metrics: Metrics) -> None:
    calls = [Call() for _ in range(6)]
    for call in calls:
        ticker.add(call)
    clock.run(until=100.2)
    before = [len(call.ticks) for call in calls]
    clock.now += 1.0
    stalled_at = clock.now
    clock.run(until=102.0)
    assert skipped(metrics) == 6 * 49  # the 1 s, less what is caught up
    for call, count in zip(calls, before, strict=True):
        after = call.ticks[count:]
        assert sum(at == stalled_at for at in after) <= 2  # no burst
        assert count + len(after) + 49 in (100, 101)


def test_failing_call_is_ended_alone(clock: Clock, ticker: Ticker) -> None:
    bad, good = Call(RuntimeError("oops")), Call()
    ticker.add(bad)
    ticker.add(good)
    clock.run(until=100.5)
    assert (len(bad.ticks), bad.failures) == (1, 1)
    assert (len(good.ticks), good.failures) == (25, 0)


def test_removed_call_is_ticked_no_more(clock: Clock, ticker: Ticker) -> None:
    call = Call()
    ticker.add(call)
    clock.run(until=100.1)
    ticker.remove(call)
    ticker.remove(call)
    count = len(call.ticks)
    clock.run(until=100.5)
    assert len(call.ticks) == count


def test_stopped_ticker_ticks_no_more(clock: Clock, ticker: Ticker) -> None:
    call = Call()
    ticker.add(call)
    ticker.stop()
    clock.run(until=100.5)
    assert call.ticks == []
