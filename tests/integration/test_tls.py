"""``wss://`` to the agent: what is trusted, what is refused, and that each refusal says why."""

import asyncio
import logging
import ssl
import subprocess
from pathlib import Path
from typing import Self
from uuid import uuid4

import pytest

from mediad.ai.tls import client_tls
from mediad.bus.commands import Expect
from mediad.config import Ai
from mediad.errors import ConfigError
from tests.fakes.agent import AgentConnection, FakeAgent, RawConnection, raw_agent
from tests.integration.certificates import Authority, Pair
from tests.integration.daemon import eventually, running, settings
from tests.sound import tone

CONNECTS = "mediad_agent_connects_total"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    """The one that mediad trusts."""
    return Authority(folder / "ours")


@pytest.fixture(scope="module")
def stranger(folder: Path) -> Authority:
    """One that it does not."""
    return Authority(folder / "strange")


@pytest.fixture(scope="module")
def client(authority: Authority) -> Pair:
    """What mediad shows."""
    return authority.issue("DNS:mediad")


class Agent(FakeAgent):
    """A fake agent that knows its address when it has ended, too."""

    host_and_port = ""

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self.host_and_port = self.url.partition("//")[2]
        return self


async def is_heard(agent: FakeAgent, ai: dict[str, object]) -> bool:
    """Tell whether the agent's words come through a mediad with these settings."""
    words = tone(440, 0.2, 8000)

    async def script(connection: AgentConnection) -> None:
        await connection.say(words, 8000)

    agent.script = script
    async with agent, running(settings(agent.url, ai=ai)) as daemon, daemon.call() as call:
        await call.hears_words()
        await call.hears(15)
        return call.words == words


async def refusal(
    agent: Agent, ai: dict[str, object], outcome: str, caplog: pytest.LogCaptureFixture
) -> str:
    """Let a call fail for this cause and no other; return what the log says of it."""
    async with agent, running(settings(agent.url, ai=ai)) as daemon, daemon.call() as call:
        await daemon.metric_reaches(1, CONNECTS, outcome=outcome)
        call.close()
        await daemon.hung_up(call)
        assert await daemon.metric(CONNECTS) == await daemon.metric(CONNECTS, outcome=outcome)
    assert agent.connections == []
    lines = [record for record in caplog.records if record.name == "mediad.ai.connect"]
    assert {record.levelno for record in lines} == {logging.WARNING}
    (line,) = {record.getMessage() for record in lines}
    assert agent.host_and_port in line
    return line


# What is trusted


async def test_agent_with_a_certificate_of_our_authority_is_trusted(authority: Authority) -> None:
    agent = Agent(tls=authority.issue().server())
    assert await is_heard(agent, {"ca_file": authority.certificate})


async def test_agent_that_asks_for_a_certificate_gets_ours(
    authority: Authority, client: Pair
) -> None:
    agent = Agent(tls=authority.issue().server(asks_for=authority.certificate))
    assert await is_heard(
        agent,
        {
            "ca_file": authority.certificate,
            "client_cert": client.certificate,
            "client_key": client.key,
        },
    )


@pytest.mark.parametrize("whose", ["ours", "a customer's"])
async def test_only_our_own_agents_get_our_certificate(
    whose: str, authority: Authority, client: Pair
) -> None:
    shown: list[bool] = []

    async def script(connection: AgentConnection) -> None:
        tls = connection.ws.transport.get_extra_info("ssl_object")
        shown.append(bool(tls.getpeercert()))

    server = authority.issue().server(asks_for=authority.certificate)
    server.verify_mode = ssl.CERT_OPTIONAL
    ai = {
        "ca_file": authority.certificate,
        "client_cert": client.certificate,
        "client_key": client.key,
    }
    async with FakeAgent(script, tls=server) as agent:
        ours = agent.url if whose == "ours" else "ws://127.0.0.1:9"
        async with running(settings(ours, ai=ai)) as daemon:
            call_id = uuid4()
            config = {} if whose == "ours" else {"url": [agent.url]}
            await daemon.app.commands.send(str(call_id), Expect("default", agent_config=config))
            async with daemon.call(call_id) as call:
                await daemon.event("agent_connected", call)
                await eventually(lambda: shown != [])
    assert shown == [whose == "ours"]


# What is refused


@pytest.mark.parametrize(
    ("name", "until", "outcome", "words"),
    [
        ("DNS:other.example", "20991231000000Z", "tls_host_name", "certificate is not valid for"),
        ("IP:127.0.0.2", "20991231000000Z", "tls_host_name", "certificate is not valid for"),
        ("IP:127.0.0.1", "20210101000000Z", "tls_expired", "certificate has expired"),
    ],
)
async def test_certificate_that_is_not_good_is_refused(
    name: str,
    until: str,
    outcome: str,
    words: str,
    authority: Authority,
    caplog: pytest.LogCaptureFixture,
) -> None:
    agent = Agent(tls=authority.issue(name, until).server())
    line = await refusal(agent, {"ca_file": authority.certificate}, outcome, caplog)
    assert "its certificate is refused" in line
    assert words in line or "mismatch" in line


async def test_unknown_authority_is_refused(
    authority: Authority, stranger: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    agent = Agent(tls=stranger.issue().server())
    ai: dict[str, object] = {"ca_file": authority.certificate}
    line = await refusal(agent, ai, "tls_unknown_ca", caplog)
    assert "issuer certificate" in line


async def test_own_authority_is_not_trusted_without_its_file(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    agent = Agent(tls=authority.issue().server())
    await refusal(agent, {}, "tls_unknown_ca", caplog)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_agent_that_wants_a_certificate_we_do_not_have_is_unavailable(
    version: ssl.TLSVersion, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    tls = authority.issue().server(asks_for=authority.certificate)
    tls.minimum_version = tls.maximum_version = version
    ai: dict[str, object] = {"ca_file": authority.certificate}
    line = await refusal(Agent(tls=tls), ai, "closed", caplog)
    assert "ai.client_cert" in line


async def test_agent_without_tls_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"wss://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with running(settings(url)) as daemon, daemon.call():
        await daemon.metric_reaches(1, CONNECTS, outcome="tls_handshake")
    server.close()
    assert any("TLS failed" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(
    ("status", "outcome"), [(401, "401"), (403, "403"), (404, "404"), (500, "500")]
)
async def test_status_is_the_cause(
    status: int, outcome: str, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    agent = Agent(tls=authority.issue().server(), statuses=[status] * 9)
    line = await refusal(agent, {"ca_file": authority.certificate}, outcome, caplog)
    assert f"it answers {status}" in line


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_to_another_host_is_refused(
    status: int, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    tls = authority.issue().server()
    async with FakeAgent(tls=tls) as target:
        agent = Agent(tls=tls, statuses=[status] * 9, location=target.url)
        line = await refusal(agent, {"ca_file": authority.certificate}, "redirect", caplog)
        assert target.handshakes == []
    assert "redirects are not followed" in line


async def test_words_of_an_agent_that_repeats_our_key_are_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    key = "Bearer very-secret"
    answers = iter(
        [
            b"HTTP/1.1 %s\r\n\r\n",
            b"%s\r\n\r\n",
            b"HTTP/1.1 401 %s\r\n\r\n%s",
            b"HTTP/1.1 302 Found\r\nLocation: ws://other/?%s\r\n\r\n",
            b"HTTP/1.1 101 Yes\r\nUpgrade: %s\r\n\r\n",
            b"HTTP/1.1 101 Yes\r\n%s\r\n\r\n",
        ]
    )

    async def script(raw: RawConnection) -> None:
        raw.writer.write(next(answers, b"").replace(b"%s", key.encode()))  # it may try again
        await raw.writer.drain()

    caplog.set_level(logging.DEBUG, "mediad")
    async with raw_agent(script) as url:
        urls = tuple(f"{url}/{number}?key={key.split()[1]}" for number in range(6))
        ai = {"headers": {"Authorization": key}, "connect_timeout_s": 5}
        async with running(settings(urls, ai=ai)) as daemon, daemon.call() as call:
            await daemon.metric_reaches(1, CONNECTS, outcome="401")
            await daemon.metric_reaches(1, CONNECTS, outcome="redirect")
            await daemon.metric_reaches(4, CONNECTS, outcome="bad_handshake")
            call.close()
    ours = [r.getMessage() for r in caplog.records if r.name.startswith("mediad.ai")]
    assert len(ours) >= 6
    assert not [line for line in ours if "very-secret" in line]


# Settings that cannot be


def test_authority_file_without_certificates_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    with pytest.raises(ConfigError, match=r"\[ai\] ca_file"):
        client_tls(Ai(ca_file=tmp_path / "ca.pem"))


def test_key_of_another_certificate_is_a_config_error(authority: Authority, client: Pair) -> None:
    other = authority.issue("DNS:another")
    with pytest.raises(ConfigError, match=r"\[ai\] client_cert: .* cannot be used"):
        client_tls(Ai(client_cert=client.certificate, client_key=other.key))


def test_certificate_and_key_may_share_a_file(client: Pair, tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(client.certificate.read_bytes() + client.key.read_bytes())
    assert client_tls(Ai(client_cert=both)).ours.verify_mode == ssl.CERT_REQUIRED


def test_certificate_without_a_key_is_a_config_error(client: Pair) -> None:
    with pytest.raises(ConfigError, match=r"\[ai\] client_cert"):
        client_tls(Ai(client_cert=client.certificate))


def test_key_with_a_password_is_an_error_and_asks_nobody(client: Pair, tmp_path: Path) -> None:
    locked = tmp_path / "locked.key"
    command = ("openssl", "pkcs8", "-topk8", "-in", client.key, "-out", locked)
    subprocess.run((*command, "-passout", "pass:x"), check=True, capture_output=True)
    with pytest.raises(ConfigError, match="without a password"):
        client_tls(Ai(client_cert=client.certificate, client_key=locked))


def test_contexts_check_certificate_and_host_name(authority: Authority, client: Pair) -> None:
    ai = Ai(ca_file=authority.certificate, client_cert=client.certificate, client_key=client.key)
    for context in (*client_tls(Ai(ca_file=authority.certificate)), *client_tls(ai)):
        assert context.check_hostname
        assert context.verify_mode == ssl.CERT_REQUIRED
        assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
