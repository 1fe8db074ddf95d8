"""How many connections webhooks take, which other parts may need."""

import asyncio

import pytest

from mediad import config
from mediad.webhooks import sender as sender_module
from mediad.webhooks.sender import Outcome, Sender
from tests.integration.daemon import eventually
from tests.integration.webhooks.receiver import Receiver


async def post(receiver: Receiver, number: int, timeout_s: float) -> tuple[Sender, list[Outcome]]:
    """Send so many requests at once; return who sent them, too."""
    sender = Sender(config.Webhooks(timeout_s=timeout_s, allow_private=True))
    requests = (sender.post("default", receiver.url, {}, b"{}") for _ in range(number))
    return sender, await asyncio.gather(*requests)


async def test_requests_beyond_the_limit_wait_and_have_all_of_their_time_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sender_module, "MAX_REQUESTS", 2)
    async with Receiver() as receiver:
        receiver.delay_s = 0.5
        sender, outcomes = await post(receiver, 8, timeout_s=1.5)  # the last ones wait for as long
        await sender.close()
        assert receiver.most_at_once == {"/": 2}
    assert all(outcome.is_delivered for outcome in outcomes)
    assert max(outcome.duration_s for outcome in outcomes) < 1.5


async def test_few_connections_are_kept_for_the_next_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sender_module, "MAX_KEPT", 3)
    async with Receiver() as receiver:
        receiver.delay_s = 0.2
        sender, outcomes = await post(receiver, 10, timeout_s=10.0)
        assert receiver.most_at_once == {"/": 10}
        await eventually(lambda: receiver.connections == 3)
        await sender.close()
    assert all(outcome.is_delivered for outcome in outcomes)
