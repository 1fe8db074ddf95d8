"""When a delivery that failed is tried again. Pure.

attempt        2     3     4       5       6       7    8
after it by    5 s   30 s  2 min   10 min  45 min  3 h  8 h     (each ± 20 %)
"""

from random import Random

__all__ = ["ATTEMPTS", "retry_delay_s"]

_DELAYS_S = (5.0, 30.0, 120.0, 600.0, 2_700.0, 10_800.0, 28_800.0)
_JITTER = 0.2  # so that a server that comes back does not get everything at once

ATTEMPTS = len(_DELAYS_S) + 1
"""Attempts, spread over 12 hours; when the last one fails the delivery is dead."""


def retry_delay_s(attempts: int, random: Random) -> float | None:
    """Return how long to wait after this many failed attempts, in seconds; None to give up."""
    if attempts >= ATTEMPTS:
        return None
    return _DELAYS_S[attempts - 1] * random.uniform(1 - _JITTER, 1 + _JITTER)
