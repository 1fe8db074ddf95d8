"""``mediad warm`` as a person meets it: real processes, a real Redis, a TTS service of our own."""

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from typing import NamedTuple
from uuid import uuid4

import pytest

from mediad.ai.spoken import SpeechKey
from mediad.wire.frames import Text
from tests.fakes.service import FakeService, ServiceConnection
from tests.redis_server import RedisServer


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


class Result(NamedTuple):
    status: int | None
    out: str
    err: str


async def warm(*arguments: str, stdin: str = "", **settings: str) -> Result:
    """Run the command with settings from the environment alone."""
    environment = {name: value for name, value in os.environ.items() if "MEDIAD" not in name}
    environment |= {f"MEDIAD_{name}": value for name, value in settings.items()}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mediad", "warm", *arguments),
        env=environment,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(20):
        out, err = await process.communicate(stdin.encode())
    return Result(process.returncode, out.decode(), err.decode())


async def test_prompts_are_spoken_once_and_kept(redis: RedisServer) -> None:
    where = {"REDIS__URL": redis.url, "CACHE__PREFIX": uuid4().hex, "REDIS__TIMEOUT_S": "10"}
    where |= {"TTS__TIMEOUT_S": "10", "TTS__BUDGET_S": "20", "TTS__CONNECT_TIMEOUT_S": "10"}
    where["PIPELINE__FALLBACK_PROMPT"] = "One moment, please."
    async with FakeService("tts") as tts:
        where["TTS__URL"] = tts.url
        lines = "Welcome.\n\n  Press  one.\nWelcome.\n"
        first = await warm("Good bye.", "--file", "-", stdin=lines, **where)
        assert (first.status, first.err) == (0, "")
        assert sorted(line.partition("] ")[2] for line in first.out.splitlines()) == [
            "stored: Are you still there? (0.2 s)",
            "stored: Good bye. (0.1 s)",
            "stored: One moment, please. (0.2 s)",
            "stored: Press one. (0.1 s)",
            "stored: Welcome. (0.1 s)",
        ]
        again = await warm("Welcome.", "Thank you.", "--json", **where)
        assert again.status == 0
        assert [(prompt["text"], prompt["outcome"]) for prompt in json.loads(again.out)] == [
            ("Welcome.", "kept"),
            ("Thank you.", "stored"),
            ("One moment, please.", "kept"),
            ("Are you still there?", "kept"),
        ]
        assert len(tts.asked(Text)) == 6
    with redis.client() as client:
        keys = client.keys(f"{where['CACHE__PREFIX']}:prod:tts:*:audio")
        assert len(keys) == 6
        assert all(86_000 < client.ttl(key) <= 86_400 for key in keys)


async def test_what_cannot_be_stored_is_told(redis: RedisServer) -> None:
    async def say_nothing(connection: ServiceConnection) -> None:
        """Hang."""

    where = {"REDIS__URL": redis.url, "CACHE__PREFIX": uuid4().hex, "TTS__BUDGET_S": "0.5"}
    async with FakeService("tts", say_nothing) as tts:
        result = await warm("Welcome.", TTS__URL=tts.url, **where)
    assert result.status == 1
    assert "] failed: Welcome. (timeout)" in result.out
    assert "2 of 2 are not in the cache" in result.err
    where |= {"TTS__URL": "ws://127.0.0.1:1"}
    assert "failed: Welcome. (unavailable)" in (await warm("Welcome.", **where)).out
    async with FakeService("tts") as tts:
        where |= {"TTS__URL": tts.url, "REDIS__URL": "redis://127.0.0.1:1/0"}
        where["TTS__BUDGET_S"] = "20"
        result = await warm("Welcome.", **where)
    assert "(Redis at 127.0.0.1:1 does not answer" in result.out


async def test_texts_are_kept_as_calls_look_for_them(redis: RedisServer) -> None:
    prefix = uuid4().hex
    where = {"REDIS__URL": redis.url, "CACHE__PREFIX": prefix, "REDIS__TIMEOUT_S": "10"}
    where |= {"TTS__TIMEOUT_S": "10", "TTS__BUDGET_S": "20", "TTS__CONNECT_TIMEOUT_S": "10"}
    where["PIPELINE__FIRST_MESSAGE"] = "Hello! This is\nthe bank. How are you?"
    how = ("--voice", "anna", "--language", "en-US", "--rate", "1.5", "--line-rate", "16000")
    async with FakeService("tts") as tts:
        result = await warm(*how, TTS__URL=tts.url, **where)
        assert (result.status, result.err) == (0, "")
        url = tts.url
    with redis.client() as client:
        for text in ("Hello!", "This is", "the bank.", "How are you?", "Are you still there?"):
            digest = SpeechKey(url, "anna", "en-US", 1.5, 16_000, text).digest()
            assert client.exists(f"{prefix}:prod:tts:{digest}:audio"), text


async def test_without_redis_there_is_nothing_to_fill() -> None:
    result = await warm("Welcome.")
    assert result.status == 1
    assert "there is nothing to fill" in result.err
