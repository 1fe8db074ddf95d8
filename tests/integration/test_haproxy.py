"""config/haproxy/haproxy.cfg with a real HAProxy: calls through it to two mediad."""

import asyncio
import os
import re
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path

import pytest

from mediad.config import AudioSocket
from mediad.wire.audiosocket import Kind, audio_message
from tests.fakes.agent import FakeAgent, echo
from tests.fakes.asterisk import AsteriskCall
from tests.integration.daemon import Daemon, running, settings
from tests.servers import MissingProgramError, Program, find_program

CONFIG = Path(__file__).parents[2] / "config/haproxy/haproxy.cfg"
CLOSED = "mediad_audiosocket_connections_closed_total"
ASTERISK, STRANGER = "127.0.0.2", "127.0.0.3"  # HAProxy is 127.0.0.1


@pytest.fixture(scope="module")
def haproxy() -> Program:
    try:
        return find_program("haproxy", "haproxy")
    except MissingProgramError as exc:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(exc))


def free_port() -> int:
    with closing(socket.socket()) as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
    return port


def from_address(address: str) -> socket.socket:
    """Return a socket that connects from this address of the machine."""
    sock = socket.socket()
    sock.bind((address, 0))
    return sock


def for_here(port: int, daemons: list[Daemon]) -> str:
    """Return the example with our addresses in place of its own."""
    addresses: Iterator[tuple[int, int]] = iter(
        [(daemon.app.audiosocket_address[1], daemon.app.http_address[1]) for daemon in daemons]
    )

    def server(line: re.Match[str]) -> str:
        audiosocket, http = next(addresses)
        return f"{line[1]} 127.0.0.1:{audiosocket} port {http}"

    text = CONFIG.read_text(encoding="utf-8")
    text = text.replace("bind :9092", f"bind 127.0.0.1:{port}").replace("check port 8080", "check")
    text = text.replace("maxconn 5000", "maxconn 100")  # it would want files for them
    text, count = re.subn(r"(server mediad-\d) \S+", server, text)
    assert count == len(daemons)
    return text


async def until_up(address: tuple[str, int]) -> None:
    """Wait until HAProxy takes connections: it begins by taking both for ready."""
    async with asyncio.timeout(10):
        while True:
            try:
                async with AsteriskCall(address, sends_uuid=False, sock=from_address(ASTERISK)):
                    return
            except ConnectionRefusedError:
                await asyncio.sleep(0.05)


@asynccontextmanager
async def balanced(
    haproxy: Program, tmp_path: Path
) -> AsyncIterator[tuple[tuple[str, int], list[Daemon]]]:
    """Run two mediad behind HAProxy; yield its address and them."""
    options = {"proxy_protocol": "v2", "proxies": ["127.0.0.1"], "allow": [ASTERISK]}
    async with FakeAgent(echo) as agent, AsyncExitStack() as stack:
        daemons = [
            await stack.enter_async_context(running(settings(agent.url, audiosocket=options)))
            for _ in range(2)
        ]
        address = ("127.0.0.1", free_port())
        config = tmp_path / "haproxy.cfg"
        config.write_text(for_here(address[1], daemons), encoding="utf-8")
        process = await asyncio.create_subprocess_exec(
            haproxy.path, "-db", "-f", config, env=haproxy.environment
        )
        try:
            await until_up(address)
            yield address, daemons
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


def test_example_is_valid(haproxy: Program) -> None:
    subprocess.run(
        [haproxy.path, "-c", "-f", CONFIG], env=haproxy.environment, check=True, timeout=30
    )


def test_quiet_calls_live_longer_than_the_longest_call() -> None:
    hours = re.findall(r"timeout (?:client|server) (\d+)h", CONFIG.read_text(encoding="utf-8"))
    assert len(hours) == 2
    assert all(int(each) * 3600 > AudioSocket().max_call_s for each in hours)


async def test_calls_are_spread_and_heard_both_ways(haproxy: Program, tmp_path: Path) -> None:
    loud = audio_message(Kind.SLIN, b"\x10\x20" * 160)
    async with balanced(haproxy, tmp_path) as (address, daemons), AsyncExitStack() as stack:
        calls = []
        for number in range(4):
            call = AsteriskCall(address, sock=from_address(ASTERISK))
            calls.append(await stack.enter_async_context(call))
            await call.hears(1)
            assert sum(daemon.app.calls.live for daemon in daemons) == number + 1
        assert [daemon.app.calls.live for daemon in daemons] == [2, 2]
        await asyncio.gather(*(call.play([loud] * 50) for call in calls))
        await calls[0].hears(10)
        assert all(len(call.words) > 20 * 320 for call in calls)
        for call in calls:
            call.close()
        for daemon in daemons:
            for number in range(2):
                end = await daemon.event("call_hungup", number=number)
                assert end.data["hangup_by"] == "caller"


async def test_mediad_judges_the_callers_address(haproxy: Program, tmp_path: Path) -> None:
    async with balanced(haproxy, tmp_path) as (address, daemons):
        async with AsteriskCall(address, sock=from_address(STRANGER)) as call:
            await call.hung_up()
            assert call.audio == []
        refused = [await daemon.metric(CLOSED, reason="not_allowed") for daemon in daemons]
        assert sum(refused) == 1
        async with AsteriskCall(daemons[0].app.audiosocket_address) as call:  # round it
            await call.closed()
            assert call.audio == []
        assert await daemons[0].metric(CLOSED, reason="bad_proxy_header") == 1


async def test_mediad_that_is_not_ready_gets_no_more_calls_and_keeps_its_own(
    haproxy: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with balanced(haproxy, tmp_path) as (address, daemons), AsyncExitStack() as stack:
        first = AsteriskCall(address, sock=from_address(ASTERISK))
        await stack.enter_async_context(first)
        await first.hears(1)
        leaving, other = sorted(daemons, key=lambda daemon: -daemon.app.calls.live)
        monkeypatch.setattr(leaving.app.calls, "_is_stopping", True)
        await asyncio.sleep(3.5)  # two checks fail
        for _ in range(4):
            call = AsteriskCall(address, sock=from_address(ASTERISK))
            await stack.enter_async_context(call)
            await call.hears(1)
        assert (leaving.app.calls.live, other.app.calls.live) == (1, 4)
        await first.hears(5)
