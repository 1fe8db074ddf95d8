"""The watch over the media loop. The loop is this test's thread, its clock a number."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from math import inf

import pytest

from mediad.loop_watch import LoopWatch
from mediad.metrics import Metrics

TICK_S = 0.005


class Loop:
    """A loop with a clock."""

    def __init__(self) -> None:
        self.due = inf
        self.fed: list[float] = []
        self.metrics = Metrics()

    def run(self, seconds: float) -> None:
        """Tick as it should."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.due = time.monotonic() + TICK_S
            time.sleep(TICK_S)
        self.due = time.monotonic() + TICK_S

    @property
    def stalls(self) -> float:
        return self.metrics.registry.get_sample_value("mediad_event_loop_stalls_total") or 0


@contextmanager
def watched(feed_every_s: float | None = None) -> Iterator[Loop]:
    loop = Loop()
    watch = LoopWatch(
        lambda: loop.due, loop.metrics, lambda: loop.fed.append(time.monotonic()), feed_every_s
    )
    watch.start()
    try:
        yield loop
    finally:
        watch.stop()


def hold_up_the_loop(seconds: float) -> None:
    time.sleep(seconds)


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_stall_is_told_once_with_its_length_and_the_stack(caplog: pytest.LogCaptureFixture) -> None:
    with watched() as loop:
        loop.run(0.05)
        hold_up_the_loop(0.2)
        loop.run(0.1)
        assert loop.stalls == 1
    (record,) = caplog.records
    message = record.getMessage()
    assert message.startswith("the media loop was held up for ")
    assert 150 < int(message.split(" ms")[0].rpartition(" ")[2]) < 400
    assert f"hold_up_the_loop ({__file__}:" in message.rpartition(" > ")[2]
    assert "\n" not in message


def test_stack_that_was_read_too_late_is_not_told(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with watched() as loop:

        def get_on(frame: object) -> str:
            loop.due = time.monotonic() + 10
            return "somebody else"

        monkeypatch.setattr("mediad.loop_watch._stack", get_on)
        loop.due = time.monotonic()
        until(lambda: len(caplog.records) == 1)
    message = caplog.records[0].getMessage()
    assert "it got on before its stack could be read" in message
    assert "somebody else" not in message


def keep_the_interpreter() -> None:
    sum(range(10_000_000))  # compiled code, and no thread gets its turn meanwhile


def test_other_thread_that_keeps_the_interpreter_is_told(caplog: pytest.LogCaptureFixture) -> None:
    def is_told() -> bool:
        """Which of the threads that wait goes on first is chance."""
        thread = threading.Thread(target=keep_the_interpreter, name="hog")
        thread.start()
        loop.run(0.02)
        thread.join()
        messages = [record.getMessage() for record in caplog.records]
        return any(f"hog in keep_the_interpreter ({__file__}:" in told for told in messages)

    with watched() as loop, ThreadPoolExecutor(1) as pool:
        pool.submit(bool).result()
        until(is_told)
    assert not any("ThreadPool" in record.getMessage() for record in caplog.records)


def test_loop_that_gets_on_is_not_told_of(caplog: pytest.LogCaptureFixture) -> None:
    with watched() as loop:
        loop.run(0.3)
        assert loop.stalls == 0
    assert caplog.records == []


def test_each_stall_counts(caplog: pytest.LogCaptureFixture) -> None:
    with watched() as loop:
        for _ in range(3):
            hold_up_the_loop(0.08)
            loop.run(0.03)
            hold_up_the_loop(0.08)
            loop.run(0.03)
        assert loop.stalls >= 5  # the first may find the clock not running yet
    assert len(caplog.records) >= 5


def test_stall_without_end_is_told_while_it_lasts(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mediad.loop_watch._MAX_STALL_S", 0.1)
    with watched() as loop:
        loop.run(0.02)
        until(lambda: len(caplog.records) == 1)
        time.sleep(0.3)
        assert len(caplog.records) == 1
        assert loop.stalls == 1


def test_stopped_clock_is_no_stall(caplog: pytest.LogCaptureFixture) -> None:
    with watched(0.0) as loop:
        loop.run(0.05)
        loop.due = inf
        time.sleep(0.2)
        assert loop.stalls == 0
        assert len(loop.fed) < 10
    assert caplog.records == []


def test_systemd_is_fed_while_the_loop_gets_on_and_not_while_it_stands() -> None:
    with watched(0.1) as loop:
        loop.run(0.5)
        assert 3 <= len(loop.fed) <= 6
        gaps = [after - before for before, after in zip(loop.fed, loop.fed[1:], strict=False)]
        assert min(gaps) >= 0.1
        hold_up_the_loop(0.2)
        fed = len(loop.fed)
        hold_up_the_loop(0.3)
        assert len(loop.fed) == fed
        loop.run(0.2)
        assert len(loop.fed) > fed


def test_watch_that_was_not_started_can_be_stopped() -> None:
    LoopWatch(lambda: inf, Metrics(), bool, None).stop()


def test_stop_does_not_wait_for_a_stall_to_end() -> None:
    with watched() as loop:
        loop.run(0.02)
        time.sleep(0.1)
        stopped_at = time.monotonic()
    assert time.monotonic() - stopped_at < 0.5
