"""Every limit of the README's table is met by some test, in which its counter moves. Here are those
that no other test meets.
"""

import asyncio
import re
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from mediad.api import bodies
from mediad.config import Settings
from mediad.wav import write_wav
from mediad.wire.frames import MAX_MESSAGE_SIZE
from tests.fakes.agent import AgentConnection, FakeAgent
from tests.integration.daemon import Daemon, eventually, running, settings
from tests.sound import tone

ROOT = Path(__file__).parents[2]
NOBODY = "ws://127.0.0.1:9"
ANSWERS = "mediad_http_answers_total"


def test_every_counter_of_a_limit_is_read_by_a_test() -> None:
    table = (ROOT / "README.md").read_text("utf-8").partition("| counted as |")[2]
    rows = table.partition("\n\n")[0].splitlines()[2:]
    tests = [
        path.read_text("utf-8")
        for path in (ROOT / "tests").rglob("test_*.py")
        if path.name != "test_prometheus.py"  # which reads all names
    ]
    for row in rows:
        for name, label in re.findall(r"`(\w+)(?:\{(\w+)\})?`", row.strip("|").split("|")[-1]):
            # Some tests leave out of a name what the metrics that they read have in common.
            names = (name, f'"{name.partition("_")[2]}_total"')
            labels = (f'"{label}"', f"'{label}'") if label else ("",)
            assert any(
                any(one in test for one in names) and any(one in test for one in labels)
                for test in tests
            ), f"no test reads {name} {label}"


# Calls


async def test_audio_of_all_calls_together_is_bounded() -> None:
    async def script(agent: AgentConnection) -> None:
        await agent.say(tone(440, 30.0, 8000), 8000)

    most = 1 << 20
    async with FakeAgent(script) as agent, AsyncExitStack() as stack:
        wanted = settings(agent.url, audiosocket={"playout_max_bytes": most})
        daemon = await stack.enter_async_context(running(wanted))
        calls = [await stack.enter_async_context(daemon.call()) for _ in range(3)]
        await daemon.metric_reaches(1, "mediad_refused_bytes_total")
        assert 0.8 * most < await daemon.metric("mediad_playout_bytes") <= most
        for call in calls[:2]:  # they had room, and go on
            await call.hears_words()
        for call in calls:
            call.close()
            await daemon.event("call_hungup", call)
        async with asyncio.timeout(10):
            # The last one's is given back with the next call.
            while await daemon.metric("mediad_playout_bytes") > most / 2:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        async with daemon.call() as call:
            await call.hears_words()


async def test_call_that_is_too_long_is_ended() -> None:
    async with FakeAgent() as agent:
        async with running(settings(agent.url, audiosocket={"max_call_s": 0.3})) as daemon:
            async with daemon.call() as call:
                await call.hung_up()
            ended = await daemon.metric(
                "mediad_calls_ended_total", cause="recovery_on_timer_expiry"
            )
    assert ended == 1


async def test_message_that_is_too_long_ends_its_connection() -> None:
    told: list[int | None] = []

    async def script(agent: AgentConnection) -> None:
        await agent.ws.send(bytes(MAX_MESSAGE_SIZE + 1))
        await agent.ws.wait_closed()
        told.append(agent.ws.close_code)

    async with FakeAgent(script) as agent, running(settings(agent.url)) as daemon:
        async with daemon.call():
            # Our end is not the agent's: it is as if the connection had broken.
            await daemon.metric_reaches(1, "mediad_agent_closes_total", code="1006")
            await eventually(lambda: told != [])
    assert told[0] == 1009


# The API


class Client:
    """Asks the API of a mediad, and looks whether the answer is counted."""

    def __init__(self, daemon: Daemon, wanted: Settings) -> None:
        self._daemon = daemon
        self._key = (wanted.database.state_directory / "access_key").read_text().strip()

    async def ask(self, method: str, path: str, *headers: str, body: bytes = b"") -> str:
        """Return the status."""
        reader, writer = await asyncio.open_connection(*self._daemon.app.http_address)
        lines = (f"{method} {path} HTTP/1.1", "Host: mediad", f"AccessKey: {self._key}")
        writer.write("\r\n".join((*lines, "Connection: close", *headers, "", "")).encode() + body)
        status = (await reader.read()).split(b" ")[1].decode()
        writer.close()
        return status

    async def is_told(self, expected: str, *request: str, body: bytes = b"") -> None:
        """Check that a request gets this answer, and that it is counted."""
        before = await self._daemon.metric(ANSWERS, status=expected)
        assert await self.ask(*request, body=body) == expected
        assert await self._daemon.metric(ANSWERS, status=expected) == before + 1


def with_http(**http: Any) -> Settings:
    wanted = settings(NOBODY)
    return wanted.model_copy(update={"http": wanted.http.model_copy(update=http)})


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        ("408", ("Content-Length: 10",)),
        ("413", (f"Content-Length: {bodies.MAX_BODY_BYTES + 1}",)),
        ("431", (f"X-Long: {'x' * 33_000}",)),
    ],
)
async def test_request_that_is_slow_or_large_is_refused(
    status: str, headers: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "MAX_BODY_S", 0.2)
    wanted = with_http()
    async with running(wanted) as daemon:
        await Client(daemon, wanted).is_told(status, "POST", "/v1/webhooks", *headers)


async def test_bodies_of_all_requests_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "MAX_HELD_BYTES", 10)
    wanted = with_http()
    async with running(wanted) as daemon:
        request = ("POST", "/v1/webhooks", "Content-Length: 20")
        await Client(daemon, wanted).is_told("503", *request, body=bytes(20))


async def test_requests_with_one_key_are_bounded() -> None:
    wanted = with_http(max_requests_per_minute=3)
    async with running(wanted) as daemon:
        client = Client(daemon, wanted)
        statuses = [await client.ask("GET", "/v1/me") for _ in range(8)]  # a minute may end
        assert "429" in statuses
        assert await daemon.metric(ANSWERS, status="429") == statuses.count("429")


async def test_what_waits_to_be_played_is_bounded(tmp_path: Path) -> None:
    async with FakeAgent() as agent:
        wanted = settings(agent.url, audiosocket={"playout_max_s": 1})
        async with running(wanted) as daemon, daemon.call() as call:
            client = Client(daemon, wanted)
            write_wav(tmp_path / "sound.wav", 8000, tone(440, 2.0, 8000))
            sound = (tmp_path / "sound.wav").read_bytes()
            path = f"/v1/calls/{call.call_id}/play"
            request = ("POST", path, "Content-Type: audio/wav", f"Content-Length: {len(sound)}")
            await call.hears(5)
            async with asyncio.timeout(10):
                # It is not in the database yet.
                while (status := await client.ask(*request, body=sound)) == "404":  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            assert status == "409"
            await client.is_told("409", *request, body=sound)


async def test_webhook_that_cannot_be_sent_is_counted() -> None:
    wanted = with_http()
    async with running(wanted) as daemon:
        client = Client(daemon, wanted)
        body = b'{"url": "http://127.0.0.1:9/"}'
        request = ("POST", "/v1/webhooks", f"Content-Length: {len(body)}")
        assert await client.ask(*request, "Content-Type: application/json", body=body) == "201"
        async with daemon.call() as call:
            call.close()
        await daemon.metric_reaches(1, "mediad_webhook_attempts_total", outcome="failed")
