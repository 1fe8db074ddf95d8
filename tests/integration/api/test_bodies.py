"""Bodies that come slowly, break off or are too large, over real sockets."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from mediad.api import bodies
from tests.integration.api.calls_client import Telephony, open_telephony
from tests.integration.daemon import settings

RUNNING = 2


@pytest.fixture
async def telephony() -> AsyncIterator[Telephony]:
    """A mediad that does little at once."""
    made = settings("ws://127.0.0.1:9")
    http = made.http.model_copy(update={"max_running": RUNNING})
    async with open_telephony(made.model_copy(update={"http": http})) as telephony:
        yield telephony


@asynccontextmanager
async def begun(
    telephony: Telephony, path: str, start: bytes, key: str = "", length: int | None = None
) -> AsyncIterator[asyncio.StreamReader]:
    """Post the beginning of a body; go away at the end of the block."""
    reader, writer = await asyncio.open_connection(*telephony.daemon.app.http_address)
    how = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    head = f"POST {path} HTTP/1.1\r\nHost: mediad\r\nAccessKey: {key}\r\n{how}\r\n"
    head += "Content-Type: application/json\r\n\r\n"
    sent = b"%x\r\n%s\r\n" % (len(start), start) if length is None else start
    writer.write(head.encode() + sent)
    await writer.drain()
    try:
        yield reader
    finally:
        writer.close()
        await writer.wait_closed()


async def test_slow_bodies_are_in_nobodys_way(telephony: Telephony) -> None:
    key = telephony.ours.key
    async with begun(telephony, "/v1/flows", b"{", key, length=100):
        async with begun(telephony, "/v1/calls/x/play", b"R", key, length=100):
            async with begun(telephony, "/v1/agents", b"{", key):
                async with asyncio.timeout(5):
                    assert (await telephony.ours.get("/v1/me"))[0] == 200


@pytest.mark.parametrize("length", [None, 1000])
async def test_what_breaks_off_is_not_done(telephony: Telephony, length: int | None) -> None:
    key = await telephony.ours.new_key("admin")
    for _ in range(3):
        flow = b'{"name": "half", "actions": []}'
        async with begun(telephony, "/v1/flows", flow, key, length):
            assert (await telephony.ours.get("/v1/me"))[0] == 200  # it has come by now
    await telephony.ours.make("flows", name="whole", actions=[])
    flows = (await telephony.ours.get("/v1/flows"))[1]["result"]
    assert [flow["name"] for flow in flows] == ["whole"]


@pytest.mark.parametrize(
    ("path", "status", "header"),
    [
        ("/v1/flows", b" 408 ", b'"reason":"slow_body"'),
        ("/v1/dialplan/calls", b" 200 ", b"x-mediad-reason: slow_body"),
    ],
)
async def test_slow_bodies_are_given_up(
    telephony: Telephony, monkeypatch: pytest.MonkeyPatch, path: str, status: bytes, header: bytes
) -> None:
    monkeypatch.setattr(bodies, "MAX_BODY_S", 0.3)
    key = telephony.ours.key
    async with begun(telephony, path, b"x", key, length=100) as reader, asyncio.timeout(5):
        answer = await reader.read()
    assert status in answer.partition(b"\r\n")[0]
    assert header in answer


@pytest.mark.parametrize("path", ["/v1/flows", "/v1/calls/x/play"])
async def test_without_a_good_key_nothing_of_a_body_is_waited_for(
    telephony: Telephony, path: str
) -> None:
    for key in ("", "mk_wrong"):
        async with begun(telephony, path, b"{", key, length=100) as reader, asyncio.timeout(5):
            assert b" 401 " in await reader.readline()


async def test_without_a_good_key_nothing_of_a_body_is_said(telephony: Telephony) -> None:
    for body in (b"{", b"[[],[]]", bytes(4 << 20)):
        answer = await telephony.nobody.http.post("/v1/flows", content=body)
        assert (answer.status_code, answer.json()["error"]["reason"]) == (401, "unauthorized")
    form = await telephony.nobody.dialplan("POST", "/calls", bytes(4 << 20))
    assert (form[0], form[1]["x-mediad-reason"], form[2]) == (200, "unauthorized", "")


async def test_nobody_holds_bodies_in_the_place_of_others(
    telephony: Telephony, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "MAX_HELD_BYTES", 100)
    ours = telephony.ours
    await ours.add_number("+4930111", None)
    async with begun(telephony, "/v1/flows", bytes(90), length=1000):
        async with begun(telephony, "/healthz", bytes(90), length=1000):
            for _ in range(3):
                assert (await ours.get("/v1/me"))[0] == 200  # it has come by now
            status, _, call_id = await ours.dialplan("POST", "/calls", b"to=%2B4930111")
    assert (status, len(call_id)) == (200, 36)


async def test_nobody_sends_more_than_is_read(telephony: Telephony) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(48):
            yield bytes(1 << 16)

    key = {"AccessKey": telephony.ours.key}

    for method, path, status in (
        ("PATCH", "/v1/agents/play", 413),
        ("POST", "/v1/calls/x/play", 413),
        ("POST", "/v1/dialplan/calls", 200),
    ):
        answer = await telephony.ours.http.request(method, path, content=endless(), headers=key)
        assert answer.status_code == status, path
    assert (answer.text, answer.headers["x-mediad-reason"]) == ("", "too_large")
    sound, _ = await telephony.ours.post_raw("/v1/calls/x/play", bytes(2 << 20), "audio/wav")
    assert sound == 404


async def test_dialplans_get_200_and_a_reason_whatever_is_wrong(telephony: Telephony) -> None:
    key = {"AccessKey": telephony.ours.key}
    for method, path, headers, reason in (
        ("PUT", "/v1/dialplan/calls", key, "method_not_allowed"),
        ("GET", "/v1/dialplan/nothing", key, "not_found"),
        ("GET", "/v1/dialplan/nothing", {}, "unauthorized"),
        ("GET", "/v1/dialplan/calls/x/next", {"x": "x" * 40_000}, "long_headers"),
    ):
        answer = await telephony.nobody.http.request(method, path, headers=headers)
        assert (answer.status_code, answer.text) == (200, ""), path
        assert answer.headers["content-type"].startswith("text/plain")
        assert answer.headers["x-mediad-reason"] == reason
