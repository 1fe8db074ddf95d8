"""What a call's facts make of its session, context and history."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import TypeAdapter

from mediad.bus.events import Event
from mediad.store.conversation import (
    MAX_DIGITS,
    MAX_HISTORY_BYTES,
    MAX_MESSAGES,
    Conversation,
    Message,
    summarize,
)

BEGIN = datetime(2025, 3, 1, 12, 0, 0, 123456, UTC)


def fact(type_: str, after_s: float = 0.0, **data: Any) -> Event:
    at = BEGIN + timedelta(seconds=after_s)
    return Event(type_, "c1", after_s, data, customer_id="acme", timestamp=at)


def created(**data: Any) -> Conversation:
    return Conversation(fact("call_created", direction="inbound", **data))


def said(conversation: Conversation) -> list[Message]:
    return TypeAdapter(list[Message]).validate_json(conversation.history)


def test_session_begins_with_what_the_call_brings() -> None:
    session = created(source="+49301", destination="100", agent_id="a1", metadata={"a": 1}).session
    assert (session.call_id, session.customer_id, session.status) == ("c1", "acme", "active")
    assert (session.source, session.destination, session.agent_id) == ("+49301", "100", "a1")
    assert (session.metadata, session.flow_id) == ({"a": 1}, None)
    assert session.started_at == session.last_activity_at == BEGIN


def test_agent_is_kept_as_it_was_when_the_call_began() -> None:
    conversation = created(agent_config={"prompt": "Be brief."})
    conversation.apply(fact("call_updated", 1, agent_config={"prompt": "Be long."}))
    assert conversation.session.agent_config == {"prompt": "Be brief."}


def test_session_has_nothing_that_is_not_its_own() -> None:
    session = created(agent_token="secret", status="in-progress").session
    assert "secret" not in session.model_dump_json()


@pytest.mark.parametrize(("direction", "number"), [("inbound", "+49301"), ("outbound", "100")])
def test_phone_number_is_the_other_ends(direction: str, number: str) -> None:
    begin = fact("call_created", direction=direction, source="+49301", destination="100")
    assert Conversation(begin).context.phone_number == number


def test_what_is_said_becomes_the_history() -> None:
    conversation = created()
    assert conversation.apply(fact("transcript_created", 1, direction="out", text="Hello?"))
    assert conversation.apply(
        fact("transcript_created", 2, direction="in", text="\N{WAVING HAND SIGN}")
    )
    assert said(conversation) == [
        Message(role="assistant", content="Hello?", timestamp=BEGIN + timedelta(seconds=1)),
        Message(role="user", content="👋", timestamp=BEGIN + timedelta(seconds=2)),
    ]
    assert conversation.messages == 2


def test_context_follows_digits_and_language() -> None:
    conversation = created()
    for digit in "0123456789" * 10:
        assert conversation.apply(fact("dtmf_received", digit=digit))
    assert conversation.apply(fact("transcribe_started", transcribe_id="t1", language="de-DE"))
    assert conversation.context.digits == ("0123456789" * 10)[-MAX_DIGITS:]
    assert conversation.context.language == "de-DE"


def test_every_fact_is_activity_and_all_else_is_not() -> None:
    conversation = created()
    assert not conversation.apply(fact("transcript_interim", 1, direction="in", text="Hel"))
    assert not conversation.apply(fact("speaking", 2))
    assert conversation.session.last_activity_at == BEGIN
    assert conversation.apply(fact("call_updated", 3, status="in-progress"))
    assert conversation.session.last_activity_at == BEGIN + timedelta(seconds=3)


def test_history_keeps_the_newest_messages() -> None:
    conversation = created()
    for number in range(MAX_MESSAGES + 5):
        conversation.apply(fact("transcript_created", direction="in", text=str(number)))
    history = said(conversation)
    assert [message.content for message in history] == [str(n) for n in range(5, MAX_MESSAGES + 5)]


@pytest.mark.parametrize("text", ["x" * 16_384, "\n" * 16_384, "€" * 16_384])
def test_history_is_bounded_in_bytes_too(text: str) -> None:
    conversation = created()
    for _ in range(50):
        conversation.apply(fact("transcript_created", direction="in", text=text))
    sizes = [len(message.model_dump_json().encode()) for message in said(conversation)]
    assert sum(sizes) <= MAX_HISTORY_BYTES
    assert sum(sizes) + sizes[0] > MAX_HISTORY_BYTES


def test_newest_message_stays_however_long_it_is() -> None:
    conversation = created()
    for text in ("short", "x" * MAX_HISTORY_BYTES):
        conversation.apply(fact("transcript_created", direction="in", text=text))
    assert [len(message.content) for message in said(conversation)] == [MAX_HISTORY_BYTES]


def test_summary_tells_how_it_ended() -> None:
    conversation = created(source="+49301", destination="100")
    conversation.apply(fact("transcript_created", 1, direction="out", text="Hello?"))
    end = fact("call_hungup", 9, status="completed", hangup_by="caller", hangup_cause="normal")
    summary = summarize(end, conversation.session, conversation.messages)
    assert (summary.status, summary.call_status) == ("ended", "completed")
    assert (summary.hangup_by, summary.hangup_cause) == ("caller", "normal")
    assert summary.ended_at - summary.started_at == timedelta(seconds=9)
    assert (summary.messages, summary.source, summary.customer_id) == (1, "+49301", "acme")
