"""What the link holds while no agent is connected, and what it does at its end."""

from collections.abc import Callable

from mediad.ai.agent import HELD_FRAMES, MAX_HELD_CONTROL, AgentLink
from mediad.ai.connect import CallInfo, DialOut
from mediad.ai.socket import AgentSocket
from mediad.config import Ai
from mediad.metrics import Metrics


class Nobody(DialOut):
    """A way to no agent; counts its ends."""

    closes = 0

    def close(self) -> None:
        """Count it."""
        self.closes += 1

    async def connect(self, make_socket: Callable[[], AgentSocket], deadline: float) -> AgentSocket:
        """Never called: these tests do not run the link."""
        raise NotImplementedError


class Ignorant:
    """Hears of the link and does nothing."""

    def on_agent_message(self, message: bytes) -> bool:
        """No audio."""
        return False

    def on_agent_open(self, connect_s: float) -> None:
        """Nothing."""

    def on_agent_slow(self, started: bool) -> None:
        """Nothing."""

    def on_agent_lost(self, code: int) -> None:
        """Nothing."""


def make_link(metrics: Metrics) -> tuple[AgentLink, Nobody]:
    """Return a link that is not connected."""
    settings, call = Ai(), CallInfo("1")
    connector = Nobody(settings, call, metrics, None)
    return AgentLink(connector, call, Ignorant(), settings, metrics), connector


def dropped(metrics: Metrics) -> float:
    """Return the counter."""
    labels = {"reason": "not_connected"}
    name = "mediad_agent_audio_dropped_frames_total"
    return metrics.registry.get_sample_value(name, labels) or 0


def test_only_the_newest_audio_is_held() -> None:
    metrics = Metrics()
    link, _ = make_link(metrics)
    for _ in range(HELD_FRAMES):
        link.send_audio(b"frame")
    assert dropped(metrics) == 0
    for _ in range(7):
        link.send_audio(b"frame")
    assert dropped(metrics) == 7


def test_control_pushes_no_audio_out() -> None:
    metrics = Metrics()
    link, _ = make_link(metrics)
    for _ in range(HELD_FRAMES):
        link.send_audio(b"frame")
    for _ in range(MAX_HELD_CONTROL + 3):
        link.send_json("{}")
    assert dropped(metrics) == 0
    lost = metrics.registry.get_sample_value("mediad_agent_control_dropped_messages_total")
    assert lost == 3


def test_closing_a_link_that_never_ran_closes_its_connector() -> None:
    link, connector = make_link(Metrics())
    link.close()
    assert connector.closes == 1
