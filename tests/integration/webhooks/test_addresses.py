"""Webhooks go nowhere that only this machine reaches, however the address is written."""

import socket
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from mediad import config
from mediad.webhooks import sender as sender_module
from mediad.webhooks.sender import Outcome, Sender
from tests.integration.certificates import Authority, Pair
from tests.integration.webhooks.receiver import Receiver


async def post(url: str, **settings: Any) -> Outcome:
    sender = Sender(config.Webhooks.model_validate({"timeout_s": 1.0} | settings))
    try:
        return await sender.post("default", url, {}, b"{}")
    finally:
        await sender.close()


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "2130706433",  # 127.0.0.1 as one number
        "0x7f.1",
        "0.0.0.0",
        "10.0.0.1",
        "192.168.0.1",
        "169.254.169.254",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[fe80::1]",
        "[fd00::1]",
    ],
)
async def test_private_addresses_are_refused(host: str) -> None:
    async with Receiver() as receiver:
        port = receiver.url.rpartition(":")[2]
        outcome = await post(f"http://{host}:{port}/")
        assert not receiver.requests
    assert outcome.status is None
    assert outcome.error
    assert not outcome.is_delivered


async def test_a_name_that_leads_to_this_machine_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []
    look_up = socket.getaddrinfo

    def getaddrinfo(host: str, *args: Any, **options: Any) -> Any:
        asked.append(host)
        return look_up("127.0.0.1", *args, **options)

    async with Receiver() as receiver:
        port = receiver.url.rpartition(":")[2]
        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        outcome = await post(f"http://webhooks.example.com:{port}/")
        assert "127.0.0.1 is not a public address" in (outcome.error or "")
        assert not receiver.requests
        outcome = await post(f"http://webhooks.example.com:{port}/", allow_private=True)
        assert outcome.status == 200
    assert asked[0] == "webhooks.example.com"


async def test_an_address_is_judged_when_it_is_connected_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # However often a name was resolved before, and to what: here nothing before is private.
    seen = []

    def judge(host: str, allow: object) -> bool:
        seen.append(host)
        return False

    monkeypatch.setattr(sender_module, "is_allowed", judge)
    outcome = await post("http://127.0.0.1:9/", allow_private=True)
    assert seen == ["127.0.0.1"]
    assert outcome.error


async def test_allowed_networks_only() -> None:
    async with Receiver() as receiver:
        assert (await post(receiver.url, allow_private=["127.0.0.0/8"])).status == 200
        assert (await post(receiver.url, allow_private=["10.0.0.0/8"])).status is None


async def test_a_redirect_is_an_answer_like_any_other() -> None:
    async with Receiver() as receiver:
        receiver.answer = lambda _: 307
        outcome = await post(receiver.url, allow_private=True)
        assert outcome.status == 307
        assert len(receiver.requests) == 1


@pytest.mark.parametrize(
    "url", ["http://a.invalid/", "http://xn--/", "http://127.0.0.1:1/", "http://[::1"]
)
async def test_whatever_goes_wrong_is_an_outcome(url: str) -> None:
    outcome = await post(url, allow_private=True)
    assert outcome.status is None
    assert outcome.error


async def post_tls(pair: Pair) -> Outcome:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=204)

    app = web.Application()
    app.router.add_post("/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=pair.server()).start()
    try:
        return await post(f"https://127.0.0.1:{runner.addresses[0][1]}/", allow_private=True)
    finally:
        await runner.cleanup()


async def test_https_wants_a_certificate_of_this_name_that_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path / "ca")
    assert (await post_tls(authority.issue())).status is None
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    assert (await post_tls(authority.issue())).status == 204
    other = await post_tls(authority.issue("DNS:other.example.com"))
    assert other.status is None
    assert "match" in (other.error or "") or "valid for" in (other.error or "")
