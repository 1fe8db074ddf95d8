"""Whole calls on which a service fails, in every way: what the caller hears, how the call goes on,
what is counted, and how much memory it takes. One mediad, three services on the real wire.
"""

import asyncio
import resource
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pytest

from mediad.bus.commands import Inject
from mediad.caller import Caller
from mediad.config import Settings
from mediad.line import Line
from mediad.media import tone
from mediad.wire import frames
from mediad.wire.service import Role
from tests.data.spoken import recordings
from tests.fakes.service import (
    HALF_PCM,
    RATE_HZ,
    FakeService,
    Fault,
    Moody,
    Script,
    answer,
    pcm_of,
)
from tests.integration.daemon import Daemon, eventually, running, settings

ROLES: tuple[Role, ...] = ("stt", "llm", "tts")
SPEECH = recordings("the weather is nice today")[0]


def _as_heard(pcm: bytes, rate_hz: int) -> bytes:
    """Return what of an agent's audio a caller's line plays."""
    line = Line("slin", "ulaw", 60.0)
    line.receive_agent(frames.encode_audio(pcm, rate_hz), 0.0)
    ticks = range(2, 2 + len(pcm) * 25 // rate_hz)
    return b"".join(line.tick(0.02 * number).to_caller[3:] for number in ticks)


TONE = _as_heard(tone.unavailable_tone(), tone.RATE_HZ)[: RATE_HZ // 2]
"""The first of what is heard when nobody can speak."""

LONG_GREETING = "Hello and welcome to the bank. What can I do for you on this fine day?"

MAX_GROWTH_BYTES = 64 << 20
"""Of this whole process, services and caller included, while a service floods."""

TIMEOUT_S: dict[Role, float] = {"stt": 1.5, "llm": 1.0, "tts": 1.0}
BUDGET_S = 6.0
"""More than three tries take: no service is given up for a moment at which all stood still."""


class Rig(NamedTuple):
    """A mediad, its services and a caller."""

    daemon: Daemon
    services: dict[Role, FakeService]
    moods: dict[Role, Moody]
    caller: Caller

    @property
    def said(self) -> list[str]:
        """What the agent has said, as the facts have it."""
        words = self.daemon.events("transcript_created")
        return [event.data["text"] for event in words if event.data["direction"] == "out"]

    async def hears(self, pcm: bytes, timeout_s: float = 15.0) -> None:
        """Wait until the caller has heard this very sound."""
        await eventually(lambda: pcm in self.caller.heard.pcm, timeout_s)

    def _is_whole(self) -> bool:
        connected, lost = (
            [event.data["role"] for event in self.daemon.events(type_)]
            for type_ in ("service_connected", "service_lost")
        )
        return all(connected.count(role) > lost.count(role) for role in ROLES)

    async def is_answered(self, digit: str) -> None:
        """Let the caller ask as soon as all services are there, and wait until the answer, which
        repeats it, was heard.
        """
        await eventually(self._is_whole, 10.0)
        self.caller.press(digit)
        await eventually(lambda: any(digit in text for text in self.said), 10.0)
        await self.hears(pcm_of(next(text for text in self.said if digit in text)))

    async def counted(self, name: str, **labels: str) -> float:
        """Return a counter of services."""
        return await self.daemon.metric(f"mediad_{name}_total", **labels)


@asynccontextmanager
async def rig(
    *,
    stand_ins: dict[Role, Script] | None = None,
    ai: dict[str, Any] | None = None,
    speaks: bool = False,
) -> AsyncIterator[Rig]:
    """Begin a call, up to the end of the greeting. Where the caller's voice is to be heard that
    lasts longer than the grace at the start, in which it counts for nothing.
    """
    async with AsyncExitStack() as stack:
        moods: dict[Role, Moody] = {role: Moody() for role in ROLES}
        services: dict[Role, FakeService] = {}
        wanted = settings().model_dump()
        for role in ROLES:
            services[role] = await stack.enter_async_context(FakeService(role, moods[role]))
            urls = [services[role].url]
            if script := (stand_ins or {}).get(role):
                urls.append((await stack.enter_async_context(FakeService(role, script))).url)
            patience = {"timeout_s": TIMEOUT_S[role], "budget_s": BUDGET_S}
            wanted[role] = {"url": urls} | patience
        wanted["ai"] |= {"link": "pipeline", "agent_url": ["ws://127.0.0.1:9"]}
        # Three connections that were good for nothing take 2 s of this, a standstill the rest.
        wanted["ai"] |= {"connect_timeout_s": 10, **(ai or {})}
        wanted["pipeline"] = {
            "first_message": LONG_GREETING if speaks else "Hello.",
            "fallback_prompt": "Sorry.",
            "end_silence_s": 0.3,
            "no_input_s": 60,
        }
        daemon = await stack.enter_async_context(running(Settings.model_validate(wanted)))
        caller = await stack.enter_async_context(Caller(*daemon.app.audiosocket_address))
        await daemon.get("/metrics")  # two of the first ones at once, in one process, fail
        await daemon.event("turn_ended", timeout_s=15)
        yield Rig(daemon, services, moods, caller)


class Memory:
    """What this process has taken more than at the start of the watch, at the most."""

    def __init__(self) -> None:
        self._before = _resident_bytes()
        self.grown_bytes = 0

    async def watch(self) -> None:
        """Look until cancelled."""
        while True:
            self.grown_bytes = max(self.grown_bytes, _resident_bytes() - self._before)
            await asyncio.sleep(0.01)


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@asynccontextmanager
async def watch_memory() -> AsyncIterator[Memory]:
    """Watch while the block lasts."""
    memory = Memory()
    watching = asyncio.create_task(memory.watch())
    try:
        yield memory
    finally:
        watching.cancel()


class Case(NamedTuple):
    """A fault of a service, and where it is counted beside `mediad_fallbacks`."""

    role: Role
    fault: Fault
    counter: str
    label: dict[str, str]
    at_least: int = 1


def _ended(role: Role, fault: Fault, outcome: str) -> Case:
    return Case(role, fault, "service_requests", {"outcome": outcome})


CASES = (
    _ended("stt", "hang", "timeout"),
    _ended("llm", "hang", "timeout"),
    _ended("tts", "hang", "timeout"),
    _ended("stt", "die", "lost"),
    _ended("llm", "die", "lost"),
    _ended("tts", "die", "lost"),
    Case("stt", "garbage", "service_bad_frames", {"reason": "undecodable"}, 5),
    Case("llm", "garbage", "service_bad_frames", {"reason": "undecodable"}, 5),
    Case("tts", "garbage", "service_bad_frames", {"reason": "undecodable"}, 5),
    Case("stt", "flood", "service_bad_frames", {"reason": "flood"}),
    _ended("llm", "flood", "flood"),
    _ended("tts", "flood", "flood"),
    _ended("stt", "half", "lost"),
    _ended("llm", "half", "timeout"),
    _ended("tts", "half", "timeout"),
    _ended("llm", "empty", "done"),
    _ended("tts", "empty", "done"),
    Case("tts", "unplayable", "tts_bad_frames", {"reason": "sample_rate"}),
)


async def fails(it: Rig, case: Case) -> None:
    """Let a call meet the fault, and go on without it."""
    role = case.role
    it.moods[role].fault = case.fault
    if role == "stt":
        it.caller.say(SPEECH.pcm, SPEECH.rate_hz)
    else:
        it.caller.press("5")
    # With no voice to say so, a tone tells that something is wrong.
    await it.hears(TONE if role == "tts" else pcm_of("Sorry."))
    it.moods[role].fault = None
    if (role, case.fault) == ("tts", "half"):
        assert HALF_PCM[:1000] in it.caller.heard.pcm
    assert await it.counted("fallbacks", role=role) == await it.counted("fallbacks") == 1
    label = case.label | ({} if case.counter == "tts_bad_frames" else {"role": role})
    assert await it.counted(case.counter, **label) >= case.at_least
    await it.is_answered("7")
    assert it.caller.end is None


@pytest.mark.parametrize("fault", get_args(Fault))
async def test_caller_hears_the_fallback_and_the_call_goes_on(fault: Fault) -> None:
    cases = [case for case in CASES if case.fault == fault]
    async with AsyncExitStack() as stack:
        rigs = [await stack.enter_async_context(rig(speaks=case.role == "stt")) for case in cases]
        async with watch_memory() as memory, asyncio.TaskGroup() as group:
            for it, case in zip(rigs, cases, strict=True):
                group.create_task(fails(it, case))
        print(f"{fault}: {memory.grown_bytes / 2**20:.1f} MiB more at the most")
        assert memory.grown_bytes < MAX_GROWTH_BYTES


async def test_ears_that_die_while_the_caller_speaks_have_failed_the_turn() -> None:
    async with rig(speaks=True) as it:
        it.moods["stt"].fault = "empty"  # the next ones have not heard enough
        it.caller.say(SPEECH.pcm, SPEECH.rate_hz)
        await eventually(
            lambda: any(event.data["who"] == "caller" for event in it.daemon.events("speaking"))
        )
        await it.services["stt"].connections[0].cut()
        await it.hears(pcm_of("Sorry."))
        assert await it.counted("fallbacks", role="stt") == await it.counted("fallbacks") == 1
        assert await it.counted("turns", how="failed") == 1
        await it.is_answered("7")


async def test_answer_longer_than_a_service_may_be_asked_at_once_is_heard_whole() -> None:
    story = " ".join(f"{number}!" for number in range(10, 110))
    async with rig() as it:
        await it.daemon.app.commands.send(str(it.caller.call_id), Inject("default", story))
        assert (await it.daemon.event("turn_ended", number=1, timeout_s=15)).data[
            "how"
        ] == "finished"
        assert story in it.said[-1]
        assert await it.counted("fallbacks") == 0


async def test_stand_ins_take_over_within_a_call() -> None:
    async with rig(stand_ins=dict.fromkeys(ROLES, answer)) as it:
        for role in ROLES:
            it.services[role].end()
            await it.daemon.event("service_lost", number=ROLES.index(role))
        await it.is_answered("7")
        for role in ROLES:
            assert await it.counted("service_replaced", role=role, reason="lost") == 1
        assert await it.counted("fallbacks") == 0


@pytest.mark.parametrize("role", ROLES)
async def test_service_that_is_gone_for_good_ends_the_call_with_its_cause(role: Role) -> None:
    async with rig(ai={"reconnect_s": 0.5, "connect_timeout_s": 3}) as it:
        it.services[role].end()
        await it.hears(TONE)
        end = (await it.daemon.event("call_hungup")).data
        assert (end["hangup_by"], end["hangup_cause"]) == ("system", "destination_out_of_order")
        assert (await it.caller.ended()).how == "hangup"
        assert await it.counted("service_connects", role=role, outcome="unreachable") >= 1
