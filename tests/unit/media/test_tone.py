"""The tones a caller hears when there is nobody to speak."""

import numpy as np
import pytest

from mediad.media.tone import RATE_HZ, unavailable_tone, waiting_tone


@pytest.mark.parametrize(
    ("pcm", "seconds", "peak_db"), [(waiting_tone(), 2.0, -26), (unavailable_tone(), 1.5, -20)]
)
def test_a_tone_is_soft_and_of_its_length(pcm: bytes, seconds: float, peak_db: float) -> None:
    samples = np.frombuffer(pcm, "<i2").astype(float)
    assert len(samples) == seconds * RATE_HZ
    assert 20 * np.log10(np.abs(samples).max() / 32_767) == pytest.approx(peak_db, abs=0.1)


@pytest.mark.parametrize("pcm", [waiting_tone(), unavailable_tone()])
def test_a_tone_repeats_without_a_click(pcm: bytes) -> None:
    samples = np.frombuffer(pcm, "<i2").astype(int)
    assert samples[0] == samples[-1] == 0
    steepest = np.abs(np.diff(samples)).max()
    assert steepest < 0.3 * np.abs(samples).max()
