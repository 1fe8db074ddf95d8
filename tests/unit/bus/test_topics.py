"""Topics: what they match, and what they never do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediad.bus.events import Event
from mediad.bus.topics import Topic, parse_topic

IDS = st.text("abcXYZ0189-_", min_size=1, max_size=36)
KINDS = st.sampled_from(["call", "live"])


def event(customer_id: str, call_id: str, kind: str) -> Event:
    sequence = 1 if kind == "call" else None
    return Event("call_created", call_id, 0.0, customer_id=customer_id, sequence=sequence)


@given(IDS, KINDS, st.none() | IDS)
def test_topics_are_written_as_they_are_read(customer: str, kind: str, call: str | None) -> None:
    text = f"customer_id:{customer}:{kind}:{call or '*'}"
    assert str(parse_topic(text)) == text


@given(st.text(max_size=120))
def test_any_text_is_a_topic_or_an_error(text: str) -> None:
    try:
        topic = parse_topic(text)
    except ValueError:
        return
    assert str(topic) == text


@given(IDS, KINDS, st.none() | IDS, IDS, IDS, KINDS)
def test_a_topic_matches_its_own_only(
    customer: str, kind: str, call: str | None, other_customer: str, other_call: str, other: str
) -> None:
    topic = parse_topic(f"customer_id:{customer}:{kind}:{call or '*'}")
    happened = event(other_customer, other_call, other)
    expected = customer == other_customer and kind == other and call in (None, other_call)
    assert topic.matches(happened) == expected
    assert topic.matches(event(customer, call or other_call, kind))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "*",
        "customer_id:*:call:*",
        "customer_id:1:*",
        "customer_id:1:call",
        "customer_id:1:call:",
        "customer_id:1:call:a*",
        "customer_id:1:call:*:b",
        "customer_id:1:recording:*",
        "customer_id::call:*",
        "customer_id:1:call:*\n",
        "customer_id:1:call:é",
    ],
)
def test_what_is_no_topic(text: str) -> None:
    with pytest.raises(ValueError, match="a topic is"):
        parse_topic(text)


def test_a_topic_is_told_by_its_parts() -> None:
    assert parse_topic("customer_id:1:live:*") == Topic("1", "live", None)
