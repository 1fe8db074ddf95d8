"""How a call sounds, through the specification and the compiled line."""

import numpy as np
import pytest

from mediad.line import Line
from mediad.media import g711
from mediad.wire.audiosocket import AUDIO_KIND_OF_RATE, Kind, audio_message
from tests.unit.line.lines import (
    Samples,
    agent_message,
    caller_messages,
    downlink,
    line_at,
    new_line,
    noise,
    tone,
    uplink,
)
from tests.unit.media.spectrum import gain_and_rest_db, snr_db

BAND_HZ = (300, 697, 1000, 1633, 2000, 2800, 3400)


def hear(core: type[Line], samples: Samples, rate_hz: int) -> Samples:
    """Return what the agent hears of a caller."""
    messages = caller_messages(samples, AUDIO_KIND_OF_RATE[rate_hz])
    return uplink(new_line(core), messages)


def say(core: type[Line], samples: Samples, rate_hz: int, caller_rate_hz: int = 8000) -> Samples:
    """Return what the caller hears of an agent."""
    line = line_at(core, caller_rate_hz)
    line.receive_agent(agent_message(samples, rate_hz), 1.0)
    return downlink(line)


@pytest.mark.parametrize("frequency_hz", BAND_HZ)
def test_the_caller_is_flat_and_without_images(core: type[Line], frequency_hz: int) -> None:
    heard = hear(core, tone(frequency_hz, 8000, 1.0), 8000)
    gain, rest = gain_and_rest_db(heard, frequency_hz, 16_000, 12_000)
    assert abs(gain) < 0.5
    assert rest < -70


@pytest.mark.parametrize("frequency_hz", BAND_HZ)
@pytest.mark.parametrize("rate_hz", [16_000, 22_050, 24_000, 44_100, 48_000])
def test_the_agent_is_flat(core: type[Line], frequency_hz: int, rate_hz: int) -> None:
    heard = say(core, tone(frequency_hz, rate_hz, 1.0), rate_hz)
    gain, rest = gain_and_rest_db(heard, frequency_hz, 8000, 12_000)
    assert abs(gain) < 0.5
    assert rest < -70


@pytest.mark.parametrize(("rate_hz", "limit_db"), [(16_000, -70), (24_000, -60)])
def test_what_8_khz_cannot_hold_is_taken_out(
    core: type[Line], rate_hz: int, limit_db: float
) -> None:
    for frequency_hz in (4600, 5000, 6100, 7000, 7900):
        heard = say(core, tone(frequency_hz, rate_hz, 0.5), rate_hz)
        level = np.abs(heard[200:-200].astype(float)).max()
        assert 20 * np.log10(max(level, 1e-9) / 12_000) < limit_db


def test_dc_passes_exactly(core: type[Line]) -> None:
    heard = hear(core, np.full(1600, 1000, np.int16), 8000)
    assert np.array_equal(heard[100:], np.full(len(heard) - 100, 1000))


def test_full_scale_is_clipped_and_never_wraps(core: type[Line]) -> None:
    square = np.where(np.arange(1600) // 40 % 2, 32_767, -32_768).astype(np.int16)
    heard = hear(core, square, 8000)
    middle = heard.reshape(-1, 80)[2:-2, 40:60]  # away from the edges, whose ringing clips
    assert (np.abs(middle.astype(int)) > 25_000).all()
    assert heard.max() == 32_767
    assert heard.min() == -32_768


def test_the_filters_delay_less_than_3_ms(core: type[Line]) -> None:
    pulse = np.zeros(1600, np.int16)
    pulse[0] = 20_000
    for heard, rate_hz in ((hear(core, pulse, 8000), 16_000), (say(core, pulse, 16_000), 8000)):
        power = heard.astype(float) ** 2
        assert (power * np.arange(len(power))).sum() / power.sum() / rate_hz < 0.003


@pytest.mark.parametrize("ms", [5, 10, 30, 60, 120])
def test_the_callers_message_length_does_not_change_the_sound(core: type[Line], ms: int) -> None:
    for rate_hz in (8000, 24_000, 44_100, 48_000):
        samples = noise(rate_hz, rate_hz * 12 // 100)
        kind = AUDIO_KIND_OF_RATE[rate_hz]
        heard = uplink(new_line(core), caller_messages(samples, kind, ms)[:1])
        assert np.array_equal(heard, hear(core, samples, rate_hz)[: len(heard)])


def test_a_tone_through_both_directions_keeps_its_snr(core: type[Line]) -> None:
    heard = hear(core, tone(1000, 8000, 1.0), 8000)
    back = say(core, heard, 16_000)
    assert snr_db(back, 1000, 8000) > 60


def test_a_ulaw_tone_keeps_what_ulaw_allows(core: type[Line]) -> None:
    coded = g711.encode_ulaw(tone(1000, 8000, 1.0).tobytes())
    messages = [audio_message(Kind.SLIN, coded[at : at + 160]) for at in range(0, 8000, 160)]
    heard = uplink(new_line(core, codec="ulaw"), messages)
    assert snr_db(heard, 1000, 16_000) > 35
