"""config/haproxy/ with a real HAProxy: calls through it to two mediad, and the API over HTTPS."""

import asyncio
import json
import re
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Literal

import httpx
import pytest
from websockets.asyncio.client import connect

from mediad.api import access
from mediad.config import AudioSocket
from mediad.wire.audiosocket import Kind, audio_message
from tests.fakes.agent import FakeAgent, echo
from tests.fakes.asterisk import AsteriskCall
from tests.half_open import vanish
from tests.integration.certificates import Authority
from tests.integration.daemon import Daemon, eventually, running, settings
from tests.missing import skip_or_fail
from tests.servers import MissingProgramError, Program, find_program

CONFIG = Path(__file__).parents[2] / "config/haproxy/haproxy.cfg"
HTTPS = CONFIG.with_name("https.cfg")
CLOSED = "mediad_audiosocket_connections_closed_total"
# HAProxy is 127.0.0.1, and so is whoever does not say where from.
ASTERISK = CUSTOMER = "127.0.0.2"
STRANGER = "127.0.0.3"


@pytest.fixture(scope="module")
def haproxy() -> Program:
    try:
        return find_program("haproxy", "haproxy")
    except MissingProgramError as exc:
        skip_or_fail(exc)


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
    text = text.replace("tcp-ut 20s", "tcp-ut 1s")
    # The mediads share our process, and HAProxy takes one late first answer for the end.
    text = text.replace("timeout check 1s", "timeout check 10s")
    text, count = re.subn(r"(server mediad-\d) \S+", server, text)
    assert count == len(daemons)
    return text


@asynccontextmanager
async def haproxy_with(haproxy: Program, config: Path, port: int) -> AsyncIterator[None]:
    """Run HAProxy while the block lasts. It begins by taking each mediad for ready."""
    process = await asyncio.create_subprocess_exec(
        haproxy.path, "-db", "-f", config, env=haproxy.environment
    )
    try:
        async with asyncio.timeout(10):
            while True:
                try:
                    _, writer = await asyncio.open_connection(
                        "127.0.0.1", port, local_addr=(ASTERISK, 0)
                    )
                    break
                except ConnectionRefusedError:
                    await asyncio.sleep(0.05)
        writer.close()
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


@asynccontextmanager
async def balanced(
    haproxy: Program, tmp_path: Path
) -> AsyncIterator[tuple[tuple[str, int], list[Daemon]]]:
    """Run two mediad behind HAProxy; yield its address and them."""
    proxies = {"proxy_protocol": "v2", "proxies": ["127.0.0.1"], "allow": [ASTERISK]}
    options = {"codec": "slin", **proxies}
    async with FakeAgent(echo) as agent, AsyncExitStack() as stack:
        daemons = [
            await stack.enter_async_context(running(settings(agent.url, audiosocket=options)))
            for _ in range(2)
        ]
        address = ("127.0.0.1", free_port())
        config = tmp_path / "haproxy.cfg"
        config.write_text(for_here(address[1], daemons), encoding="utf-8")
        async with haproxy_with(haproxy, config, address[1]):
            yield address, daemons


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
        await eventually(lambda: all(len(call.words) > 20 * 320 for call in calls))
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


async def test_asterisk_that_is_gone_without_a_word_ends_its_call(
    haproxy: Program, tmp_path: Path
) -> None:
    async with (
        balanced(haproxy, tmp_path) as (address, daemons),
        AsteriskCall(address, sock=from_address(ASTERISK)) as call,
    ):
        await call.hears(1)
        (daemon,) = [daemon for daemon in daemons if daemon.app.calls.live]
        vanish(call.transport.get_extra_info("socket"))
        await daemon.event("call_hungup", call, timeout_s=20)


async def offered(address: tuple[str, int]) -> Literal["taken", "0x00", "closed"]:
    """Offer a call; return what becomes of it."""
    async with AsteriskCall(address, sock=from_address(ASTERISK)) as call, asyncio.timeout(2):
        while not call.heard and not call.is_closed:  # noqa: ASYNC110 (either may come first)
            await asyncio.sleep(0.005)
        return "0x00" if call.has_hangup else "taken" if call.audio else "closed"


async def offered_until(address: tuple[str, int], wanted: str) -> list[str]:
    """Offer calls until one ends so; return what became of those before it."""
    outcomes: list[str] = []
    async with asyncio.timeout(10):
        while (outcome := await offered(address)) != wanted:
            outcomes.append(outcome)
            await asyncio.sleep(0.02)
    return outcomes


async def test_mediad_that_stops_gets_no_more_calls_and_keeps_its_own(
    haproxy: Program, tmp_path: Path
) -> None:
    async with (
        balanced(haproxy, tmp_path) as (address, daemons),
        AsyncExitStack() as stack,
        asyncio.TaskGroup() as group,
    ):
        calls = []
        for _ in range(4):
            call = AsteriskCall(address, sock=from_address(ASTERISK))
            calls.append(await stack.enter_async_context(call))
            await call.hears(1)
        leaving, other = daemons
        # Now the one that leaves has fewer, and HAProxy would give it the next.
        first, second = (call for call in calls if str(call.call_id) in of_daemon(leaving))
        second.close()
        await leaving.hung_up(second)
        draining = group.create_task(leaving.app.drain())
        began = time.monotonic()
        outcomes = await offered_until(address, "taken")
        # In this process checks are late: mediad, Asterisk and the agent are all on one loop.
        assert set(outcomes) == {"0x00"}
        assert time.monotonic() - began < 3
        for _ in range(5):
            assert await offered(address) == "taken"
        assert leaving.app.calls.live == 1
        # The other one leaves, too: HAProxy has nobody and closes, which is no hang-up of a caller.
        last = group.create_task(other.app.drain())
        assert set(await offered_until(address, "closed")) <= {"0x00"}
        assert await offered(address) == "closed"
        await first.hears(5)
        draining.cancel()
        last.cancel()


def of_daemon(daemon: Daemon) -> set[str]:
    """Return the ids of the calls that a mediad has had."""
    return {event.call_id for event in daemon.events("call_created")}


# The API over HTTPS


class Front:
    """HAProxy with HTTPS before a mediad."""

    def __init__(self, daemon: Daemon, port: int, authority: Authority) -> None:
        self.daemon = daemon
        self.port = port
        self.tls = ssl.create_default_context(cafile=str(authority.certificate))
        directory = daemon.app.settings.database.state_directory
        self.root = (directory / "access_key").read_text().strip()

    async def ask(
        self, path: str, key: str = "", source: str = CUSTOMER, **headers: str
    ) -> httpx.Response:
        """GET from an address of the machine, by way of HAProxy."""
        url = f"https://127.0.0.1:{self.port}{path}"
        return await self._get(url, source, {"AccessKey": key, **headers})

    async def ask_mediad(
        self, path: str, key: str = "", source: str = CUSTOMER, **headers: str
    ) -> httpx.Response:
        """The same round HAProxy."""
        url = "http://{}:{}".format(*self.daemon.app.http_address) + path
        return await self._get(url, source, {"AccessKey": key, **headers})

    async def _get(self, url: str, source: str, headers: dict[str, str]) -> httpx.Response:
        names = {name.replace("_", "-"): value for name, value in headers.items() if value}
        transport = httpx.AsyncHTTPTransport(verify=self.tls, local_address=source)
        async with httpx.AsyncClient(transport=transport) as client:
            return await client.get(url, headers=names)

    async def bound_key(self) -> str:
        """Make a key for one address."""
        url = "http://{}:{}/v1/accesskeys".format(*self.daemon.app.http_address)
        async with httpx.AsyncClient() as client:
            body = {"role": "viewer", "allowed_ips": [CUSTOMER]}
            made = await client.post(url, json=body, headers={"AccessKey": self.root})
        return str(made.json()["key"])


@asynccontextmanager
async def https(
    haproxy: Program, tmp_path: Path, *, trusted: tuple[str, ...] = ("127.0.0.1/32",)
) -> AsyncIterator[Front]:
    """Run a mediad behind HTTPS."""
    authority = Authority(tmp_path / "authority")
    certificate, key = authority.issue()
    pem = tmp_path / "mediad.pem"
    pem.write_bytes(certificate.read_bytes() + key.read_bytes())
    wanted = settings("ws://127.0.0.1:9")
    http = wanted.http.model_validate({"port": 0, "trusted_proxies": trusted})
    async with running(wanted.model_copy(update={"http": http})) as daemon:
        front = Front(daemon, free_port(), authority)
        text = HTTPS.read_text(encoding="utf-8")
        for old, new in (
            ("bind :80\n", f"bind 127.0.0.1:{free_port()}\n"),
            ("bind :443", f"bind 127.0.0.1:{front.port}"),
            ("/etc/haproxy/mediad.pem", str(pem)),
            ("127.0.0.1:8080", "{}:{}".format(*daemon.app.http_address)),
        ):
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        config = tmp_path / "https.cfg"
        config.write_text(text, encoding="utf-8")
        async with haproxy_with(haproxy, config, front.port):
            yield front


async def test_key_that_is_bound_to_an_address_works_from_there_alone(
    haproxy: Program, tmp_path: Path
) -> None:
    async with https(haproxy, tmp_path) as front:
        key = await front.bound_key()
        forged = {"X_Forwarded_For": CUSTOMER}
        answers = {
            "there": await front.ask("/v1/me", key),
            "elsewhere": await front.ask("/v1/me", key, STRANGER),
            "elsewhere, forged": await front.ask("/v1/me", key, STRANGER, **forged),
            "there, round the proxy": await front.ask_mediad("/v1/me", key),
            "elsewhere, round it and forged": await front.ask_mediad(
                "/v1/me", key, STRANGER, **forged
            ),
        }
        statuses = {where: answer.status_code for where, answer in answers.items()}
        assert statuses == {
            "there": 200,
            "elsewhere": 403,
            "elsewhere, forged": 403,
            "there, round the proxy": 200,
            "elsewhere, round it and forged": 403,
        }


async def test_proxy_that_is_not_trusted_is_the_client(haproxy: Program, tmp_path: Path) -> None:
    async with https(haproxy, tmp_path, trusted=()) as front:
        key = await front.bound_key()
        assert (await front.ask("/v1/me", key)).status_code == 403
        assert (await front.ask_mediad("/v1/me", key)).status_code == 200


async def test_wrong_keys_of_one_client_do_not_lock_out_another(
    haproxy: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "now_s", lambda: 60.0)  # all within one minute
    async with https(haproxy, tmp_path) as front:
        for _ in range(20):
            assert (await front.ask("/v1/me", "mk_wrong", STRANGER)).status_code == 401
        forged = {"X_Forwarded_For": "192.0.2.1"}
        assert (await front.ask("/v1/me", "mk_wrong", STRANGER, **forged)).status_code == 429
        assert (await front.ask("/v1/me", "mk_wrong")).status_code == 401
        assert (await front.ask("/v1/me", front.root)).status_code == 200


async def test_only_the_api_is_reached_over_https(haproxy: Program, tmp_path: Path) -> None:
    async with https(haproxy, tmp_path) as front:
        for path in ("/metrics", "/healthz", "/readyz", "/", "/v1", "//metrics", "/%6detrics"):
            assert (await front.ask(path, front.root)).status_code == 404, path
        assert (await front.ask("/v1/../metrics", front.root)).status_code == 404
        assert (await front.ask("/openapi.json")).json()["info"]["title"] == "mediad"
        answer = await front.ask("/v1/agents/", front.root)  # one / too many
        assert answer.headers["location"] == f"https://127.0.0.1:{front.port}/v1/agents"
        assert answer.headers["strict-transport-security"]
        (plain,) = re.findall(r"bind \S+:(\d+)$", (tmp_path / "https.cfg").read_text(), re.M)
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"http://127.0.0.1:{plain}/v1/me")
        assert answer.status_code == 308
        assert answer.headers["location"].startswith("https://127.0.0.1")


async def test_events_come_over_wss(haproxy: Program, tmp_path: Path) -> None:
    async with https(haproxy, tmp_path) as front:
        headers = {"AccessKey": await front.bound_key()}
        url = f"wss://127.0.0.1:{front.port}/v1/ws"
        here = (CUSTOMER, 0)
        async with connect(
            url, ssl=front.tls, additional_headers=headers, local_addr=here, proxy=None
        ) as events:
            topic = "customer_id:default:call:*"
            await events.send(json.dumps({"type": "subscribe", "topics": [topic]}))
            assert json.loads(await events.recv())["type"] == "subscribed"
            async with front.daemon.call() as call, asyncio.timeout(10):
                told = json.loads(await events.recv())
                assert (told["event"], told["data"]["id"]) == ("call_created", str(call.call_id))


def test_both_examples_can_share_one_haproxy(haproxy: Program, tmp_path: Path) -> None:
    certificate, key = Authority(tmp_path / "authority").issue()
    pem = tmp_path / "mediad.pem"
    pem.write_bytes(certificate.read_bytes() + key.read_bytes())
    config = tmp_path / "https.cfg"
    text = HTTPS.read_text(encoding="utf-8").replace("/etc/haproxy/mediad.pem", str(pem))
    config.write_text(text, encoding="utf-8")
    command = [str(haproxy.path), "-c", "-f", str(CONFIG), "-f", str(config)]
    subprocess.run(command, env=haproxy.environment, check=True, timeout=30)
