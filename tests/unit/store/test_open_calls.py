"""What the journal knows of calls that have not ended, and how it ends them."""

from functools import reduce

import pytest

from mediad.bus.events import Event
from mediad.store.open_calls import OpenCall, advance, end_of
from tests.facts import CallFacts


def follow(facts: list[Event]) -> OpenCall | None:
    return reduce(advance, facts, None)


def test_call_is_open_from_its_first_fact_to_its_end() -> None:
    facts = CallFacts().whole()
    assert all(follow(facts[:end]) is not None for end in range(1, len(facts)))
    assert follow(facts) is None


def test_facts_after_the_end_do_not_open_a_call_again() -> None:
    call = CallFacts()
    assert follow([*call.whole(), call.said("late"), call.digit()]) is None


def test_call_ends_at_its_last_fact() -> None:
    call = CallFacts("c-1", "customer-1")
    facts = [call.created(), call.digit(), call.digit()]
    is_open = follow(facts)
    assert is_open is not None
    (hungup,) = end_of(is_open)
    assert (hungup.type, hungup.call_id, hungup.customer_id) == (
        "call_hungup",
        "c-1",
        "customer-1",
    )
    assert hungup.timestamp == facts[-1].timestamp
    assert hungup.offset_s == 2.0
    assert hungup.data == {
        "status": "failed",
        "duration_s": 2.0,
        "hangup_by": "system",
        "hangup_cause": "recovery_on_timer_expiry",
        "counters": {},
    }


def test_open_transcribe_is_done_before_the_call_ends() -> None:
    call = CallFacts()
    is_open = follow([call.created(), call.started(), call.said("hello")])
    assert is_open is not None
    done, hungup = end_of(is_open)
    assert (done.type, hungup.type) == ("transcribe_done", "call_hungup")
    assert done.data == {"transcribe_id": call.transcribe_id}


def test_transcribe_that_is_done_stays_done() -> None:
    call = CallFacts()
    is_open = follow([call.created(), call.started(), call.done()])
    assert is_open is not None
    assert [event.type for event in end_of(is_open)] == ["call_hungup"]


@pytest.mark.parametrize("words", [0, 3])
def test_ends_of_the_same_call_have_the_same_ids(words: int) -> None:
    call = CallFacts()
    facts = call.whole(words)[:-2]
    first, second = follow(facts), follow(facts)
    assert first is not None
    assert second is not None
    ids = [event.event_id for event in end_of(first)]
    assert ids == [event.event_id for event in end_of(second)]
    assert len(set(ids)) == 2


def test_registered_call_that_has_not_come_ends_once() -> None:
    call = CallFacts("c-1", "customer-1")
    is_open = follow([call.created("ringing")])
    assert is_open is not None
    (hungup,) = end_of(is_open)
    assert (hungup.type, hungup.customer_id) == ("call_hungup", "customer-1")
    assert hungup.data["duration_s"] == 0.0
    assert follow([call.created("ringing"), hungup]) is None
