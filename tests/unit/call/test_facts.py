"""What a call tells the bus."""

import pytest

from mediad.ai.connect import CallInfo
from mediad.bus.bus import Bus
from mediad.bus.commands import Ended, Expect
from mediad.bus.events import DEFAULT_CUSTOMER, Event
from mediad.call.facts import Facts, tell_expected, tell_missing
from mediad.line import Counters
from mediad.metrics import Metrics
from mediad.wire import rtvi

NO_COUNTERS = Counters(*([0] * len(Counters._fields)))


class RecordingBus(Bus):
    """A bus that keeps what was published."""

    def __init__(self) -> None:
        super().__init__(Metrics())
        self.published: list[Event] = []

    def publish(self, event: Event) -> None:
        """Keep it."""
        super().publish(event)
        self.published.append(event)

    def of(self, *types: str) -> list[Event]:
        """Return what was published of these types."""
        return [event for event in self.published if event.type in types]


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
    interim, agent, final, bye = bus.of("transcript_interim", "transcript_created")
    assert interim.event_id == final.event_id
    assert len({agent.event_id, final.event_id, bye.event_id}) == 3
    assert [event.is_fact for event in (interim, agent, final, bye)] == [False, True, True, True]


def test_words_of_a_call_belong_to_one_transcribe_that_ends_with_it(
    bus: RecordingBus, facts: Facts
) -> None:
    facts.words("caller", "hel", final=False)
    assert not bus.of("transcribe_started")
    facts.words("caller", "hello", final=True)
    facts.words("agent", "Yes?", final=True)
    facts.hung_up("caller", "normal_clearing", True, NO_COUNTERS)
    assert [event.type for event in bus.published] == [
        "transcript_interim",
        "transcribe_started",
        "transcript_created",
        "transcript_created",
        "transcribe_done",
        "call_hungup",
    ]
    assert bus.published[1].data["language"] == "und"
    told = bus.published[1:5]
    assert len({event.data["transcribe_id"] for event in told}) == 1


def test_call_without_words_has_no_transcribe(bus: RecordingBus, facts: Facts) -> None:
    facts.hung_up("caller", "normal_clearing", False, NO_COUNTERS)
    assert [event.type for event in bus.published] == ["call_hungup"]


def test_empty_words_are_no_event(bus: RecordingBus, facts: Facts) -> None:
    facts.words("caller", "", final=True)
    assert bus.published == []


def test_words_are_bounded(bus: RecordingBus, facts: Facts) -> None:
    facts.words("caller", "x" * (rtvi.MAX_TEXT + 1), final=True)
    (said,) = bus.of("transcript_created")
    assert len(said.data["text"]) == rtvi.MAX_TEXT


def test_token_is_told_live_and_kept_nowhere(bus: RecordingBus, facts: Facts) -> None:
    facts.created()
    facts.agent_awaited("secret")
    created, awaited = bus.published
    assert created.data == {
        "direction": "inbound",
        "status": "in-progress",
        "source": "alice",
        "destination": "bob",
    }
    assert awaited.data == {"agent_token": "secret"}
    assert not awaited.is_fact


def test_every_event_names_the_calls_customer(bus: RecordingBus, facts: Facts) -> None:
    ours = Facts(bus, CallInfo("2", customer_id="ours"))
    for one in (facts, ours):
        one.created()
        one.arrived()
        one.words("caller", "hello", final=True)
        one.hung_up("caller", "normal_clearing", True, NO_COUNTERS)
    customers = {event.call_id: event.customer_id for event in bus.published}
    assert customers == {"1": DEFAULT_CUSTOMER, "2": "ours"}


def test_registered_call_is_told_before_it_is_there(bus: RecordingBus) -> None:
    call = Expect("ours", source="alice", agent_id="a", agent_config={"prompt": "p"})
    tell_expected(bus, "1", call)
    tell_missing(bus, "1", call, Ended("failed", "system", "no_user_response"))
    created, hungup = bus.published
    assert (created.type, created.customer_id, created.offset_s) == ("call_created", "ours", 0.0)
    assert created.data["status"] == "ringing"
    assert created.data["agent_config"] == {"prompt": "p"}
    assert hungup.data["hangup_cause"] == "no_user_response"
    assert (hungup.data["duration_s"], hungup.data["counters"]) == (0.0, {})
    assert created.is_fact
    assert hungup.is_fact
