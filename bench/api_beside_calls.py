"""Calls on a mediad, and beside them programs that read its API: what the callers heard, what the
readers got, and how the media loop stood it.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from bench.build import Programs
from bench.generator import Result, generate
from bench.http_load import Plan
from bench.process import CACHE, ROOT, BenchError, free_port
from bench.targets import Kind, Target, running
from mediad import config
from mediad.metrics import Metrics
from mediad.store.apply import apply
from mediad.store.database import Database
from tests.facts import CallFacts

__all__ = ["Load", "Measured", "Reads", "measure"]

_RAMP_PER_S = 100
_WARM_S = 3.0
_GRID_US = 500
_AGENTS = 20
_PAST_CALLS = 200
_SEGMENTS = 20  # in each of their transcripts
_ANSWER_S = 30.0
_EASY_READS_PER_S = 150  # with no more it rests for half of the time


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked of mediad."""

    calls: int
    reads_per_s: int
    """0 for none."""
    connections: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Reads:
    """What became of them."""

    offered_s: float
    """For how long they were offered."""
    statuses: dict[int, int]
    broken: int
    """Connections that ended without an answer."""
    seconds: dict[str, list[float]]
    """By kind: how long each answer took, from the request on."""

    @property
    def served_per_s(self) -> float:
        """Return how many a second were answered as they should have been."""
        return self.statuses.get(200, 0) / self.offered_s

    @property
    def failed(self) -> int:
        """Return how many were not."""
        return sum(self.statuses.values()) - self.statuses.get(200, 0) + self.broken


@dataclass(frozen=True, slots=True)
class Measured:
    """A run."""

    calls: Result
    reads: Reads
    lag: dict[float, float]
    """How often the media loop woke up no later than that, in seconds; the last is infinity."""

    @property
    def lag_p99_s(self) -> float:
        """Return the bound that 99 % of wake-ups keep to."""
        return next(bound for bound, many in self.lag.items() if many >= 0.99 * self.lag[inf])


def measure(programs: Programs, cores: tuple[int, int], load: Load) -> Measured:
    """Run calls, and reads beside them.

    Args:
        cores: mediad's, and that of the calls and the readers.

    Raises:
        BenchError: If something fails.
    """
    with running(Kind.MEDIAD, programs, free_port(), cores[0]) as target:
        if load.reads_per_s > _EASY_READS_PER_S:
            _let_others_run(target.pid)
        plan = _prepare(target, load)
        before = _lag(target)
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(_read, target, cores[1], load, plan)
            result = generate(
                programs,
                target,
                cores,
                "calls",
                *("--calls", str(load.calls), "--rate", str(_RAMP_PER_S), "--warm", str(_WARM_S)),
                *("--seconds", str(load.seconds), "--grid", str(_GRID_US)),
                seconds=load.seconds + _WARM_S + load.calls / _RAMP_PER_S,
            )
            reads = reading.result()
        after = _lag(target)
    lag = {bound: after[bound] - before[bound] for bound in after}
    return Measured(result, reads, lag)


def _let_others_run(pid: int) -> None:
    """Take mediad's real-time priority away; it still goes before all others.

    With more reads than it can answer it never rests, and from a real-time program that does not
    the kernel takes 50 ms of every second (sched_rt_runtime_us): all callers would hear that.
    """
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(PermissionError, ProcessLookupError):
            os.sched_setscheduler(int(thread.name), os.SCHED_OTHER, os.sched_param(0))
            os.setpriority(os.PRIO_PROCESS, int(thread.name), -20)
    with suppress(OSError):  # where the kernel groups sessions, that of the session counts
        Path(f"/proc/{pid}/autogroup").write_text("-20")


def _prepare(target: Target, load: Load) -> Plan:
    """Make what is read, and the keys to read it with."""
    state = CACHE / "state"
    root = (state / "access_key").read_text().strip()
    past = asyncio.run(_add_past_calls(config.Database(directory=state)))
    for number in range(_AGENTS):
        agent = {"name": f"agent {number}", "config": {"prompt": "You answer the telephone."}}
        _ask(target, root, "agents", agent)
    keys = [
        _ask(target, root, "accesskeys", {"role": "viewer"})["key"] for _ in range(load.connections)
    ]
    paths = {
        "calls": ["/v1/calls"],
        "agents": ["/v1/agents"],
        "a transcript": [f"/v1/calls/{call_id}/transcript" for call_id in past],
    }
    return Plan(keys, paths)


async def _add_past_calls(settings: config.Database) -> list[str]:
    calls = [CallFacts() for _ in range(_PAST_CALLS)]
    facts = [fact for call in calls for fact in call.whole(_SEGMENTS)]
    database = Database(settings, Metrics())
    await database.open()
    async with database.write() as connection:
        await apply(connection, facts)
    await database.close()
    return [call.call_id for call in calls]


def _ask(target: Target, key: str, path: str, body: object = None) -> Any:
    request = urllib.request.Request(
        f"http://{target.http}/v1/{path}",
        None if body is None else json.dumps(body).encode(),
        {"AccessKey": key, "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=_ANSWER_S) as answer:
        return json.load(answer)


def _read(target: Target, core: int, load: Load, plan: Plan) -> Reads:
    """Read from when all calls are there until they have been measured."""
    if not load.reads_per_s:
        return Reads(0.0, {}, 0, {})
    live = _live_calls(target, plan.keys[0], load.calls)
    plan = plan._replace(paths={"a live call": [f"/v1/calls/{id}" for id in live], **plan.paths})
    seconds = load.seconds + _WARM_S
    done = subprocess.run(
        (
            *(sys.executable, "-m", "bench.http_load", target.http),
            *(str(core), str(load.reads_per_s), str(seconds)),
        ),
        cwd=ROOT,
        input=json.dumps(plan._asdict()),
        capture_output=True,
        text=True,
        timeout=seconds + _ANSWER_S,
    )
    if done.returncode:
        raise BenchError(f"the readers failed: {done.stderr}")
    told = json.loads(done.stdout)
    statuses = {int(status): many for status, many in told["statuses"].items()}
    return Reads(seconds, statuses, told["broken"], told["seconds"])


def _live_calls(target: Target, key: str, count: int) -> list[str]:
    deadline = time.monotonic() + _ANSWER_S
    while time.monotonic() < deadline:
        rows = _ask(target, key, "calls?status=in-progress&page_size=500")["result"]
        if len(rows) == count:
            return [row["id"] for row in rows]
        time.sleep(0.05)
    raise BenchError(f"there are not {count} calls after {_ANSWER_S:.0f} s")


def _lag(target: Target) -> dict[float, float]:
    with urllib.request.urlopen(f"http://{target.http}/metrics", timeout=_ANSWER_S) as answer:
        text: str = answer.read().decode()
    return {
        float(sample.labels["le"]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "mediad_event_loop_lag_seconds_bucket"
    }
