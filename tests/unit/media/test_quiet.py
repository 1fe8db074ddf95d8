"""Where stopped speech goes on."""

import numpy as np
import pytest

from mediad.media.quiet import nearest_quiet
from tests.unit.line.lines import tone

RATE_HZ = 8000


def loud_but(quiet_at_s: float, seconds: float = 1.0) -> bytes:
    """Return a tone with 20 ms of near silence so long before its end."""
    samples = tone(440, RATE_HZ, seconds)
    at = len(samples) - int(quiet_at_s * RATE_HZ)
    samples[at : at + 160] //= 100
    return samples.tobytes()


def test_it_is_where_the_gap_between_words_was() -> None:
    back_s = nearest_quiet(loud_but(0.12), RATE_HZ) / 2 / RATE_HZ
    assert 0.100 <= back_s <= 0.120


def test_a_gap_longer_ago_than_200_ms_is_not_looked_at() -> None:
    assert nearest_quiet(loud_but(0.3), RATE_HZ) / 2 / RATE_HZ <= 0.2


def test_of_two_gaps_the_nearer_one_is_taken() -> None:
    samples = np.frombuffer(loud_but(0.15), "<i2").copy()
    samples[-480:-320] //= 80  # a little less quiet
    assert 0.040 <= nearest_quiet(samples.tobytes(), RATE_HZ) / 2 / RATE_HZ <= 0.060


def test_silence_needs_no_repeating() -> None:
    assert nearest_quiet(bytes(3200), RATE_HZ) <= 0.011 * RATE_HZ * 2


@pytest.mark.parametrize("size", [0, 2, 100])
def test_less_than_a_window_is_not_repeated(size: int) -> None:
    assert nearest_quiet(bytes(size), RATE_HZ) == 0


def test_it_begins_near_zero() -> None:
    pcm = loud_but(0.1)
    back = nearest_quiet(pcm, RATE_HZ)
    assert abs(int(np.frombuffer(pcm, "<i2")[-back // 2])) < 40
