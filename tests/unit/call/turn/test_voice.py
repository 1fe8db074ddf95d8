"""The caller's voice: the gate, and the model that confirms it."""

import queue
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mediad.ai.silero import Hearing, Silero
from mediad.call.turn.voice import (
    ANSWER_S,
    BEFORE_S,
    Ask,
    Voice,
    VoiceEvent,
    VoiceStarted,
    VoiceStopped,
)
from mediad.media.vad import BLOCK_S, HANG_S
from tests.noises import BURSTS, NOISES, RATE_HZ, Score, at_snr, chunks, cough, score, talk, to_pcm
from tests.silero_model import silero_model

SNR_DB = 10.0
FRAME_S = 0.020
Samples = NDArray[np.float64]


class Scorer:
    """The model, asked and waited for."""

    def __init__(self, model: Path) -> None:
        self._told: queue.Queue[list[tuple[Hearing, float]]] = queue.Queue()
        self._worker = Silero(model, self._told.put)
        self._hearings: dict[int, Hearing] = {}

    def score(self, ask: Ask) -> list[float]:
        """Return the scores of an opening's next windows."""
        hearing = self._hearings.setdefault(ask.opening, Hearing(RATE_HZ))
        assert self._worker.ask(hearing, ask.windows)
        return [self._told.get(timeout=10)[0][1] for _ in ask.windows]

    def forget(self) -> None:
        """A new call."""
        self._hearings.clear()

    def close(self) -> None:
        """Stop the worker."""
        self._worker.close()


@pytest.fixture(scope="module")
def scorer() -> Iterator[Scorer]:
    """The model; without it the test is skipped."""
    scorer = Scorer(silero_model())
    yield scorer
    scorer.close()


def quiet(seconds: float) -> Samples:
    """Return a good line with nothing on it."""
    return 0.003 * np.random.default_rng(1).normal(size=int(seconds * RATE_HZ))


def starts(samples: Samples, scorer: Scorer) -> list[float]:
    """Return when a voice started."""
    scorer.forget()
    voice = Voice(RATE_HZ, has_model=True)
    found: list[float] = []
    for index, chunk in enumerate(chunks(to_pcm(samples))):
        now = (index + 1) * FRAME_S
        events = voice.process(chunk, now)
        for event in list(events):
            if isinstance(event, Ask):
                for number in scorer.score(event):
                    events += voice.on_score(event.opening, number)
        found += [now for event in events if isinstance(event, VoiceStarted)]
    return found


def scored(name: str, seed: int, scorer: Scorer) -> Score:
    """Let 40 callers talk over noise."""
    said = talk(seed, 40)
    mixed = at_snr(said.samples, NOISES[name](seed + 100, len(said.samples)), SNR_DB)
    return score(said.spans, starts(mixed, scorer), len(mixed) / RATE_HZ)


@pytest.mark.parametrize("name", NOISES)
def test_voices_are_found_over_noise(name: str, scorer: Scorer) -> None:
    seeds = range(1, 5) if name == "babble" else [1]
    result = Score.mean([scored(name, seed, scorer) for seed in seeds])
    print(f"gate and Silero, {name} at {SNR_DB:.0f} dB: {result}")
    assert result.found >= 0.95
    assert result.false_a_minute <= 1.0


@pytest.mark.parametrize("name", NOISES)
def test_noise_alone_is_no_voice(name: str, scorer: Scorer) -> None:
    minutes = 5 if name == "babble" else 1
    noises = [
        NOISES[name](seed, 60 * RATE_HZ) * 10 ** (-SNR_DB / 20)
        for seed in range(200, 200 + minutes)
    ]
    a_minute = sum(len(starts(noise, scorer)) for noise in noises) / minutes
    print(f"gate and Silero, only {name}: false {a_minute:.2f} a minute")
    assert a_minute <= 1.0


@pytest.mark.parametrize("name", BURSTS)
def test_a_burst_is_no_voice(name: str, scorer: Scorer) -> None:
    for seed in range(10):
        samples = np.concatenate((quiet(2), BURSTS[name](seed), quiet(1)))
        assert starts(samples, scorer) == []


# Without the model itself


def events_of(
    voice: Voice, samples: Samples, answer: float | None = None
) -> list[tuple[float, VoiceEvent]]:
    """Process audio; answer each window with a score, or not at all."""
    found: list[tuple[float, VoiceEvent]] = []
    for index, chunk in enumerate(chunks(to_pcm(samples))):
        now = (index + 1) * FRAME_S
        events = voice.process(chunk, now)
        if answer is not None:
            for event in list(events):
                if isinstance(event, Ask):
                    events += voice.on_score(event.opening, answer)
        found += [(now, event) for event in events]
    return found


BURST = np.concatenate((quiet(2), cough(), quiet(1)))


def test_without_a_model_the_gate_alone_decides() -> None:
    events = events_of(Voice(RATE_HZ, has_model=False), BURST)
    assert [event for _, event in events] == [VoiceStarted(False), VoiceStopped(HANG_S + BLOCK_S)]
    assert events[0][0] == pytest.approx(2.06, abs=0.03)


def test_what_the_model_takes_for_a_voice_is_one() -> None:
    events = [event for _, event in events_of(Voice(RATE_HZ, has_model=True), BURST, 0.9)]
    assert isinstance(events[0], Ask)
    assert events[1:] == [VoiceStarted(True), VoiceStopped(HANG_S + BLOCK_S)]


def test_it_is_asked_until_it_says_so_about_all_that_was_said_and_a_little_before() -> None:
    voice = Voice(RATE_HZ, has_model=True)
    events = events_of(voice, BURST, 0.1)
    assert all(isinstance(event, Ask) for _, event in events)
    windows = [w for _, event in events if isinstance(event, Ask) for w in event.windows]
    assert {len(window) for window in windows} == {512}
    opened = events[0][0]
    heard = b"".join(windows)
    before = int((opened - BEFORE_S) * RATE_HZ) * 2
    assert to_pcm(BURST)[before : before + len(heard)] == heard
    assert not voice.is_voice


def test_a_model_that_does_not_answer_leaves_it_to_the_gate() -> None:
    events = events_of(Voice(RATE_HZ, has_model=True), BURST)
    opened = events[0][0]
    started = [(at, event) for at, event in events if isinstance(event, VoiceStarted)]
    assert [event for _, event in started] == [VoiceStarted(False)]
    assert started[0][0] == pytest.approx(opened + ANSWER_S, abs=FRAME_S)


def test_a_model_that_refuses_too() -> None:
    voice = Voice(RATE_HZ, has_model=True)
    events_of(voice, BURST[: int(2.1 * RATE_HZ)])
    assert voice.on_refused(1) == [VoiceStarted(False)]
    assert voice.on_refused(1) == []


def test_an_answer_that_comes_too_late_is_nothing() -> None:
    voice = Voice(RATE_HZ, has_model=True)
    events_of(voice, BURST, 0.1)
    assert voice.on_score(1, 0.9) == []
    events_of(voice, BURST[: int(2.1 * RATE_HZ)])
    assert voice.on_score(1, 0.9) == []
    assert voice.on_score(2, 0.9) == [VoiceStarted(True)]
