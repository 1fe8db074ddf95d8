"""What mediad does when it has run out of something: files."""

import asyncio
import os
import resource
import time
import urllib.request
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from itertools import count

from prometheus_client.parser import text_string_to_metric_families

from mediad.config import Settings
from mediad.files import files_needed
from tests.fakes.agent import FakeAgent, echo
from tests.fakes.asterisk import AsteriskCall
from tests.mediad_process import MediadProcess, run_mediad
from tests.own_stalls import no_longer_than


@contextmanager
def no_files(mediad: MediadProcess) -> Iterator[None]:
    """Let the process open no more files than it has."""
    before = resource.prlimit(mediad.pid, resource.RLIMIT_NOFILE)
    files = {int(name) for name in os.listdir(f"/proc/{mediad.pid}/fd")}
    lowest_free = next(number for number in count() if number not in files)
    resource.prlimit(mediad.pid, resource.RLIMIT_NOFILE, (lowest_free, before[1]))
    yield
    resource.prlimit(mediad.pid, resource.RLIMIT_NOFILE, before)


def metric(text: str, name: str, **labels: str) -> float:
    """Return a metric's value."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


async def figures(mediad: MediadProcess) -> str:
    """Return /metrics."""

    def ask() -> str:
        with urllib.request.urlopen("http://{}:{}/metrics".format(*mediad.http)) as answer:
            return str(answer.read().decode())

    return await asyncio.to_thread(ask)


async def test_process_takes_all_files_that_it_may_have_and_needs_few_for_itself() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, before[1]))
    try:
        async with FakeAgent(echo) as agent, run_mediad(agent.url) as mediad:
            assert resource.prlimit(mediad.pid, resource.RLIMIT_NOFILE) == (before[1], before[1])
            needed = files_needed(Settings())
            files = os.listdir(f"/proc/{mediad.pid}/fd")
            assert len(files) < needed["the database"] + needed["all else"]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_without_files_new_calls_get_hangup_and_live_ones_go_on() -> None:
    async with FakeAgent(echo) as agent, run_mediad(agent.url) as mediad, AsyncExitStack() as stack:
        live = [await stack.enter_async_context(AsteriskCall(mediad.audiosocket)) for _ in range(5)]
        await agent.connection(4)
        with no_files(mediad):
            began = time.monotonic()
            late = [
                await stack.enter_async_context(AsteriskCall(mediad.audiosocket)) for _ in range(10)
            ]
            for call in late:
                async with no_longer_than(2):  # before Asterisk hangs its caller up
                    await call.closed()
                assert call.audio == []
            assert sum(call.has_hangup for call in late) >= 5  # a reset may be faster
            for call in live:
                await call.hears(20)
            seconds = time.monotonic() - began
        async with AsteriskCall(mediad.audiosocket) as call:
            await call.hears(5)
        for call in live:
            await call.hears(5)
        text = await figures(mediad)
        lines = [line for line in mediad.log if "no connection can be accepted" in line]
    assert 1 <= len(lines) <= 1 + seconds
    assert "Too many open files" in lines[0]
    assert metric(text, "mediad_audiosocket_accept_pauses_total") >= 2
    assert metric(text, "mediad_audiosocket_connections_closed_total", reason="no_files") == 10
    assert metric(text, "mediad_underruns_total") == 0
    assert metric(text, "mediad_calls") == 5
