"""What is wrong with the tool calls of an LLM service under test."""

from typing import Any

import pytest

from mediad.speech.check import tools
from mediad.speech.roles.llm import reply_to
from mediad.wire import service
from mediad.wire.service import Done


def call(name: object = "hang_up", arguments: object = "{}", **others: object) -> dict[str, Any]:
    """Return a tool call as OpenAI has it, but for what is given."""
    function = {"name": name, "arguments": arguments}
    return {"id": "call_1", "type": "function", "function": function} | others


def received(**data: Any) -> Done:
    """Return a done as mediad reads it."""
    done = service.from_service(service.encode(Done(1, **data)))
    assert isinstance(done, Done)
    return done


@pytest.mark.parametrize(
    "done",
    [
        received(),
        received(reason="length"),
        received(reason="tool_calls", tool_calls=[call()]),
        received(reason="tool_calls", tool_calls=[call(arguments='{"why": "because"}'), call()]),
    ],
)
def test_nothing_is_wrong(done: Done) -> None:
    assert tools.wrong_in(done) is None


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (call("order_pizza"), "a tool is called that was not offered: 'order_pizza'"),
        (call(None), "a tool is called that was not offered: None"),
        (call(arguments=""), "the arguments of hang_up are no text with a JSON object: ''"),
        (call(arguments="[]"), "the arguments of hang_up are no text with a JSON object: '[]'"),
        (call(arguments={}), "the arguments of hang_up are no text with a JSON object: {}"),
        (call(arguments="[" * 9999), f"no text with a JSON object: '{'[' * 99}…"),
        (call(id=""), "a tool call has no id: "),
        (call(id=1), "a tool call has no id: "),
        (call(type="tool"), "a tool call is not of the type function, or has none: "),
        (call(function="hang_up"), "a tool call is not of the type function, or has none: "),
        ({}, "a tool call is not of the type function, or has none: {}"),
    ],
)
def test_what_is_wrong_is_told(call: dict[str, Any], why: str) -> None:
    done = received(reason="tool_calls", tool_calls=[call])
    assert why in (tools.wrong_in(done) or "")


def test_calls_come_with_their_reason() -> None:
    assert tools.wrong_in(received(tool_calls=[call()])) == "tool_calls come with the reason stop"
    none = "the reason is tool_calls, and tool_calls is no list of objects"
    assert tools.wrong_in(received(reason="tool_calls")) == none
    assert tools.wrong_in(received(reason="tool_calls", tool_calls=["hang_up"])) == none


def test_the_second_call_is_looked_at_too() -> None:
    done = received(reason="tool_calls", tool_calls=[call(), call("order_pizza")])
    assert "order_pizza" in (tools.wrong_in(done) or "")


def test_our_own_service_calls_it() -> None:
    assert reply_to(tools.CONVERSATION).ends
