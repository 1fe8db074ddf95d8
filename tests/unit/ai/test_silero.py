"""Silero's model in its worker thread."""

import queue
import threading
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from mediad.ai import silero
from mediad.ai.silero import MAX_BATCH, MAX_WAITING, Hearing, Silero, find_model
from tests.noises import BURSTS, at_snr, talk, to_pcm
from tests.silero_model import silero_model

WINDOW_BYTES = 512  # 32 ms at 8 kHz


@pytest.fixture(scope="module")
def model() -> Path:
    """The model's file."""
    return silero_model()


class Scores:
    """What the worker tells, taken in the test's thread."""

    def __init__(self) -> None:
        self._told: queue.Queue[tuple[Hearing, float]] = queue.Queue()
        self.batches: list[int] = []

    def __call__(self, scores: list[tuple[Hearing, float]]) -> None:
        self.batches.append(len(scores))
        for score in scores:
            self._told.put(score)

    def take(self, count: int) -> list[tuple[Hearing, float]]:
        """Wait for so many."""
        return [self._told.get(timeout=10) for _ in range(count)]

    def of(self, hearing: Hearing, count: int) -> list[float]:
        """Wait for so many, all of one hearing."""
        taken = self.take(count)
        assert all(who is hearing for who, _ in taken)
        return [score for _, score in taken]


def windows_of(pcm: bytes, size: int = WINDOW_BYTES) -> list[bytes]:
    """Cut what is heard."""
    return [pcm[at : at + size] for at in range(0, len(pcm) - size + 1, size)]


def speech(seed: int) -> bytes:
    """One utterance after half a second."""
    said = talk(seed, 1, quiet_s=(0.5, 0.6))
    noise = np.random.default_rng(seed).normal(size=len(said.samples))
    return to_pcm(at_snr(said.samples, noise, 30))


def test_a_voice_is_a_voice(model: Path) -> None:
    scores = Scores()
    worker = Silero(model, scores)
    for seed in range(5):
        windows, hearing = windows_of(speech(seed)), Hearing(8000)
        assert worker.ask(hearing, windows)
        assert max(scores.of(hearing, len(windows))) > 0.8
    worker.close()


@pytest.mark.parametrize("name", BURSTS)
def test_other_sounds_are_none(model: Path, name: str) -> None:
    scores = Scores()
    worker = Silero(model, scores)
    for seed in range(5):
        burst = np.concatenate((np.zeros(4000), BURSTS[name](seed), np.zeros(2000)))
        windows, hearing = windows_of(to_pcm(burst)), Hearing(8000)
        worker.ask(hearing, windows)
        assert max(scores.of(hearing, len(windows))) < 0.5
    worker.close()


def test_it_hears_16_khz_too(model: Path) -> None:
    scores = Scores()
    worker = Silero(model, scores)
    narrow = np.frombuffer(speech(1), "<i2")
    at = np.arange(2 * len(narrow)) / 2
    wide = np.interp(at, np.arange(len(narrow)), narrow).astype("<i2").tobytes()
    windows, hearing = windows_of(wide, 2 * WINDOW_BYTES), Hearing(16_000)
    assert worker.ask(hearing, windows)
    assert max(scores.of(hearing, len(windows))) > 0.8
    worker.close()


def test_no_other_rate() -> None:
    with pytest.raises(ValueError, match="44100"):
        Hearing(44_100)


def test_calls_scored_together_do_not_disturb_each_other(model: Path) -> None:
    scores = Scores()
    worker = Silero(model, scores)
    alone: list[list[float]] = []
    streams = [windows_of(speech(seed))[:20] for seed in range(8)]
    for windows in streams:
        hearing = Hearing(8000)
        worker.ask(hearing, windows)
        alone.append(scores.of(hearing, 20))
    hearings = [Hearing(8000) for _ in streams]
    for index in range(20):
        for hearing, windows in zip(hearings, streams, strict=True):
            worker.ask(hearing, windows[index : index + 1])
    together = scores.take(20 * len(streams))
    for hearing, expected in zip(hearings, alone, strict=True):
        assert [score for who, score in together if who is hearing] == pytest.approx(
            expected, abs=1e-4
        )
    worker.close()


class Gated(Scores):
    """Lets the worker's first batch return when the test says so: until then the rest waits."""

    def __init__(self) -> None:
        super().__init__()
        self.is_busy = threading.Event()
        self.go_on = threading.Event()

    def __call__(self, scores: list[tuple[Hearing, float]]) -> None:
        super().__call__(scores)
        self.is_busy.set()
        self.go_on.wait(10)


def test_what_waits_is_scored_in_batches_each_hearing_in_its_order(model: Path) -> None:
    scores = Gated()
    worker = Silero(model, scores)
    window = bytes(WINDOW_BYTES)
    worker.ask(Hearing(8000), [window])
    assert scores.is_busy.wait(10)
    hearings = [Hearing(8000) for _ in range(MAX_BATCH + 6)]
    for hearing in hearings:
        assert worker.ask(hearing, [window, window])
    wide = Hearing(16_000)
    worker.ask(wide, [2 * window])
    scores.go_on.set()
    told = scores.take(1 + 2 * len(hearings) + 1)
    assert [sum(who is hearing for who, _ in told) for hearing in hearings] == [2] * len(hearings)
    assert scores.batches[1] == MAX_BATCH
    assert sum(scores.batches) == worker.counters().windows == len(told)
    assert len(scores.batches) == worker.counters().batches <= 8
    worker.close()


def test_when_full_it_refuses_and_counts(model: Path) -> None:
    scores = Gated()
    worker = Silero(model, scores)
    window = bytes(WINDOW_BYTES)
    worker.ask(Hearing(8000), [window])
    assert scores.is_busy.wait(10)
    waiting = Hearing(8000)
    assert worker.ask(waiting, [window] * MAX_WAITING)
    assert not worker.ask(Hearing(8000), [window] * 3)
    assert worker.counters().refused == 3
    waiting.is_over = True
    scores.go_on.set()
    scores.take(1)
    other = Hearing(8000)
    while not worker.ask(other, [window]):  # until the worker has thrown away what waits
        time.sleep(0.001)
    assert scores.take(1)[0][0] is other
    worker.close()


def test_nothing_is_scored_for_whom_nobody_waits(model: Path) -> None:
    scores = Gated()
    worker = Silero(model, scores)
    window = bytes(WINDOW_BYTES)
    worker.ask(Hearing(8000), [window])
    assert scores.is_busy.wait(10)
    over, other = Hearing(8000), Hearing(8000)
    worker.ask(over, [window] * 5)
    worker.ask(other, [window])
    over.is_over = True
    scores.go_on.set()
    assert [who for who, _ in scores.take(2)][1] is other
    assert worker.counters().windows == 2
    worker.close()


def test_after_the_end_everything_is_refused(model: Path) -> None:
    worker = Silero(model, Scores())
    worker.close()
    assert not worker.ask(Hearing(8000), [bytes(WINDOW_BYTES)])
    assert not [thread for thread in threading.enumerate() if thread.name == "silero"]


def test_without_onnxruntime_or_a_model_there_is_none(tmp_path: Path) -> None:
    with mock.patch("importlib.util.find_spec", return_value=None):
        assert find_model() is None
    with mock.patch.object(silero, "_PACKAGES", ("json/nowhere", "no_such_package/data")):
        assert find_model() is None


def test_what_a_window_costs(model: Path) -> None:
    scores = Scores()
    worker = Silero(model, scores)
    for count in (1, 8, 64):
        hearings = [Hearing(8000) for _ in range(count)]
        rounds = 20
        began = time.perf_counter()
        for _ in range(rounds):
            for hearing in hearings:
                worker.ask(hearing, [bytes(WINDOW_BYTES)])
            scores.take(count)
        each_us = (time.perf_counter() - began) / rounds / count * 1e6
        print(f"Silero, {count} calls at once: {each_us:.0f} µs a window")
        assert each_us < 5000  # a machine that is this slow cannot use it
    worker.close()
