"""What is counted of webhooks."""

from collections.abc import Callable
from datetime import datetime

from prometheus_client import Counter, Histogram

from mediad.metrics import Metrics
from mediad.store.outbox import Waiting

__all__ = ["Counts"]

_BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_OUTCOMES = {"delivered": "delivered", "pending": "failed", "dead": "dead"}


class Counts:
    """Metrics of deliveries."""

    def __init__(self, metrics: Metrics, clock: Callable[[], datetime]) -> None:
        self.waiting = Waiting(0, None)
        """As the database last said."""
        self._clock = clock
        self._attempts = Counter(
            "mediad_webhook_attempts",
            "Attempts by what became of the delivery: delivered, failed (tried again), dead",
            ["outcome"],
            registry=metrics.registry,
        )
        for outcome in _OUTCOMES.values():
            self._attempts.labels(outcome)
        self._seconds = Histogram(
            "mediad_webhook_attempt_seconds",
            "From the request to the answer, or to giving it up",
            buckets=_BUCKETS,
            registry=metrics.registry,
        )
        metrics.watch("webhook_pending", "Deliveries that wait", lambda: self.waiting.number)
        metrics.watch(
            "webhook_oldest_seconds", "Since when the oldest delivery waits", self._oldest_s
        )

    def attempt(self, status: str, duration_s: float) -> None:
        """Count an attempt, by the status of its delivery after it."""
        self._attempts.labels(_OUTCOMES[status]).inc()
        self._seconds.observe(duration_s)

    def _oldest_s(self) -> float:
        oldest = self.waiting.oldest
        return 0.0 if oldest is None else (self._clock() - oldest).total_seconds()
