"""Peers that say our secrets to us, over open connections and in the API: they stand in no log, no
event and no error.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import pytest

from mediad.blot import MASK
from mediad.config import Settings
from mediad.log import logging_to
from mediad.wire.frames import Text
from mediad.wire.service import Done, Failure, Generate, Role
from tests.fakes.agent import AgentConnection, FakeAgent
from tests.fakes.service import FakeService, Script, ServiceConnection, answer, requests
from tests.integration.daemon import Daemon, running, settings

ROLES: tuple[Role, ...] = ("stt", "llm", "tts")
NOBODY = "ws://127.0.0.1:9"
FORGED = "2026-01-01T00:00:00.000Z INFO    mediad: all is well"


def key_of(whose: str) -> str:
    """Return a key that looks like one."""
    return f"sk-{whose}-s3sam3-0123456789"


def said_of(whose: str) -> str:
    """Return what a peer says that repeats its key, or half of it, and begins a log line."""
    key = key_of(whose)
    return f"wrong key {key}\n{FORGED}\r\n\x1b[2J Bearer {key}, {key[:-4]} " + "x" * 10_000


def repeater(role: Role) -> Script:
    """Return a service that fails at each request, and says with which key it was asked."""

    async def script(connection: ServiceConnection) -> None:
        assert connection.headers["Authorization"] == f"Bearer {key_of(role)}"
        async for request in requests(connection):
            if isinstance(request, Generate | Text):
                n = request.n if isinstance(request, Generate) else request.id
                await connection.send(Failure(n, key_of(role), said_of(role), False))
                await connection.send(Done(n, "error"))

    return script


def keyed(whose: str, *urls: str) -> dict[str, Any]:
    return {"url": urls, "headers": {"Authorization": f"Bearer {key_of(whose)}"}}


@asynccontextmanager
async def pipeline() -> AsyncIterator[Daemon]:
    """Run a mediad whose services repeat their keys: one while it is asked whether it is ready, the
    others at each request.
    """
    async with AsyncExitStack() as stack:
        wanted = settings(ai={"link": "pipeline"}).model_dump()
        refusal = Failure(None, key_of("llm"), said_of("llm"), retry=False)
        refuser = await stack.enter_async_context(FakeService("llm", ready=refusal))
        for role in ROLES:
            script = answer if role == "stt" else repeater(role)
            fake = await stack.enter_async_context(FakeService(role, script))
            wanted[role] |= keyed(role, *([refuser.url] if role == "llm" else []), fake.url)
        wanted["ai"]["agent_url"] = [NOBODY]
        wanted["pipeline"] |= {"fallback_prompt": "Sorry."}
        yield await stack.enter_async_context(running(Settings.model_validate(wanted)))


def lines_of(capfd: pytest.CaptureFixture[str]) -> list[str]:
    lines = capfd.readouterr().err.splitlines()
    assert not any(line.startswith(FORGED) for line in lines)
    assert not any("s3sam3" in line for line in lines)
    assert not any("\x1b" in line for line in lines)
    return lines


async def test_what_services_say_is_told_without_their_keys(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with logging_to("debug"):
        async with pipeline() as daemon, daemon.call() as call:
            await daemon.metric_reaches(1, "mediad_fallbacks_total", role="llm")
            await daemon.metric_reaches(1, "mediad_fallbacks_total", role="tts")
            call.close()
            await daemon.event("call_hungup", call)
            _, health = await daemon.get("/healthz")
    assert "s3sam3" not in repr(daemon.seen) + health
    told = [line for line in lines_of(capfd) if f"wrong key {MASK}" in line]
    for what in ("llm service at ws:", ": llm: error ", ": tts: error "):
        (line, *_) = [line for line in told if what in line]
        assert rf"'{MASK}': 'wrong key {MASK}\n2026" in line
        assert len(line) < 400


async def test_what_an_agent_says_is_told_without_our_keys(
    capfd: pytest.CaptureFixture[str],
) -> None:
    async def script(agent: AgentConnection) -> None:
        assert agent.headers["Authorization"] == f"Bearer {key_of('ai')}"
        await agent.tell("error", error=said_of("ai"), fatal=False)
        await agent.tell("error-response", error=said_of("ai"))
        await agent.tell(key_of("ai"), text=key_of("ai"))
        await agent.ws.send(key_of("ai"))
        await agent.ws.close(1011, said_of("ai")[:60])

    ai = {"headers": {"Authorization": f"Bearer {key_of('ai')}"}}
    with logging_to("debug"):
        async with FakeAgent(script) as agent, running(settings(agent.url, ai=ai)) as daemon:
            async with daemon.call() as call:
                await daemon.event("agent_lost", call)
                told = daemon.events("agent_error", call)
                status, metrics = await daemon.get("/metrics")
    assert "s3sam3" not in repr(daemon.seen) + metrics
    text = rf"wrong key {MASK}\n{FORGED}\r\n\x1b[2J {MASK}, {MASK} xxx"
    assert len(told) == 2
    assert all(event.data["text"].startswith(text) for event in told)
    assert all(len(event.data["text"]) < 250 for event in told)
    written = [line for line in lines_of(capfd) if "agent reports an error" in line]
    assert all(rf"'wrong key {MASK}\n2026" in line for line in written[:2])


async def test_what_redis_says_is_told_without_our_password(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Some say what they were asked with."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1000):
            writer.write(f"-ERR unknown command 'AUTH', with args '{key_of('redis')}'\r\n".encode())
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    wanted = settings(NOBODY).model_dump()
    wanted["redis"]["url"] = f"redis://:{key_of('redis')}@127.0.0.1:{port}/0"
    with logging_to("debug"):
        async with server, running(Settings.model_validate(wanted)) as daemon:
            _, health = await daemon.get("/healthz")
    assert MASK in health
    assert "s3sam3" not in health
    assert any(f"with args '{MASK}'" in line for line in lines_of(capfd))


class Client:
    """Asks the API, and keeps what it answers."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url
        self.answers: list[str] = []

    async def ask(self, method: str, path: str, key: str, body: object = None) -> dict[str, Any]:
        data = body if isinstance(body, bytes) else json.dumps(body)
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        async with self._session.request(
            method, f"{self._url}{path}", data=data, headers=headers
        ) as answer:
            text = await answer.text()
            self.answers.append(text)
            return dict(json.loads(text)) if text.startswith("{") else {}


async def test_keys_and_webhook_secrets_are_shown_once_and_in_no_error(
    capfd: pytest.CaptureFixture[str],
) -> None:
    wanted = settings(NOBODY, ai={"connect_timeout_s": 0.2})
    with logging_to("debug"):
        async with running(wanted) as daemon, aiohttp.ClientSession() as session:
            client = Client(session, "http://{}:{}".format(*daemon.app.http_address))
            root = (wanted.database.state_directory / "access_key").read_text().strip()
            made = await client.ask("POST", "/v1/accesskeys", root, {"role": "admin"})
            hook = {"url": "http://127.0.0.1:9/"}
            webhook = await client.ask("POST", "/v1/webhooks", root, hook)
            rotation = f"/v1/webhooks/{webhook['id']}/rotate_secret"
            rotated = await client.ask("POST", rotation, root, {})
            secrets = [root, made["key"], webhook["secret"], rotated["secret"]]
            shown = len(client.answers)
            async with daemon.call() as call:
                await daemon.event("call_hungup", call)
            await client.ask("POST", f"/v1/webhooks/{webhook['id']}/test", root)
            for key in (root, made["key"], f"{root}x", f"{root[:-1]}\u00e9", webhook["secret"]):
                for secret in secrets:
                    await client.ask("POST", "/v1/calls", key, {"agent_url": secret})
                    await client.ask("POST", "/v1/webhooks", key, {"url": secret})
                    await client.ask("PUT", f"/v1/accesskeys/{made['id']}", key, {"role": secret})
                    await client.ask("POST", rotation, key, secret.encode())
                    await client.ask("GET", f"/v1/calls?page_token={secret}", key)
            for path in ("webhooks", "accesskeys", "audit_logs", "webhook_deliveries", "customers"):
                await client.ask("GET", f"/v1/{path}", root)
    answers = "\n".join(client.answers[shown:])
    log = "\n".join(lines_of(capfd))
    assert len(secrets) == len(set(secrets)) == 4
    for secret in secrets:
        assert secret not in log
        assert secret not in repr(daemon.seen)
        assert secret not in answers


async def test_token_of_a_call_is_in_no_log_and_nothing_that_is_kept(
    capfd: pytest.CaptureFixture[str],
) -> None:
    wanted = settings(ai={"token_s": 2})
    with logging_to("debug"):
        async with running(wanted) as daemon, daemon.call() as call:
            token = str((await daemon.event("agent_awaited", call)).data["agent_token"])
            assert daemon.app.dial_in_address is not None
            for request in (f"GET /{token}\r\n\r\n", f"POST /agent/{token} HTTP/1.1\r\n\r\n"):
                reader, writer = await asyncio.open_connection(*daemon.app.dial_in_address)
                writer.write(request.encode())
                await reader.read()
                writer.close()
            await daemon.event("call_hungup", call)
    assert not any(token in line for line in lines_of(capfd))
    assert [seen for seen in daemon.seen if seen.event.is_fact and token in repr(seen)] == []
    files = [path for path in wanted.database.state_directory.rglob("*") if path.is_file()]
    assert any(b"call_hungup" in path.read_bytes() for path in files)
    assert [path for path in files if token.encode() in path.read_bytes()] == []
