"""Is there more than noise? An adaptive energy gate; what it lets through may still be a cough.

    state     leaves when                                   next
    closed    4 of the last 8 blocks of 10 ms were loud     open: True
    open      no block was loud for 100 ms                  closed: False

Loud is a level clearly above the noise, which is learnt while the gate is closed: its mean, and how
much it varies (babble varies, hum does not). While it is open, what never falls for 1 s is noise as
well: speech has gaps. The thresholds were found with babble, hum, hiss and line noise 10 dB below
the speech.

All state is a few numbers, and a block costs two sums and a logarithm. This is the specification;
calls use the compiled one where it was built (`mediad.line.Gate`).
"""

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["BLOCK_S", "HANG_S", "Gate"]

BLOCK_S = 0.010
HANG_S = 0.100
"""Quiet this long closes it; the turn bridges longer gaps."""

# In blocks, like the levels below also the compiled gate's
OF_BLOCKS = 8
LOUD_BLOCKS = 4
HANG_BLOCKS = round(HANG_S / BLOCK_S)
LEARN_BLOCKS = 20  # of noise that must be known before the gate may open
MOST_KNOWN_BLOCKS = 200  # older ones are forgotten, little by little
LESS_BLOCKS = 10  # this long far below: there is less noise now
NEW_BLOCKS = 6  # then so little is known of it
GAP_BLOCKS = 50  # half of what is looked back for the lowest level while open

# Levels, in dB above one unit of s16
QUIETEST_NOISE_DB = 26.0  # the steps of G.711 are as loud
OPEN_DB, MOST_OPEN_DB = 6.0, 12.0  # above the mean
OPEN_DEVIATIONS = 2.75
CLOSE_SHARE = 0.6  # of that
FAR_BELOW_DB = 6.0
EVENNESS_DB = 3.0  # how far the lowest level of noise lies below its mean
FIRST_DEVIATION_DB = 3.0  # until some noise is known


class Gate:
    """Feed it the caller's s16le mono in chunks of any size; how it is cut makes no difference."""

    def __init__(self, rate_hz: int) -> None:
        self._block_size = round(rate_hz * BLOCK_S)
        self._odd = b""  # less than a block
        self._known_blocks = 0  # of this noise: each new one counts for one of so many
        self._power = 0.0  # of the block before
        self._mean_db = QUIETEST_NOISE_DB
        self._deviation_db = FIRST_DEVIATION_DB  # mean of how far from the mean
        self._louds = 0  # one bit a block, the newest lowest
        self._low_blocks = 0  # while closed: in a row, far below the noise
        self._quiet_blocks = 0  # while open: since a loud one
        self._open_blocks = 0  # while open: since the lowest level was moved on
        self._lowest_db = self._lowest_before_db = math.inf
        self.is_open = False

    @property
    def noise_db(self) -> float:
        """The level of the noise below full scale, in dB: negative."""
        return self._mean_db - 20 * math.log10(32_768)

    def process(self, pcm: bytes) -> bool | None:
        """Take audio. True: the gate has opened with it; False: closed; None: neither."""
        pcm = self._odd + pcm
        size = 2 * self._block_size
        whole = len(pcm) - len(pcm) % size
        self._odd = pcm[whole:]
        was_open = self.is_open
        for block in np.frombuffer(pcm[:whole], "<i2").reshape(-1, self._block_size):
            self._add(_power(block))
        return self.is_open if self.is_open != was_open else None

    def _add(self, power: float) -> None:
        # Over two blocks: one alone is shorter than the pitch period of a low voice.
        level_db = 10 * math.log10((power + self._power) / 2 + 1)
        self._power = power
        if self.is_open:
            self._add_open(level_db)
        else:
            self._add_closed(level_db)

    def _threshold_db(self) -> float:
        return min(max(OPEN_DB, OPEN_DEVIATIONS * self._deviation_db), MOST_OPEN_DB)

    def _add_closed(self, level_db: float) -> None:
        above_db = level_db - self._mean_db
        if self._known_blocks >= LEARN_BLOCKS:
            threshold_db = self._threshold_db()
            self._louds = (self._louds << 1 | (above_db > threshold_db)) & (1 << OF_BLOCKS) - 1
            if self._louds.bit_count() >= LOUD_BLOCKS:
                self._open()
                return
            above_db = min(above_db, threshold_db)  # a word that has just begun is no noise
        self._learn(above_db)

    def _learn(self, above_db: float) -> None:
        self._low_blocks = self._low_blocks + 1 if above_db < -FAR_BELOW_DB else 0
        if self._low_blocks == LESS_BLOCKS:
            self._known_blocks = NEW_BLOCKS
        self._known_blocks = min(self._known_blocks + 1, MOST_KNOWN_BLOCKS)
        self._set_mean(self._mean_db + above_db / self._known_blocks)
        self._deviation_db += (abs(above_db) - self._deviation_db) / self._known_blocks

    def _open(self) -> None:
        self.is_open = True
        self._louds = self._quiet_blocks = self._open_blocks = 0
        self._lowest_db = self._lowest_before_db = math.inf

    def _add_open(self, level_db: float) -> None:
        if level_db - self._mean_db > CLOSE_SHARE * self._threshold_db():
            self._quiet_blocks = 0
        else:
            self._quiet_blocks += 1
        self._lowest_db = min(self._lowest_db, level_db)
        self._open_blocks += 1
        if self._open_blocks == GAP_BLOCKS:
            lowest_db = min(self._lowest_db, self._lowest_before_db)
            if self._lowest_before_db < math.inf and lowest_db + EVENNESS_DB > self._mean_db:
                self._set_mean(lowest_db + EVENNESS_DB)
                self._known_blocks = LEARN_BLOCKS
            self._lowest_before_db, self._lowest_db = self._lowest_db, math.inf
            self._open_blocks = 0
        self.is_open = self._quiet_blocks < HANG_BLOCKS

    def _set_mean(self, mean_db: float) -> None:
        self._mean_db = max(mean_db, QUIETEST_NOISE_DB)


def _power(block: NDArray[np.int16]) -> float:
    """Return the variance: without the constant that some lines add."""
    samples = block.astype(np.float64)
    total = float(samples.sum())
    return (float(samples @ samples) - total * total / len(samples)) / len(samples)
