"""mediad as systemd sees it, and what it says of a loop that stands still."""

import asyncio
import logging
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.agent import FakeAgent
from tests.integration.daemon import running, settings
from tests.mediad_process import run_mediad
from tests.own_stalls import no_longer_than

WATCHDOG_S = 0.5


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Return a socket in the place of systemd's."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", str(int(WATCHDOG_S * 1_000_000)))
        yield sock


async def word(systemd: socket.socket) -> str:
    """Return what systemd is told next."""
    async with asyncio.timeout(10):
        return (await asyncio.get_running_loop().sock_recv(systemd, 1000)).decode()


async def test_systemd_is_told_of_start_life_and_end(systemd: socket.socket) -> None:
    async with FakeAgent() as agent:
        async with run_mediad(agent.url) as mediad:
            assert await word(systemd) == "READY=1"
            for _ in range(4):
                async with no_longer_than(WATCHDOG_S):
                    assert await word(systemd) == "WATCHDOG=1"
            await mediad.stop()
        words = [await word(systemd)]
        while words[-1] == "WATCHDOG=1":
            words.append(await word(systemd))
        assert words[-1] == "STOPPING=1"


async def test_what_holds_the_loop_up_is_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "mediad.loop_watch")
    async with FakeAgent() as agent, running(settings(agent.url)) as daemon:
        daemon.app.watch()
        async with daemon.call() as call:
            await call.hears(5)
            time.sleep(0.2)  # noqa: ASYNC251 (this is the fault)
            await daemon.metric_reaches(1, "mediad_event_loop_stalls_total")
            await daemon.metric_reaches(2, "mediad_control_loop_lag_seconds_count")
            await call.hears(5)
    told = [record.getMessage() for record in caplog.records if record.name == "mediad.loop_watch"]
    assert any("test_what_holds_the_loop_up_is_told" in line for line in told)
