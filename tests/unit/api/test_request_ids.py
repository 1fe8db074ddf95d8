"""What a request is called."""

import time

import pytest
from starlette.types import Message, Receive, Scope, Send

from mediad.api.request_ids import Begun, RequestIds


async def ask(*headers: tuple[bytes, bytes]) -> tuple[str, Begun]:
    """Ask an application that answers; return the answer's id and what the application saw."""
    scope: Scope = {"type": "http", "path": "/", "headers": list(headers)}
    sent: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def receive() -> Message:
        raise AssertionError("nothing is read")

    async def send(message: Message) -> None:
        sent.append(message)

    await RequestIds(app)(scope, receive, send)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    return dict(sent[0]["headers"])[b"x-request-id"].decode(), scope["state"]["begun"]


async def test_a_request_gets_an_id_of_its_own() -> None:
    now = time.monotonic()
    (first, begun), (second, _) = await ask(), await ask()
    assert len(first) == 36
    assert first != second
    assert begun.request_id == first
    assert now <= begun.at <= time.monotonic()


async def test_a_clients_id_is_kept() -> None:
    id, begun = await ask((b"x-request-id", b"shop/4711"))
    assert (id, begun.request_id) == ("shop/4711", "shop/4711")


@pytest.mark.parametrize("given", [b"", b"two words", b"x" * 65, "Zoë".encode("latin-1"), b"a\tb"])
async def test_an_id_that_is_long_or_not_plain_is_replaced(given: bytes) -> None:
    id, _ = await ask((b"x-request-id", given))
    assert len(id) == 36
