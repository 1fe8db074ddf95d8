"""Whom a proxy asks for: believed of those that are trusted, and of nobody else."""

from collections.abc import Sequence
from ipaddress import ip_network
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from mediad.api.forwarded import Forwarded

NEAR, FAR = "10.0.0.1", "10.0.0.2"  # two proxies, one behind the other
CLIENT, OTHER = "192.0.2.1", "192.0.2.2"
TRUSTED = (ip_network("10.0.0.0/24"), ip_network("2001:db8:1::/64"))


async def seen_by_the_app(
    peer: str | None,
    headers: Sequence[tuple[str, str]] = (),
    *,
    type_: str = "http",
    scheme: str = "http",
    trusted: tuple[Any, ...] = TRUSTED,
) -> tuple[str | None, str]:
    """Return the address and the scheme that an application sees behind it."""
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)

    async def receive() -> Message:
        raise AssertionError("nobody reads")

    async def send(message: Message) -> None:
        raise AssertionError("nobody answers")

    scope: Scope = {
        "type": type_,
        "scheme": scheme,
        "client": None if peer is None else (peer, 4711),
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers],
    }
    before = dict(scope)
    await Forwarded(app, trusted)(scope, receive, send)
    assert scope == before  # it is the server's
    (found,) = seen
    return (found["client"][0] if found["client"] else None, found["scheme"])


def forwarded_for(*values: str) -> list[tuple[str, str]]:
    return [("X-Forwarded-For", value) for value in values]


@pytest.mark.parametrize(
    ("peer", "told", "client"),
    [
        (NEAR, [CLIENT], CLIENT),
        (NEAR, [f"{CLIENT}, {FAR}"], CLIENT),
        (NEAR, [CLIENT, FAR], CLIENT),  # each proxy with a line of its own
        (NEAR, [f"{OTHER}, {CLIENT}"], CLIENT),  # the client has written the first one itself
        (NEAR, [OTHER, CLIENT], CLIENT),
        (NEAR, [f"nonsense,{CLIENT}"], CLIENT),
        (NEAR, [f"{FAR},{CLIENT},{FAR}"], CLIENT),
        (NEAR, [], NEAR),  # the proxy asks for itself
        (NEAR, [FAR], FAR),
        (f"::ffff:{NEAR}", [f"::ffff:{CLIENT}"], CLIENT),
        ("2001:db8:1::1", ["2001:db8:2::1"], "2001:db8:2::1"),
    ],
)
async def test_trusted_proxies_are_believed(peer: str, told: list[str], client: str) -> None:
    address, _ = await seen_by_the_app(peer, forwarded_for(*told))
    assert address == client


@pytest.mark.parametrize("told", ["", "unknown", f"{CLIENT}:80", f"{CLIENT},", "1.2.3", "é"])
async def test_client_that_cannot_be_read_has_no_address(told: str) -> None:
    address, _ = await seen_by_the_app(NEAR, forwarded_for(told))
    assert address is None


@pytest.mark.parametrize("trusted", [TRUSTED, ()])
async def test_nobody_else_is_believed(trusted: tuple[Any, ...]) -> None:
    headers = [*forwarded_for(OTHER), ("X-Forwarded-Proto", "https")]
    assert await seen_by_the_app(CLIENT, headers, trusted=trusted) == (CLIENT, "http")


async def test_peer_without_an_address_is_nobody() -> None:
    assert await seen_by_the_app(None, forwarded_for(OTHER)) == (None, "http")


@pytest.mark.parametrize(
    ("type_", "scheme", "told", "seen"),
    [
        ("http", "http", "https", "https"),
        ("http", "http", "http", "http"),
        ("websocket", "ws", "https", "wss"),
        ("http", "http", "javascript", "http"),
        ("http", "http", "", "http"),
    ],
)
async def test_scheme_is_that_of_the_client(type_: str, scheme: str, told: str, seen: str) -> None:
    headers = [*forwarded_for(CLIENT), ("X-Forwarded-Proto", told)]
    assert await seen_by_the_app(NEAR, headers, type_=type_, scheme=scheme) == (CLIENT, seen)
