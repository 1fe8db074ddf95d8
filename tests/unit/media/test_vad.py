"""The energy gate: what it lets through, what it learns, and what it makes of noise. It is the one
that calls use; with MEDIAD_CORE=python the specification.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mediad.line import Gate
from mediad.media.vad import HANG_S
from tests.noises import NOISES, RATE_HZ, Score, at_snr, chunks, cough, score, talk, to_pcm

SNR_DB = 10.0
Samples = NDArray[np.float64]


def changes(samples: Samples, rate_hz: int = RATE_HZ, ms: int = 20) -> list[tuple[float, bool]]:
    """Return when the gate opened (True) and closed."""
    gate = Gate(rate_hz)
    found: list[tuple[float, bool]] = []
    for index, chunk in enumerate(chunks(to_pcm(samples), ms)):
        change = gate.process(chunk)
        if change is not None:
            found.append(((index + 1) * ms / 1000, change))
    return found


def starts(samples: Samples) -> list[float]:
    """Return when the gate opened."""
    return [at for at, is_open in changes(samples) if is_open]


def quiet(seconds: float) -> Samples:
    """Return a good line with nothing on it."""
    return 0.003 * np.random.default_rng(1).normal(size=int(seconds * RATE_HZ))


def scored(name: str, seed: int) -> Score:
    """Let 40 callers talk over noise."""
    said = talk(seed, 40)
    mixed = at_snr(said.samples, NOISES[name](seed + 100, len(said.samples)), SNR_DB)
    return score(said.spans, starts(mixed), len(mixed) / RATE_HZ)


@pytest.mark.parametrize("name", NOISES)
def test_voices_are_found_over_noise(name: str) -> None:
    result = Score.mean([scored(name, seed) for seed in (range(1, 5) if name == "babble" else [1])])
    print(f"gate alone, {name} at {SNR_DB:.0f} dB: {result}")
    assert result.found >= 0.95
    assert result.false_a_minute <= 1.0


@pytest.mark.parametrize("name", NOISES)
def test_noise_alone_opens_it_hardly_ever(name: str) -> None:
    minutes = 5 if name == "babble" else 1
    noises = [
        NOISES[name](seed, 60 * RATE_HZ) * 10 ** (-SNR_DB / 20)
        for seed in range(200, 200 + minutes)
    ]
    a_minute = sum(len(starts(noise)) for noise in noises) / minutes
    print(f"gate alone, only {name}: false {a_minute:.2f} a minute")
    assert a_minute <= 1.0


def test_voices_are_found_on_a_good_line() -> None:
    said = talk(3, 40)
    result = score(said.spans, starts(said.samples + quiet(len(said.samples) / RATE_HZ)), 60.0)
    assert result.found == 1.0
    assert result.median_s < 0.08


def test_silence_opens_nothing() -> None:
    assert changes(np.zeros(10 * RATE_HZ)) == []
    assert changes(quiet(10)) == []


def test_it_closes_soon_after_the_end() -> None:
    said = talk(4, 10)
    closed = [
        at
        for at, is_open in changes(said.samples + quiet(len(said.samples) / RATE_HZ))
        if not is_open
    ]
    for _, end in said.spans:
        assert any(end - 0.15 <= at <= end + HANG_S + 0.06 for at in closed)


def test_a_cough_opens_it_too() -> None:
    assert starts(np.concatenate((quiet(2), cough(), quiet(2)))) == [pytest.approx(2.06, abs=0.03)]


def test_new_noise_is_learnt_though_it_opened_the_gate() -> None:
    noise = NOISES["white"](5, 20 * RATE_HZ) * 0.3
    found = changes(np.concatenate((quiet(2), noise)))
    assert [is_open for _, is_open in found] == [True, False]
    assert found[1][0] < 4.0


def test_babble_that_begins_is_learnt() -> None:
    noise = NOISES["babble"](9, 60 * RATE_HZ) * 0.3
    open_s = 0.0
    for at, is_open in changes(np.concatenate((quiet(2), noise))):
        open_s += -at if is_open else at
    assert 0.0 < open_s < 10.0


def test_noise_that_stops_does_not_make_it_deaf() -> None:
    noise = np.concatenate((NOISES["white"](5, 6 * RATE_HZ) * 0.5, quiet(1.5)))
    said = talk(6, 5)
    voices = 0.1 * said.samples  # 20 dB below: under the noise before
    opened = starts(np.concatenate((noise, voices + quiet(len(voices) / RATE_HZ))))
    found = score([(a + 7.5, b + 7.5) for a, b in said.spans], opened, 60.0)
    assert found.found == 1.0


def test_who_speaks_from_the_start_is_heard_after_a_pause() -> None:
    said = talk(8, 6, quiet_s=(0.15, 0.2))
    speech = said.samples[int(said.spans[0][0] * RATE_HZ) :]
    assert starts(speech + quiet(len(speech) / RATE_HZ))


def test_a_constant_is_no_sound() -> None:
    assert changes(np.concatenate((np.zeros(8000), np.full(16_000, 2.0)))) == []


def test_the_noise_is_told_in_db_below_full_scale() -> None:
    gate = Gate(RATE_HZ)
    gate.process(to_pcm(NOISES["white"](1, 4 * RATE_HZ), level=328))
    assert gate.noise_db == pytest.approx(-40, abs=1)


def test_other_rates_are_alike() -> None:
    said = talk(2, 10)
    pcm = to_pcm(said.samples + quiet(len(said.samples) / RATE_HZ))
    twice = np.repeat(np.frombuffer(pcm, "<i2"), 2).astype("<i2").tobytes()
    narrow, wide = Gate(8000), Gate(16_000)
    for at in range(0, len(pcm), 320):
        assert narrow.process(pcm[at : at + 320]) == wide.process(twice[2 * at : 2 * at + 640])


@given(st.lists(st.integers(1, 4000), min_size=1, max_size=20))
def test_how_the_audio_is_cut_makes_no_difference(sizes: list[int]) -> None:
    said = talk(5, 1, quiet_s=(0.5, 0.6))
    pcm = to_pcm(said.samples)
    whole, pieces = Gate(RATE_HZ), Gate(RATE_HZ)
    at = 0
    while at < len(pcm):
        for size in sizes:
            pieces.process(pcm[at : at + size])
            at += size
    for chunk in chunks(pcm, 10):
        whole.process(chunk)
    assert (pieces.is_open, pieces.noise_db) == (whole.is_open, whole.noise_db)
