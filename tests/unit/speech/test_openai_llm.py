"""The LLM service in front of an HTTP API, against one that speaks the real wire."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mediad.errors import ConfigError
from mediad.speech.roles.call import Handler, Refused
from mediad.speech.roles.choice import Choice, make_service
from mediad.speech.roles.openai_llm import openai_service
from mediad.wire.frames import Text
from mediad.wire.service import Done, FromService, Generate, Start
from tests.fakes.openai_api import DONE, FakeApi, chunk, run_api, usage

MESSAGES = [{"role": "user", "content": "Hello?"}]
TOOLS = [{"type": "function", "function": {"name": "hang_up", "parameters": {"type": "object"}}}]


@pytest.fixture
async def api() -> AsyncIterator[FakeApi]:
    async with run_api() as api:
        yield api


@asynccontextmanager
async def handler_of(api: FakeApi, key: str = "") -> AsyncIterator[Handler]:
    async def send(_: FromService) -> None:
        raise AssertionError("nothing comes unasked")

    async with openai_service(api.url, "a-model", key)(Start("llm", "a-call"), send) as handler:
        yield handler


async def answer(api: FakeApi, tools: list[dict[str, Any]] | None = None) -> list[FromService]:
    async with handler_of(api) as handler:
        return [part async for part in handler.ask(Generate(1, MESSAGES, tools or ()))]


async def test_deltas_come_as_they_are_and_usage_with_the_done(api: FakeApi) -> None:
    api.events = [chunk(""), chunk("Hel"), chunk("lo. "), chunk(finish="stop"), usage(9, 2), DONE]
    tokens = {"prompt_tokens": 9, "completion_tokens": 2}
    assert await answer(api) == [Text(1, "Hel"), Text(1, "lo. "), Done(1, "stop", tokens, [])]
    (request,) = api.requests
    assert (request["model"], request["messages"]) == ("a-model", MESSAGES)
    assert request["stream"] is True
    assert "tools" not in request


async def test_an_answer_that_was_too_long_says_so(api: FakeApi) -> None:
    api.events = [chunk("Once"), chunk(finish="length"), DONE]
    assert (await answer(api))[-1] == Done(1, "length", {}, [])


async def test_tool_calls_are_put_together(api: FakeApi) -> None:
    def piece(index: int, arguments: str, **first: str) -> dict[str, Any]:
        function = {"arguments": arguments} | ({"name": first["name"]} if first else {})
        return {"index": index, "function": function} | ({"id": first["id"]} if first else {})

    api.events = [
        chunk(tool_calls=[piece(0, "", id="c1", name="hang_up")]),
        chunk(tool_calls=[piece(0, '{"in":'), piece(1, "{}", id="c2", name="transfer")]),
        chunk(tool_calls=[piece(0, "3}")]),
        chunk(finish="tool_calls"),
        DONE,
    ]
    (done,) = await answer(api, TOOLS)
    assert isinstance(done, Done)
    assert done.reason == "tool_calls"
    assert [call["id"] for call in done.tool_calls] == ["c1", "c2"]
    assert done.tool_calls[0]["function"] == {"name": "hang_up", "arguments": '{"in":3}'}
    assert api.requests[0]["tools"] == TOOLS


async def test_a_model_that_knows_no_tools_answers_without(api: FakeApi) -> None:
    api.events = [chunk("Hello."), chunk(finish="stop"), DONE]
    api.refuses_tools = True
    async with handler_of(api) as handler:
        for n in (1, 2):
            parts = [part async for part in handler.ask(Generate(n, MESSAGES, TOOLS))]
            assert parts == [Text(n, "Hello."), Done(n, "stop", {}, [])]
    assert ["tools" in request for request in api.requests] == [True, False, False]


async def test_arguments_without_end_are_refused(api: FakeApi) -> None:
    piece = {"index": 0, "function": {"name": "", "arguments": "x" * 10_000}}
    api.events = [chunk(tool_calls=[piece]), chunk(tool_calls=[piece]), 10.0]
    with pytest.raises(Refused) as refused:
        await answer(api)
    assert refused.value.code == "too_large"


@pytest.mark.parametrize(
    ("status", "retry"), [(401, False), (404, False), (429, True), (503, True)]
)
async def test_errors_say_whether_to_try_again(api: FakeApi, status: int, retry: bool) -> None:
    api.status = status
    with pytest.raises(Refused) as refused:
        await answer(api)
    assert (refused.value.code, refused.value.retry) == (f"http_{status}", retry)


async def test_an_error_within_the_stream_is_one(api: FakeApi) -> None:
    api.events = [chunk("Hel"), {"error": {"message": "overloaded"}}]
    with pytest.raises(Refused) as refused:
        await answer(api)
    assert (refused.value.code, str(refused.value)) == ("unavailable", "overloaded")


async def test_half_an_answer_is_an_error(api: FakeApi) -> None:
    api.events = [chunk("Hel")]
    with pytest.raises(Refused) as refused:
        await answer(api)
    assert (refused.value.code, refused.value.retry) == ("cut_off", True)


async def test_nobody_there_is_an_error_that_may_pass(api: FakeApi) -> None:
    api.url = "http://127.0.0.1:1/v1"
    with pytest.raises(Refused) as refused:
        await answer(api)
    assert (refused.value.code, refused.value.retry) == ("unavailable", True)


async def test_who_loses_interest_closes_the_stream(api: FakeApi) -> None:
    api.events = [chunk("Hel"), 10.0, chunk("lo"), chunk(finish="stop"), DONE]
    async with handler_of(api) as handler:
        async with aclosing(handler.ask(Generate(1, MESSAGES))) as parts:
            assert await anext(parts) == Text(1, "Hel")
            assert not api.idle.is_set()
        async with asyncio.timeout(8):  # the next word comes after 10
            await api.idle.wait()


async def test_the_key_is_sent(api: FakeApi) -> None:
    api.events = [chunk(finish="stop"), DONE]
    async with handler_of(api, "sesame") as handler:
        assert [part async for part in handler.ask(Generate(1, MESSAGES))] == [
            Done(1, "stop", {}, [])
        ]
    assert api.authorization == ["bearer sesame"]


# What is given on the command line.


async def test_the_key_may_be_in_a_file(
    api: FakeApi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("sesame\n", encoding="utf-8")
    monkeypatch.setenv("OPENAI_API_KEY", f"file:{tmp_path}/key")
    make_service(Choice("llm", url=api.url, model="a-model"))
    monkeypatch.setenv("OPENAI_API_KEY", f"file:{tmp_path}/none")
    with pytest.raises(ConfigError, match="OPENAI_API_KEY: .*/none cannot be read"):
        make_service(Choice("llm", url=api.url, model="a-model"))


def test_an_api_is_for_an_llm_and_needs_a_model() -> None:
    with pytest.raises(ConfigError, match="--role llm only"):
        make_service(Choice("tts", url="http://127.0.0.1/v1", model="a-model"))
    with pytest.raises(ConfigError, match="needs --model"):
        make_service(Choice("llm", url="http://127.0.0.1/v1"))
