"""What is counted of services, by role. One `ServiceMetrics` in a process."""

from prometheus_client import CollectorRegistry, Counter, Histogram

from mediad.wire.service import Role

__all__ = ["Counts", "ServiceMetrics"]

_FIRST_BUCKETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
_SETUP_BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class ServiceMetrics:
    """The counters and histograms of all services."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, help: str, *labels: str) -> Counter:
            return Counter(f"mediad_service_{name}", help, ("role", *labels), registry=registry)

        def histogram(name: str, help: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(
                f"mediad_service_{name}", help, ("role",), buckets=buckets, registry=registry
            )

        self.connects = counter("connects", "Attempts to reach a service", "outcome")
        self.closes = counter("closes", "WebSockets to services closed, by close code", "code")
        self.bad_frames = counter(
            "bad_frames", "Messages of services that break the protocol", "reason"
        )
        self.withheld = counter(
            "audio_dropped_frames",
            "Caller audio kept from a service: it was not connected, or did not read",
            "reason",
        )
        self.slow = counter(
            "slow", "Times that a service did not answer a ping before the next one was due"
        )
        self.requests = counter(
            "requests", "What services were asked for, by how it ended", "outcome"
        )
        self.retries = counter("retries", "Requests sent again, over another connection")
        self.replaced = counter(
            "replaced", "Connections given up for a new one within a call, by why", "reason"
        )
        self.discarded = counter(
            "discarded_messages", "Messages for nothing that is asked, by why", "reason"
        )
        self.round_trip = histogram("round_trip_seconds", "WebSocket ping to pong", _SETUP_BUCKETS)
        self.connect_time = histogram(
            "connect_seconds", "From the attempt to mediad-ready", _SETUP_BUCKETS
        )
        self.first_time = histogram(
            "first_seconds",
            "From the request, or the end of the one before it, to the first of its answer",
            _FIRST_BUCKETS,
        )
        self.done_time = histogram(
            "done_seconds", "The same to the end of its answer", _FIRST_BUCKETS
        )


class Counts:
    """The part of one role, and what a socket counts of its peer (`ai.peer.Peer`)."""

    def __init__(self, metrics: ServiceMetrics, role: Role) -> None:
        self._metrics = metrics
        self._role = role
        self.name = f"{role} service"
        self.round_trip = metrics.round_trip.labels(role)
        self.connect_time = metrics.connect_time.labels(role)
        self.first_time = metrics.first_time.labels(role)
        self.done_time = metrics.done_time.labels(role)
        self.retries = metrics.retries.labels(role)

    def count_connect(self, outcome: str) -> None:
        """Count an attempt to connect."""
        self._metrics.connects.labels(self._role, outcome).inc()

    def count_request(self, outcome: str) -> None:
        """Count the end of a request."""
        self._metrics.requests.labels(self._role, outcome).inc()

    def count_replaced(self, reason: str) -> None:
        """Count a connection that is given up."""
        self._metrics.replaced.labels(self._role, reason).inc()

    def count_discarded(self, reason: str) -> None:
        """Count a message that answers nothing."""
        self._metrics.discarded.labels(self._role, reason).inc()

    def count_dropped_audio(self) -> None:
        """Count a frame that a service did not get because it was not connected."""
        self._metrics.withheld.labels(self._role, "not_connected").inc()

    # What `ai.peer.Peer` asks for

    def count_close(self, code: str) -> None:
        """Count the end of a connection, by its close code."""
        self._metrics.closes.labels(self._role, code).inc()

    def count_bad_frame(self, reason: str) -> None:
        """Count a message that could not be taken."""
        self._metrics.bad_frames.labels(self._role, reason).inc()

    def count_withheld(self) -> None:
        """Count a frame that was not sent because the service does not keep up."""
        self._metrics.withheld.labels(self._role, "slow").inc()

    def count_slow(self) -> None:
        """Count that it did not answer a ping in time."""
        self._metrics.slow.labels(self._role).inc()

    def observe_round_trip(self, seconds: float) -> None:
        """Take the time from a ping to its answer."""
        self.round_trip.observe(seconds)
