"""What facts change: a call's status, and the rows."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

import pytest

from mediad.bus.events import Event
from mediad.store.changes import ENDED, AgentCalls, Changes
from tests.facts import START, CallFacts


def changes(facts: Sequence[Event], **statuses: str) -> Changes:
    result = Changes(statuses)
    for fact in facts:
        result.add(fact)
    return result


def test_whole_call_in_a_batch_is_one_row() -> None:
    call = CallFacts()
    facts = call.whole()
    result = changes(facts)
    (row,) = result.new_calls.values()
    assert (row["status"], row["hangup_cause"], row["duration_ms"]) == (
        "completed",
        "normal_clearing",
        6000,
    )
    assert (row["tm_start"], row["tm_answer"], row["tm_hangup"]) == (
        START,
        START,
        facts[-1].timestamp,
    )
    assert (result.moved_calls, result.ended_calls) == ([], [])
    assert result.events == facts
    assert result.calls_by_customer == {"default": 1}
    assert result.call_ids == {call.call_id}


def test_transcript_has_the_id_of_its_event_and_its_offset_in_microseconds() -> None:
    call = CallFacts()
    said = replace(call.said("hello", "out"), offset_s=1.0001)
    (row,) = changes([said]).transcripts
    assert (row["id"], row["tm_transcript"], row["message"], row["direction"]) == (
        said.event_id,
        1_000_100,
        "hello",
        "out",
    )
    assert row["tm_create"] == said.timestamp


@pytest.mark.parametrize(
    ("before", "after", "is_legal"),
    [
        ("initiated", "ringing", True),
        ("initiated", "in-progress", True),
        ("ringing", "in-progress", True),
        ("in-progress", "in-progress", True),
        ("in-progress", "ringing", False),
        ("ringing", "initiated", False),
        *((end, "in-progress", False) for end in sorted(ENDED)),
    ],
)
def test_status_only_moves_forward(before: str, after: str, is_legal: bool) -> None:
    call = CallFacts("c")
    result = changes([call.updated(after)], c=before)
    assert len(result.events) == is_legal
    assert len(result.moved_calls) == (is_legal and before != after)


def test_answer_is_when_the_call_was_answered() -> None:
    call = CallFacts()
    facts = [call.created("initiated"), call.updated("ringing"), call.updated("in-progress")]
    (row,) = changes(facts).new_calls.values()
    assert (row["status"], row["tm_answer"]) == ("in-progress", facts[-1].timestamp)


def test_call_ends_once() -> None:
    call = CallFacts("c")
    first, second = call.hungup("failed"), call.hungup("completed")
    result = changes([first, second], c="in-progress")
    assert [row["status"] for row in result.ended_calls] == ["failed"]
    assert result.events == [first]


def test_words_after_the_end_are_kept() -> None:
    call = CallFacts("c")
    late = call.said("late")
    result = changes([late], c="completed")
    assert (len(result.transcripts), result.events) == (1, [late])


def test_recovered_call_remembers_what_it_was() -> None:
    call = CallFacts("c")
    end = call.hungup("failed", "recovery_on_timer_expiry")
    assert changes([end], c="ringing").recovered == [(end, "ringing")]
    assert changes([end], c="completed").recovered == []


def test_facts_of_a_call_that_nobody_knows_are_kept() -> None:
    call = CallFacts()
    facts = [call.updated("in-progress"), call.said("hello"), call.hungup()]
    result = changes(facts)
    assert result.events == facts
    assert (result.ended_calls, len(result.transcripts)) == ([], 1)


def test_names_of_the_parties_fit_their_columns() -> None:
    (row,) = changes([CallFacts().created(source="x" * 300)]).new_calls.values()
    assert row["source"] == "x" * 255


def naive(fact: Event) -> Event:
    return replace(fact, timestamp=datetime(2026, 1, 1))  # noqa: DTZ001  # that is the point


@pytest.mark.parametrize(
    "fact",
    [
        CallFacts().fact("unheard_of"),
        CallFacts().fact("call_created"),
        CallFacts().created("in progress"),
        CallFacts().hungup("ringing"),
        CallFacts().updated("completed"),
        CallFacts().fact("transcript_created", transcribe_id="t", direction="in", text=3),
        CallFacts().fact("recording_finished", recording_id="r", duration_s="long", size_bytes=1),
        naive(CallFacts().digit()),
    ],
)
def test_fact_that_is_none_is_an_error(fact: Event) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        changes([fact])


def test_call_counts_for_its_agent_when_it_ends() -> None:
    first, second = CallFacts("1"), CallFacts("2")
    facts = [first.created(agent_id="a"), second.created(agent_id="a"), first.hungup()]
    result = changes(facts)
    assert result.calls_by_agent == {("default", "a"): AgentCalls(1, 1, 1_000)}
    for fact in (second.hungup("failed"), second.hungup()):
        result.add(fact)
    assert result.calls_by_agent == {("default", "a"): AgentCalls(2, 1, 2_000)}


def test_call_that_the_database_has_counts_for_its_agent() -> None:
    end = CallFacts("c", "ours").hungup()
    result = Changes({"c": "in-progress"}, {"c": "a"})
    result.add(end)
    assert result.calls_by_agent == {("ours", "a"): AgentCalls(1, 1, 0)}


def test_call_without_an_agent_counts_for_none() -> None:
    assert changes(CallFacts().whole()).calls_by_agent == {}
