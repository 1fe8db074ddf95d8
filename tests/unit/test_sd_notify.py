"""Words to systemd, heard on a real datagram socket."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from mediad.sd_notify import READY, STOPPING, WATCHDOG, SdNotify


@pytest.fixture(autouse=True)
def no_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(params=["file", "abstract"])
def systemd(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[socket.socket]:
    """Return a socket in the place of systemd's."""
    name = f"@mediad-test-{uuid4()}" if request.param == "abstract" else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(name.replace("@", "\0", 1))
        sock.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        yield sock


def test_each_word_is_a_datagram(systemd: socket.socket) -> None:
    told = SdNotify()
    for state in (READY, WATCHDOG, f"{STOPPING}\nSTATUS=3 calls are left"):
        assert told.notify(state)
        assert systemd.recv(100).decode() == state
    told.close()
    assert not told.notify(READY)


def test_full_queue_is_not_waited_for(systemd: socket.socket) -> None:
    told = SdNotify()
    sent = 0
    while told.notify(WATCHDOG):
        sent += 1
        assert sent < 100_000
    assert sent > 0
    told.close()


def test_systemd_that_is_gone_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    told = SdNotify()
    assert not told.notify(READY)
    told.close()


@pytest.mark.parametrize("address", [None, "", "relative/path", "vsock:2:1234"])
def test_without_systemd_nothing_is_told(
    address: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if address is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    told = SdNotify()
    assert not told.notify(READY)
    assert told.watchdog_s is None
    told.close()


@pytest.mark.parametrize(
    ("usec", "pid", "seconds"),
    [
        ("30000000", None, 30.0),
        ("1500000", str(os.getpid()), 1.5),
        ("30000000", "1", None),  # our parent is watched, not we
        ("0", None, None),
        ("soon", None, None),
        (None, None, None),
    ],
)
def test_time_of_the_watchdog(
    usec: str | None,
    pid: str | None,
    seconds: float | None,
    systemd: socket.socket,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in (("WATCHDOG_USEC", usec), ("WATCHDOG_PID", pid)):
        if value is not None:
            monkeypatch.setenv(name, value)
    told = SdNotify()
    assert told.watchdog_s == seconds
    told.close()
