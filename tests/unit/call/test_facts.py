"""What a call tells the bus."""

import pytest

from mediad.ai.connect import CallInfo
from mediad.bus.bus import Bus
from mediad.bus.events import Event
from mediad.call.facts import Facts
from mediad.metrics import Metrics
from mediad.wire import rtvi


class RecordingBus(Bus):
    """A bus that keeps what was published."""

    def __init__(self) -> None:
        super().__init__(Metrics())
        self.published: list[Event] = []

    def publish(self, event: Event) -> Event:
        """Keep it."""
        event = super().publish(event)
        self.published.append(event)
        return event


@pytest.fixture
def bus() -> RecordingBus:
    """A bus of the test's own."""
    return RecordingBus()


@pytest.fixture
def facts(bus: RecordingBus) -> Facts:
    """A call's facts."""
    return Facts(bus, CallInfo("1", "alice", "bob"))


def test_interim_words_share_the_event_id_of_the_final_ones(
    bus: RecordingBus, facts: Facts
) -> None:
    facts.words("caller", "he", final=False)
    facts.words("agent", "Yes?", final=True)
    facts.words("caller", "hello", final=True)
    facts.words("caller", "bye", final=True)
    interim, agent, final, bye = bus.published
    assert interim.event_id == final.event_id
    assert len({agent.event_id, final.event_id, bye.event_id}) == 3
    assert [event.sequence for event in bus.published] == [None, 1, 2, 3]


def test_empty_words_are_no_event(bus: RecordingBus, facts: Facts) -> None:
    facts.words("caller", "", final=True)
    assert bus.published == []


def test_words_are_bounded(bus: RecordingBus, facts: Facts) -> None:
    facts.words("caller", "x" * (rtvi.MAX_TEXT + 1), final=True)
    assert len(bus.published[0].data["text"]) == rtvi.MAX_TEXT


def test_token_is_told_only_where_there_is_one(bus: RecordingBus, facts: Facts) -> None:
    facts.created(None)
    facts.created("secret")
    first, second = (event.data for event in bus.published)
    assert first == {"status": "in-progress", "source": "alice", "destination": "bob"}
    assert second == {**first, "agent_token": "secret"}
