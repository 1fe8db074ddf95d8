"""The Prometheus metrics that code counts into. Per-frame counters live in the line; a collector
reads them there.
"""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

__all__ = ["Metrics"]

_LAG_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)
_SETUP_BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_RESPONSE_BUCKETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.2, 1.5, 1.8, 2.5, 4.0, 8.0)


class Metrics:
    """Counters and histograms of one process. A registry of its own, so that tests do not share
    them.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def counter(name: str, help: str, *labels: str) -> Counter:
            return Counter(f"mediad_{name}", help, labels, registry=self.registry)

        def histogram(name: str, help: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"mediad_{name}", help, buckets=buckets, registry=self.registry)

        self.calls_started = counter("calls_started", "Calls whose UUID was taken")
        self.calls_ended = counter(
            "calls_ended", "Calls over, by who ended them and why", "by", "cause"
        )
        self.calls_missing = counter(
            "calls_missing", "Registered calls that never came, by why", "cause"
        )
        self.connections_closed = counter(
            "audiosocket_connections_closed",
            "AudioSocket connections that were no call, were refused, or broke the protocol",
            "reason",
        )
        self.accept_pauses = counter(
            "audiosocket_accept_pauses", "Times that no connection could be accepted: no files"
        )
        self.agent_connects = counter("agent_connects", "Attempts to reach an agent", "outcome")
        self.agent_closes = counter(
            "agent_closes", "WebSockets to agents closed, by close code", "code"
        )
        self.agent_slow = counter(
            "agent_slow", "Times that an agent did not answer a ping before the next one was due"
        )
        self.agent_bad_frames = counter(
            "agent_bad_frames", "Agents' messages that could not be read or played", "reason"
        )
        self.agent_errors = counter("agent_errors", "Errors that agents reported over RTVI")
        self.agent_audio_dropped = counter(
            "agent_audio_dropped_frames",
            "Caller audio kept from the agent: it was not connected, or did not read",
            "reason",
        )
        self.agent_control_dropped = counter(
            "agent_control_dropped_messages",
            "DTMF and other messages for agents dropped: too many waited for a connection",
        )
        self.caller_audio_dropped = counter(
            "caller_audio_dropped_frames",
            "Frames for the caller dropped because Asterisk did not read",
        )
        self.dtmf = counter("dtmf_digits", "DTMF digits received")
        self.interruptions = counter("interruptions", "Playouts flushed by barge-in")
        self.events = counter("events", "Events published", "type")
        self.events_dropped = counter(
            "events_dropped", "Live events that a full subscriber did not get"
        )
        self.http_connections_closed = counter(
            "http_connections_closed", "HTTP connections refused or without a request", "reason"
        )
        self.http_answers = counter("http_answers", "Answers of the HTTP port", "status")
        self.http_rate_limited = counter(
            "http_rate_limited", "Requests refused by the limit of an endpoint", "endpoint"
        )
        self.audit_dropped = counter(
            "audit_dropped_refusals",
            "Refused changes that the audit log has not: too many, or it could not be had",
        )
        self.ticks_skipped = counter(
            "ticks_skipped", "20 ms that were never sent: the loop was late"
        )
        self.loop_stalls = counter(
            "event_loop_stalls", "Times that something held the media loop up for over 50 ms"
        )
        self.control_lag = histogram(
            "control_loop_lag_seconds",
            "How late the loop of HTTP and the database woke up",
            _LAG_BUCKETS,
        )
        self.loop_lag = histogram(
            "event_loop_lag_seconds", "How late the media ticker woke up", _LAG_BUCKETS
        )
        self.agent_connect_time = histogram(
            "agent_connect_seconds", "From the attempt to the open WebSocket", _SETUP_BUCKETS
        )
        self.agent_round_trip = histogram(
            "agent_round_trip_seconds", "WebSocket ping to pong", _SETUP_BUCKETS
        )
        self.first_audio_time = histogram(
            "first_audio_seconds",
            "From the call's UUID to the agent's first audio",
            _RESPONSE_BUCKETS,
        )
        self.response_time = histogram(
            "response_seconds",
            "From the agent noticing that the caller stopped speaking to its first audio played",
            _RESPONSE_BUCKETS,
        )

    def watch(self, name: str, help: str, read: Callable[[], float]) -> None:
        """Show a number that is kept elsewhere; it is read when Prometheus asks."""
        Gauge(f"mediad_{name}", help, registry=self.registry).set_function(read)
