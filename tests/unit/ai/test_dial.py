"""Which of a peer's addresses is tried next, and after how long a pause."""

import asyncio
import time

import pytest

from mediad.ai.dial import Addresses


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Take the pauses down instead of making them."""
    taken: list[float] = []

    async def sleep(delay: float) -> None:
        taken.append(round(delay, 1))

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return taken


async def test_each_round_tries_all_and_the_pauses_between_them_grow(pauses: list[float]) -> None:
    addresses = Addresses(("a", "b"))
    tried = []
    for _ in range(12):
        assert await addresses.pause(time.monotonic() + 60) > 50
        tried.append(addresses.url)
        addresses.skip()
    assert tried == ["a", "b"] * 6
    assert pauses == [0.2, 0.5, 1.0, 2.0, 2.0]


async def test_what_refuses_is_not_tried_again(pauses: list[float]) -> None:
    addresses = Addresses(("a", "b", "c"))
    await addresses.pause(time.monotonic() + 60)
    addresses.skip()
    await addresses.pause(time.monotonic() + 60)
    addresses.reject()
    assert addresses.url == "c"
    await addresses.pause(time.monotonic() + 60)
    addresses.reject()
    assert (addresses.url, pauses) == ("a", [])
    addresses.reject()
    assert addresses.url is None


@pytest.mark.parametrize(("at_once", "expected"), [(False, [0.2]), (True, [])])
async def test_what_was_good_is_tried_again_soon_or_at_once(
    at_once: bool, expected: list[float], pauses: list[float]
) -> None:
    addresses = Addresses(("a",))
    await addresses.pause(time.monotonic() + 60)
    addresses.renew(at_once=at_once)
    await addresses.pause(time.monotonic() + 60)
    assert pauses == expected


async def test_no_pause_goes_beyond_the_deadline(pauses: list[float]) -> None:
    addresses = Addresses(("a",))
    await addresses.pause(time.monotonic() + 60)
    assert await addresses.pause(time.monotonic() - 1) < 0
    assert pauses == [0.0]
