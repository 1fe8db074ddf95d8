"""Callers of a soak: calls of random length and codec, with words and digits; some break."""

import asyncio
import contextlib
import random
import time
from typing import NamedTuple
from uuid import UUID

from mediad.caller import CODECS, PTIMES_MS, CallEnded, Caller
from tests.sound import tone

__all__ = ["Made", "make_calls"]

_WORDS = tone(300, 1.0, 8000)
_SHORTEST_S = 0.2


class Made(NamedTuple):
    """A call that is over, as its caller knows it."""

    call_id: str
    is_whole: bool
    """The caller hung up after all it sent: mediad must have had all of it."""
    is_broken: bool
    """It sent what is no AudioSocket."""
    messages: int
    """Audio messages sent."""
    digits: int
    heard: int
    """Messages heard."""
    longest_gap_s: float
    """Between two messages heard, in seconds."""
    ended: str
    """By whom, and how."""


async def make_calls(
    address: tuple[str, int],
    rng: random.Random,
    longest_s: float,
    until: float,
    made: list[Made],
) -> None:
    """Make one call after the other until then, in monotonic seconds."""
    while time.monotonic() < until:
        await asyncio.sleep(rng.uniform(0, 0.3))
        made.append(await _make_call(address, random.Random(rng.random()), longest_s))


async def _make_call(address: tuple[str, int], rng: random.Random, longest_s: float) -> Made:
    caller = Caller(
        *address,
        call_id=UUID(int=rng.getrandbits(128)),
        codec=rng.choice(list(CODECS)),
        ptime_ms=rng.choice(PTIMES_MS),
        connect_timeout_s=30.0,  # the kernel answers for mediad; this process may stand still
    )
    async with caller:
        with contextlib.suppress(CallEnded):
            await _talk(caller, rng, rng.uniform(_SHORTEST_S, longest_s))
        is_broken = rng.random() < 0.1 and caller.end is None
        if is_broken:
            caller.send_raw(rng.choice((b"\x07", b"\x10\xff\xff", b"\xff\x00\x01\x01")))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await caller.ended()
        caller.hang_up()
        end = await caller.ended()
    return Made(
        str(caller.call_id),
        end.by == "caller" and not is_broken,
        is_broken,
        len(caller.sent.times),
        len(caller.digits_sent),
        len(caller.heard.times),
        max(caller.heard.gaps_s(), default=0.0),
        f"{end.by}: {end.how}",
    )


async def _talk(caller: Caller, rng: random.Random, seconds: float) -> None:
    ends_at = time.monotonic() + seconds
    while (left_s := ends_at - time.monotonic()) > 0 and caller.end is None:
        roll = rng.random()
        if roll < 0.4:
            caller.say(_WORDS[: 2 * rng.randrange(800, 8000)], 8000)
        elif roll < 0.6:
            caller.press(rng.choice("0123456789*#"))
        elif roll < 0.7:
            caller.stop_sending()
        await asyncio.sleep(min(left_s, rng.uniform(0.1, 1.0)))
        caller.start_sending()
