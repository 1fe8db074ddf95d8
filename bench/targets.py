"""The programs that are measured: the floor, mediad, its peers. Start one, learn where it listens.

Each writes the line "… takes calls on HOST:PORT" when it is ready.
"""

import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from bench.build import Programs
from bench.process import CACHE, ROOT, BenchError, favour

__all__ = ["Kind", "Target", "read_metrics", "running"]

_READY_S = 120.0  # under valgrind it takes a while
_STOP_S = 10.0
_READY = re.compile(r"takes calls on ([\d.]+:\d+)(?:, HTTP on ([\d.]+:\d+))?")


class Kind(StrEnum):
    """What can be measured."""

    FLOOR = "floor"
    FLOOR_ON_GRID = "floor-on-grid"
    """The floor, which wakes up every millisecond only, as mediad does with many calls."""
    MEDIAD = "mediad"
    MEDIAD_PYTHON = "mediad-python"
    """The line in Python, without the compiled core."""
    MEDIAD_TLS = "mediad-wss"
    """``wss://`` to the agent."""
    THREADS = "threads"
    PIPECAT = "pipecat"

    @property
    def mode(self) -> str:
        """How the generator talks with it under a steady load."""
        return {Kind.THREADS: "local", Kind.PIPECAT: "ws"}.get(self, "calls")


class Target(NamedTuple):
    """A program that runs."""

    kind: Kind
    pid: int
    address: str
    http: str
    """Where its metrics are; empty when it has none."""
    agent_port: int
    log: Path

    def rss_kib(self) -> int:
        """Return how much memory it has now."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+)", status)
        return int(found[1]) if found else 0


@contextmanager
def running(
    kind: Kind,
    programs: Programs,
    agent_port: int,
    core: int,
    ca_file: Path | None = None,
    wrapper: tuple[str, ...] = (),
    extra: Mapping[str, str] | None = None,
) -> Iterator[Target]:
    """Run a program while the block lasts.

    Args:
        agent_port: Where it finds the agent.
        core: The core it gets to itself, unless it is wrapped.
        ca_file: Who signed the agent's certificate, for `Kind.MEDIAD_TLS`.
        wrapper: A command that runs it, as strace.
        extra: More of an environment, but no settings of mediad.

    Raises:
        BenchError: If it ends instead of getting ready.
    """
    log = CACHE / f"{kind}.log"
    command = [*wrapper, *_command(kind, programs, agent_port)]
    ours = {**os.environ, **(extra or {})}
    environment = {name: value for name, value in ours.items() if not name.startswith("MEDIAD_")}
    environment |= _environment(kind, agent_port, ca_file)
    shutil.rmtree(CACHE / "state", ignore_errors=True)  # each run begins with an empty database
    with log.open("w") as file:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    pid = process.pid
    try:
        if not wrapper:
            favour(pid, core)
        address, http = _wait_until_ready(kind, process, log)
        if wrapper:  # the program is its child, or it has become the program
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            pid = int(children[0]) if children else pid
        yield Target(kind, pid, address, http, agent_port, log)
    finally:
        _stop(process, pid)


def read_metrics(target: Target) -> dict[str, float]:
    """Return mediad's metrics by name; samples with labels are summed.

    Raises:
        BenchError: If they do not come: it is busy with more calls than its core carries.
    """
    try:
        with urllib.request.urlopen(f"http://{target.http}/metrics", timeout=10) as answer:
            text: str = answer.read().decode()
    except OSError as exc:
        raise BenchError(f"{target.kind} does not answer /metrics: {exc}") from exc
    found: dict[str, float] = {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            found[line.split()[2]] = 0.0  # one with labels may have no sample yet
        elif not line.startswith("#"):
            sample, _, value = line.rpartition(" ")
            name = sample.partition("{")[0]
            found[name] = found.get(name, 0.0) + float(value)
    return found


def _command(kind: Kind, programs: Programs, agent_port: int) -> list[str]:
    match kind:
        case Kind.FLOOR | Kind.FLOOR_ON_GRID:
            grid = ["--grid", "1000"] if kind is Kind.FLOOR_ON_GRID else []
            return [str(programs.floor), "--agent", f"127.0.0.1:{agent_port}", *grid]
        case Kind.THREADS:
            return [sys.executable, "-m", "bench.thread_server"]
        case Kind.PIPECAT:
            return [sys.executable, "-W", "ignore", "-m", "bench.pipecat_echo"]
        case _:
            return [sys.executable, "-m", "mediad", "serve"]


def _environment(kind: Kind, agent_port: int, ca_file: Path | None) -> dict[str, str]:
    scheme = "wss" if kind is Kind.MEDIAD_TLS else "ws"
    settings = {
        "MEDIAD_AUDIOSOCKET__PORT": "0",
        "MEDIAD_AI__CONNECT_TIMEOUT_S": "60",  # under valgrind a handshake takes its time
        "MEDIAD_AUDIOSOCKET__CODEC": "slin",
        "MEDIAD_AUDIOSOCKET__MAX_CALLS": "3000",
        "MEDIAD_AUDIOSOCKET__DRAIN_TIMEOUT_S": "0",
        "MEDIAD_HTTP__PORT": "0",
        "MEDIAD_AI__AGENT_URL": f"{scheme}://127.0.0.1:{agent_port}/{{call_id}}",
        "MEDIAD_DATABASE__DIRECTORY": str(CACHE / "state"),
        "MEDIAD_CORE": "python" if kind is Kind.MEDIAD_PYTHON else "require",
    }
    if ca_file is not None:
        settings["MEDIAD_AI__CA_FILE"] = str(ca_file)
    return settings


def _wait_until_ready(kind: Kind, process: subprocess.Popen[bytes], log: Path) -> tuple[str, str]:
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline:
        if found := _READY.search(log.read_text()):
            return found[1], found[2] or ""
        if process.poll() is not None:
            raise BenchError(f"{kind} does not start:\n{log.read_text()}")
        time.sleep(0.05)
    raise BenchError(f"{kind} is not ready after {_READY_S:.0f} s; see {log}")


def _stop(process: subprocess.Popen[bytes], pid: int) -> None:
    if process.poll() is None:
        os.kill(pid, 15)
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
