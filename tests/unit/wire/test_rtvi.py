"""RTVI: what is sent, what is understood, what is passed over."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediad.wire import rtvi
from mediad.wire.rtvi import AgentError, AgentReady, Event, Speaking, Transcript


def message(type_: Any, data: Any = None, label: str = "rtvi-ai") -> str:
    """Return a message as an agent sends it."""
    return json.dumps({"label": label, "type": type_, "id": "1", "data": data})


def test_client_ready_names_version_and_call() -> None:
    sent = json.loads(rtvi.client_ready("m1", {"call_id": "c", "from": "100"}))
    assert sent["label"] == "rtvi-ai"
    assert (sent["type"], sent["id"]) == ("client-ready", "m1")
    assert sent["data"]["version"] == rtvi.PROTOCOL_VERSION == "2.0.0"
    assert sent["data"]["about"]["library"] == "mediad"
    assert sent["data"]["about"]["platform_details"] == {"call_id": "c", "from": "100"}


def test_a_digit_is_a_list_of_one_button() -> None:
    sent = json.loads(rtvi.dtmf("m2", "#"))
    assert (sent["type"], sent["data"]) == ("dtmf", {"buttons": ["#"]})


def test_text_for_the_agent_says_whether_to_answer_at_once() -> None:
    sent = json.loads(rtvi.send_text("m3", "be brief", run_immediately=False))
    assert sent["type"] == "send-text"
    options = {"run_immediately": False, "audio_response": True}
    assert sent["data"] == {"content": "be brief", "options": options}


@pytest.mark.parametrize(
    ("type_", "data", "event"),
    [
        ("user-started-speaking", None, Speaking("caller", True)),
        ("user-stopped-speaking", None, Speaking("caller", False)),
        ("bot-started-speaking", None, Speaking("agent", True)),
        ("bot-stopped-speaking", {}, Speaking("agent", False)),
        (
            "user-transcription",
            {"text": "yes", "user_id": "", "timestamp": "", "final": True},
            Transcript("caller", "yes", True),
        ),
        ("user-transcription", {"text": "ye"}, Transcript("caller", "ye", False)),
        ("user-transcription", {"final": 1}, Transcript("caller", "", False)),
        ("bot-transcription", {"text": "Hello"}, Transcript("agent", "Hello", True)),
        ("bot-ready", {"version": "2.0.0"}, AgentReady()),
        ("error", {"error": "no LLM", "fatal": True}, AgentError("no LLM", True)),
        ("error", {"message": "no LLM"}, AgentError("no LLM", False)),
        ("error", [], AgentError("", False)),
        ("error-response", {"error": "unknown type"}, AgentError("unknown type", False)),
    ],
)
def test_what_an_agent_tells(type_: str, data: Any, event: Event) -> None:
    assert rtvi.parse(message(type_, data)) == event


@pytest.mark.parametrize(
    "data",
    [
        "",
        "{",
        "null",
        "[]",
        '"rtvi-ai"',
        "[" * 100_000,
        "{}",
        message("bot-ready", label="other"),
        message("metrics", {"ttfb": []}),
        message(None),
        message(["bot-ready"]),
    ],
)
def test_what_is_of_no_interest_is_passed_over(data: str) -> None:
    assert rtvi.parse(data) is None


def test_texts_are_cut() -> None:
    long = "x" * (rtvi.MAX_TEXT + 1)
    event = rtvi.parse(message("bot-transcription", {"text": long}))
    assert event == Transcript("agent", long[:-1], True)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(("text", "final", "error", "fatal")), inner, max_size=4
            )
        ),
        max_leaves=6,
    ),
    st.sampled_from(("user-transcription", "bot-transcription", "error", "error-response", "x")),
)
def test_no_data_makes_it_raise(data: Any, type_: str) -> None:
    event = rtvi.parse(message(type_, data))
    assert event is None or isinstance(event, Transcript | AgentError)


def test_json_that_is_too_long_is_not_read() -> None:
    message = json.dumps({"label": "rtvi-ai", "type": "bot-ready", "data": {"x": "y" * 66_000}})
    assert rtvi.parse(message) is None


def test_half_a_surrogate_pair_can_be_written() -> None:
    text = rtvi.parse(
        '{"label": "rtvi-ai", "type": "bot-transcription", "data": {"text": "a\\ud800b"}}'
    )
    assert text == rtvi.Transcript("agent", "a?b", True)
