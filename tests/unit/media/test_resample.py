"""The resampler, which is the specification of the compiled one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mediad.media.resample import SAMPLE_RATES, Resampler, filter_bank
from tests.unit.line.lines import Samples, noise, tone
from tests.unit.media.spectrum import gain_and_rest_db

PAIRS = [
    (8000, 16_000),
    (16_000, 8000),
    (24_000, 8000),
    (48_000, 16_000),
    (16_000, 24_000),
    (22_050, 8000),
    (44_100, 16_000),
    (16_000, 44_100),
]


def resample(samples: Samples, source_hz: int, target_hz: int) -> Samples:
    """Change the rate of a whole signal."""
    return np.frombuffer(Resampler(source_hz, target_hz).process(samples.tobytes()), "<i2")


@pytest.mark.parametrize(("source_hz", "target_hz"), PAIRS)
@pytest.mark.parametrize("frequency_hz", [300, 1000, 2500, 3400])
def test_the_band_is_flat_and_without_images(
    source_hz: int, target_hz: int, frequency_hz: int
) -> None:
    made = resample(tone(frequency_hz, source_hz, 1.0), source_hz, target_hz)
    gain, rest = gain_and_rest_db(made, frequency_hz, target_hz, 12_000)
    assert abs(gain) < 0.5
    assert rest < -70


@pytest.mark.parametrize("source_hz", [16_000, 24_000, 48_000, 22_050, 44_100])
def test_what_the_target_cannot_hold_is_taken_out(source_hz: int) -> None:
    for frequency_hz in range(4600, min(source_hz // 2, 12_000), 700):
        made = resample(tone(frequency_hz, source_hz, 0.3), source_hz, 8000)
        level = np.abs(made[100:-100].astype(float)).max()
        assert 20 * np.log10(max(level, 1e-9) / 12_000) < -70


@pytest.mark.parametrize(("source_hz", "target_hz"), PAIRS)
def test_dc_passes_exactly(source_hz: int, target_hz: int) -> None:
    made = resample(np.full(source_hz // 10, -20_000, np.int16), source_hz, target_hz)
    assert (made[target_hz // 100 :] == -20_000).all()


@pytest.mark.parametrize(("source_hz", "target_hz"), PAIRS)
def test_full_scale_is_clipped_and_never_wraps(source_hz: int, target_hz: int) -> None:
    # What rings most: the signs of the filter's own taps, which the output then follows.
    _, _, taps = filter_bank(source_hz, target_hz)
    worst = np.where(taps[0] > 0, 32_767, -32_768).astype(np.int16)
    made = resample(np.concatenate((worst, -worst - 1, worst)), source_hz, target_hz)
    assert made.max() == 32_767
    assert made.min() == -32_768


@pytest.mark.parametrize(("source_hz", "target_hz"), PAIRS)
def test_the_delay_is_under_3_ms(source_hz: int, target_hz: int) -> None:
    pulse = np.zeros(source_hz // 20, np.int16)
    pulse[0] = 20_000
    power = resample(pulse, source_hz, target_hz).astype(float) ** 2
    assert (power * np.arange(len(power))).sum() / power.sum() / target_hz < 0.003


@pytest.mark.parametrize(("source_hz", "target_hz"), PAIRS)
def test_as_many_samples_come_as_the_rates_say(source_hz: int, target_hz: int) -> None:
    resampler = Resampler(source_hz, target_hz)
    taken = given_back = 0
    for count in (1, 160, 0, 7, 441, 2):
        taken += count
        given_back += len(resampler.process(bytes(2 * count))) // 2
        assert given_back == -(-taken * target_hz // source_hz)


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(PAIRS),
    st.lists(st.integers(0, 500), max_size=20),
)
def test_chunks_do_not_change_one_sample(pair: tuple[int, int], sizes: list[int]) -> None:
    samples = noise(1, sum(sizes)).tobytes()
    resampler = Resampler(*pair)
    made, at = b"", 0
    for size in sizes:
        made += resampler.process(samples[at : at + 2 * size])
        at += 2 * size
    assert made == Resampler(*pair).process(samples)


def test_equal_rates_pass_untouched() -> None:
    pcm = noise(1, 100).tobytes()
    assert Resampler(16_000, 16_000).process(pcm) is pcm


def test_a_reset_forgets_the_past() -> None:
    resampler = Resampler(24_000, 16_000)
    resampler.process(noise(1, 1001).tobytes())
    resampler.reset()
    pcm = noise(2, 1001).tobytes()
    assert resampler.process(pcm) == Resampler(24_000, 16_000).process(pcm)


def test_banks_are_shared() -> None:
    assert filter_bank(8000, 16_000)[2] is filter_bank(8000, 16_000)[2]
    assert not filter_bank(8000, 16_000)[2].flags.writeable


def test_every_pair_of_rates_has_a_bank_for_the_vectors() -> None:
    for source_hz in SAMPLE_RATES:
        for target_hz in SAMPLE_RATES:
            up, down, taps = filter_bank(source_hz, target_hz)
            assert source_hz * up == target_hz * down
            assert taps.shape[0] == up
            assert taps.shape[1] % 4 == 0


@pytest.mark.parametrize("pair", [(8001, 8000), (8000, 0)])
def test_other_rates_are_refused(pair: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="no filter for"):
        Resampler(*pair)
