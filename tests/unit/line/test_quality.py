"""How a call sounds, through the specification and the compiled line."""

import numpy as np
import pytest

from mediad.line import Line
from mediad.wire import frames
from mediad.wire.audiosocket import AUDIO_KIND_OF_RATE, Kind, audio_message
from tests.sound import G711
from tests.unit.line.lines import (
    caller_messages,
    downlink,
    hear,
    line_at,
    new_line,
    noise,
    say,
    tone,
    uplink,
)
from tests.unit.media.spectrum import gain_and_rest_db, levels_db, peak_db, snr_db, sweep

BAND_HZ = (300, 697, 1000, 1633, 2000, 2800, 3400)
WHOLE_BAND_HZ = np.arange(300, 3401)
LEVELS_DBFS = (-1, -10, -20, -30)


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


def test_a_sweep_reaches_the_agent_flat_and_without_images(core: type[Line]) -> None:
    sent = sweep(200, 3500, 8000, 12_000)
    heard = hear(core, sent, 8000)
    sent_db = levels_db(sent, 8000, WHOLE_BAND_HZ)
    assert np.abs(levels_db(heard, 16_000, WHOLE_BAND_HZ) - sent_db).max() < 0.5
    assert (levels_db(heard, 16_000, 8000 - WHOLE_BAND_HZ) - sent_db).max() < -70


@pytest.mark.parametrize("rate_hz", [16_000, 22_050, 24_000, 48_000])
def test_a_sweep_reaches_the_caller_flat(core: type[Line], rate_hz: int) -> None:
    sent = sweep(200, 3500, rate_hz, 12_000)
    heard = say(core, sent, rate_hz)
    passed = levels_db(heard, 8000, WHOLE_BAND_HZ) - levels_db(sent, rate_hz, WHOLE_BAND_HZ)
    assert np.abs(passed).max() < 0.5


@pytest.mark.parametrize("rate_hz", [16_000, 22_050, 24_000, 48_000])
def test_what_8_khz_cannot_hold_is_taken_out(core: type[Line], rate_hz: int) -> None:
    heard = say(core, sweep(4600, rate_hz / 2, rate_hz, 30_000), rate_hz)
    assert peak_db(heard, 30_000) < -70


@pytest.mark.parametrize("rate_hz", [24_000, 48_000])
def test_what_16_khz_cannot_hold_is_taken_out(core: type[Line], rate_hz: int) -> None:
    heard = hear(core, sweep(9200, rate_hz / 2, rate_hz, 30_000), rate_hz)
    assert peak_db(heard, 30_000) < -70


@pytest.mark.parametrize("level", [1000, -20_000, 32_767, -32_768])
def test_dc_passes_exactly(core: type[Line], level: int) -> None:
    for heard in (
        hear(core, np.full(1600, level, np.int16), 8000),
        say(core, np.full(3200, level, np.int16), 16_000),
        say(core, np.full(4800, level, np.int16), 24_000),
    ):
        assert (heard[100:] == level).all()


def test_full_scale_is_clipped_and_never_wraps(core: type[Line]) -> None:
    for rate_hz, heard_hz in ((8000, 16_000), (16_000, 8000), (24_000, 8000)):
        halves = np.arange(rate_hz // 5) // (rate_hz // 200) % 2  # of a square of 100 Hz
        square = np.where(halves, 32_767, -32_768).astype(np.int16)
        heard = (hear if rate_hz == 8000 else say)(core, square, rate_hz)
        # An edge comes 1.75 ms late; what overshoots is on either side of it.
        ms = heard_hz // 1000
        of_halves = heard.reshape(-1, 5 * ms).astype(int)[2:-2, 2 * ms : 5 * ms]
        assert (of_halves[0::2] < -25_000).all()
        assert (of_halves[1::2] > 25_000).all()
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


def test_the_agents_message_length_does_not_change_the_sound(core: type[Line]) -> None:
    for rate_hz in (16_000, 22_050, 24_000):
        samples = noise(rate_hz, rate_hz // 10)
        line, pcm = line_at(core, 8000), samples.tobytes()
        for size in (1, 2, 159, 0, 641, 7, len(pcm)):
            line.receive_agent(frames.encode_audio(pcm[:size], rate_hz), 1.0)
            pcm = pcm[size:]
        assert np.array_equal(downlink(line), say(core, samples, rate_hz))


@pytest.mark.parametrize("level_dbfs", LEVELS_DBFS)
@pytest.mark.parametrize("frequency_hz", [304, 1004, 3380])
def test_a_tone_keeps_its_snr(core: type[Line], frequency_hz: int, level_dbfs: float) -> None:
    heard = hear(core, tone(frequency_hz, 8000, 1.0, 32_767 * 10 ** (level_dbfs / 20)), 8000)
    assert snr_db(heard, frequency_hz, 16_000) > 60
    assert snr_db(say(core, heard, 16_000), frequency_hz, 8000) > 60


@pytest.mark.parametrize("level_dbfs", LEVELS_DBFS)
@pytest.mark.parametrize("frequency_hz", [304, 1004, 3380])
@pytest.mark.parametrize("law", G711)
def test_a_tone_keeps_what_g711_has_left_of_it(
    core: type[Line], law: str, frequency_hz: int, level_dbfs: float
) -> None:
    sent = tone(frequency_hz, 8000, 1.0, 32_767 * 10 ** (level_dbfs / 20))
    coded = G711[law].encode(sent.tobytes())
    left_db = snr_db(np.frombuffer(G711[law].decode(coded), "<i2"), frequency_hz, 8000)
    messages = [audio_message(Kind.SLIN, coded[at : at + 160]) for at in range(0, 8000, 160)]
    heard = uplink(new_line(core, codec=law), messages)
    assert snr_db(heard, frequency_hz, 16_000) > left_db - 0.5
    assert snr_db(say(core, heard, 16_000), frequency_hz, 8000) > left_db - 0.5
