"""The compiled gate says what its specification says, block by block."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediad.media import vad
from tests.noises import NOISES, RATE_HZ, at_snr, chunks, talk, to_pcm
from tests.unit.line.lines import compiled_gate


@pytest.mark.parametrize("name", NOISES)
def test_voices_over_noise(name: str) -> None:
    said = talk(1, 10)
    pcm = to_pcm(at_snr(said.samples, NOISES[name](101, len(said.samples)), 10.0))
    specified, compiled = vad.Gate(RATE_HZ), compiled_gate(RATE_HZ)
    openings = 0
    for chunk in chunks(pcm, 10):
        change = specified.process(chunk)
        assert compiled.process(chunk) is change
        assert compiled.is_open is specified.is_open
        assert compiled.noise_db == pytest.approx(specified.noise_db)
        openings += change is True
    assert openings >= 8


@given(
    seed=st.integers(0, 2**32 - 1),
    levels=st.lists(st.sampled_from([0, 20, 300, 5000, 40_000]), min_size=1, max_size=12),
    sizes=st.lists(st.integers(0, 1500), min_size=1, max_size=9).filter(
        lambda sizes: sum(sizes) > 100 * len(sizes)
    ),
    rate_hz=st.sampled_from([8000, 16_000]),
)
def test_any_levels_cut_anyhow(
    seed: int, levels: list[int], sizes: list[int], rate_hz: int
) -> None:
    noise = np.random.default_rng(seed).normal(size=(len(levels), rate_hz // 4))
    pcm = to_pcm((noise * np.array(levels)[:, None]).ravel() / 32_768)
    specified, compiled = vad.Gate(rate_hz), compiled_gate(rate_hz)
    at = 0
    for size in itertools.cycle(sizes):
        chunk = pcm[at : at + size]
        assert compiled.process(chunk) is specified.process(chunk)
        assert compiled.is_open is specified.is_open
        assert compiled.noise_db == pytest.approx(specified.noise_db)
        at += size
        if at >= len(pcm):
            break
