"""Eight attempts over twelve hours."""

from random import Random

import pytest

from mediad.webhooks.retry import ATTEMPTS, retry_delay_s


class Middle(Random):
    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


def test_eight_attempts_take_twelve_hours() -> None:
    delays = [retry_delay_s(attempts, Middle()) for attempts in range(1, ATTEMPTS + 1)]
    assert delays[-1] is None
    known = [delay for delay in delays if delay is not None]
    assert len(known) == 7
    assert known == sorted(known)
    assert sum(known) == pytest.approx(12 * 3600, rel=0.01)


def test_no_two_deliveries_come_back_together() -> None:
    random = Random(1)
    delays = {retry_delay_s(4, random) for _ in range(100)}
    assert len(delays) == 100
    assert all(480 <= delay <= 720 for delay in delays if delay is not None)
