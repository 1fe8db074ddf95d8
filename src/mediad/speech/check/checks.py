"""What a service must do, one function a rule: it gets a connection and raises `Failed`."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from mediad.speech.check import tools
from mediad.speech.check.peer import Failed, Peer, Target
from mediad.wire import frames
from mediad.wire.service import PROTOCOL, Done, Role

__all__ = ["CHECKS", "RULES", "Check", "Rule"]

_ALL: tuple[Role, ...] = ("stt", "llm", "tts")
_AFTER_CANCEL_S = 0.3
_STT_RATE_HZ = 16_000
_TTS_RATES_HZ = (8000, 16_000, 22_050, 24_000, 44_100, 48_000)


class Rule(NamedTuple):
    """Something that is watched in all that comes."""

    name: str
    advice: str
    roles: tuple[Role, ...] = _ALL


class Check(NamedTuple):
    """Something that is tried, on a connection of its own."""

    name: str
    advice: str
    run: Callable[[Target], Awaitable[None]]
    roles: tuple[Role, ...] = _ALL


RULES = (
    Rule(
        "messages",
        "send binary WebSocket messages of up to 1 MiB, each one Frame, as the README has them",
    ),
    Rule("numbers", "send one mediad-done for each n, with the n of the request, and no other n"),
    Rule("order", "answer requests in the order in which they come, one after the other"),
    Rule("after-done", "send nothing more for an n after its mediad-done", ("llm", "tts")),
    Rule("sample-rate", "send s16le mono audio of the rate that mediad-ready announced", ("tts",)),
    Rule("words", "let offset_ms count from the start of the audio of n, and never fall", ("tts",)),
)


async def _get_ready(target: Target) -> None:
    async with target.connect() as peer:
        ready = await peer.start()
        if ready.protocol != PROTOCOL:
            raise Failed(f"mediad-ready has protocol {ready.protocol}, not {PROTOCOL}")
        if target.role == "stt" and ready.sample_rate not in (0, _STT_RATE_HZ):
            raise Failed(f"mediad-ready has sample_rate {ready.sample_rate}, not {_STT_RATE_HZ}")
        if target.role == "tts" and ready.sample_rate not in _TTS_RATES_HZ:
            rates = ", ".join(map(str, _TTS_RATES_HZ))
            raise Failed(f"mediad-ready has sample_rate {ready.sample_rate}, none of {rates}")


async def _answer(peer: Peer) -> None:
    """Ask, and take the answer."""
    await peer.be_silent()
    before = peer.content
    done = await peer.done(await peer.ask())
    _check_answered(peer, done, before)


def _check_answered(peer: Peer, done: Done, before: int) -> None:
    if done.reason == "cancelled":
        raise Failed(f"n {done.n} was cancelled by nobody")
    if peer.role != "stt" and peer.content == before:
        what = "TextFrame" if peer.role == "llm" else "AudioRawFrame"
        told = peer.told()
        raise Failed(f"n {done.n} is done ({done.reason}), and no {what} came for it{told}")


async def _ask_once(target: Target) -> None:
    async with target.connect() as peer:
        await peer.start()
        await _answer(peer)


async def _ask_for_nothing(target: Target) -> None:
    async with target.connect() as peer:
        await peer.start()
        await peer.done(await peer.ask(nothing=True))  # to an STT service: before any audio
        await peer.done(await peer.ask())


async def _ask_twice(target: Target) -> None:
    async with target.connect() as peer:
        await peer.start()
        await _answer(peer)
        await _answer(peer)


async def _number_from_later(target: Target) -> None:
    async with target.connect(first_n=100_000) as peer:
        await peer.start()
        await _answer(peer)


async def _ask_at_once(target: Target) -> None:
    async with target.connect() as peer:
        await peer.start()
        await peer.be_silent()
        asked = [await peer.ask() for _ in range(3)]
        for n in asked:
            await peer.done(n)


async def _send_unknown_types(target: Target) -> None:
    unknown = {"label": "rtvi-ai", "type": "mediad-unknown", "id": "1", "data": {"n": 1}}
    async with target.connect() as peer:
        await peer.start()
        await peer.send_raw(frames.encode_json(json.dumps(unknown)))
        await peer.send_raw(frames.encode_json('["nobody knows this"]'))
        await peer.send_raw(b"")  # a frame of a later frames.proto looks like that
        await peer.send_raw(frames.encode_transcription("nobody said this"))
        await _answer(peer)


async def _send_garbage(target: Target) -> None:
    async with target.connect() as peer:
        await peer.start()
        await peer.send_raw(b"\xff\xfe\xfd")
        await peer.send_raw(frames.encode_json("{no json"))
        await _answer(peer)


async def _cancel(target: Target) -> None:
    async with target.connect() as peer:
        await peer.start()
        await peer.be_silent()
        n = await peer.ask(long=True)
        if target.role != "stt":
            await peer.some_content(n)
        await peer.interrupt(n)
        await peer.cancelled(n)
        content = peer.content
        await peer.quiet(_AFTER_CANCEL_S)
        if peer.content > content:
            raise Failed(f"{peer.content - content} messages with content after mediad-done")
        await _answer(peer)


async def _cancel_what_waits(target: Target) -> None:
    async with target.connect() as peer:
        await peer.start()
        await peer.be_silent()
        asked = [await peer.ask(long=True) for _ in range(3)]
        await peer.interrupt(asked[-1])
        await peer.cancelled(asked[-1])
        await _answer(peer)


async def _cancel_late(target: Target) -> None:
    async with target.connect() as peer:
        await peer.start()
        await peer.be_silent()
        n = await peer.ask()
        await peer.done(n)
        await peer.interrupt(n)
        await peer.cancelled(n)
        await _answer(peer)


async def _offer_a_tool(target: Target) -> None:
    async with target.connect() as peer:
        await peer.start()
        before = peer.content
        done = await peer.done(await peer.ask_with_tool())
        if wrong := tools.wrong_in(done):
            raise Failed(f"n {done.n}: {wrong}")
        if not done.tool_calls:
            _check_answered(peer, done, before)
        await _answer(peer)


async def _call_twice_at_once(target: Target) -> None:
    async with target.connect() as one, target.connect() as other:
        await asyncio.gather(one.start(), other.start())
        await asyncio.gather(_answer(one), _answer(other))


CHECKS = (
    Check(
        "ready",
        "answer mediad-start with mediad-ready {protocol: 1, sample_rate} within 2 s",
        _get_ready,
    ),
    Check(
        "answer",
        "answer each request, and end it with mediad-done {n}",
        _ask_once,
    ),
    Check(
        "nothing",
        "send mediad-done {n} also when no word was said, or there is nothing to say or to answer",
        _ask_for_nothing,
    ),
    Check("two-turns", "take one request after the other on one connection", _ask_twice),
    Check(
        "large-n", "give back the n of the request; the first one may be any", _number_from_later
    ),
    Check("queue", "take requests while another is being answered, and answer all", _ask_at_once),
    Check(
        "unknown-types",
        "ignore messages and frames that you do not know: later versions of mediad send them",
        _send_unknown_types,
    ),
    Check("garbage", "ignore what cannot be read, and go on", _send_garbage),
    Check(
        "cancel",
        "read while you answer; at an InterruptionFrame with id n stop n and all before it, and "
        'send mediad-done {n, reason: "cancelled"} within 500 ms, nothing of n after it',
        _cancel,
    ),
    Check(
        "cancel-queue",
        "an InterruptionFrame with id n also cancels the requests up to n that wait",
        _cancel_what_waits,
    ),
    Check(
        "cancel-late",
        'answer an InterruptionFrame by mediad-done {n, reason: "cancelled"} also when n is done '
        "already: the two may cross on the way",
        _cancel_late,
    ),
    Check(
        "tools",
        "leave the tools that are offered alone; or call one of them, by mediad-done {n, reason: "
        '"tool_calls", tool_calls} with a list as OpenAI has it, where arguments is JSON text',
        _offer_a_tool,
        ("llm",),
    ),
    Check("two-calls", "serve several connections at once", _call_twice_at_once),
)
