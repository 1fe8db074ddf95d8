"""Who is at the other end of a WebSocket, and where it is counted what it does."""

from typing import Protocol

from mediad.metrics import Metrics

__all__ = ["AgentPeer", "Peer"]


class Peer(Protocol):
    """Who is at the other end, and where it is counted what it does."""

    @property
    def name(self) -> str:
        """For the log: agent, or a service's role."""
        ...

    def count_close(self, code: str) -> None: ...
    def count_bad_frame(self, reason: str) -> None: ...
    def count_withheld(self) -> None: ...
    def count_slow(self) -> None: ...
    def observe_round_trip(self, seconds: float) -> None: ...


class AgentPeer:
    """An agent."""

    name = "agent"

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def count_close(self, code: str) -> None:
        """Count the end of a connection, by its close code."""
        self._metrics.agent_closes.labels(code).inc()

    def count_bad_frame(self, reason: str) -> None:
        """Count a message that could not be taken."""
        self._metrics.agent_bad_frames.labels(reason).inc()

    def count_withheld(self) -> None:
        """Count a frame that was not sent because the agent does not keep up."""
        self._metrics.agent_audio_dropped.labels("agent_slow").inc()

    def count_slow(self) -> None:
        """Count that it did not answer a ping in time."""
        self._metrics.agent_slow.inc()

    def observe_round_trip(self, seconds: float) -> None:
        """Take the time from a ping to its answer."""
        self._metrics.agent_round_trip.observe(seconds)
