"""The bench of pipelines: how long a caller waits for an answer beyond the silence that ends a
turn, when STT, LLM and TTS services answer at once.

``python -m bench.pipeline`` takes about three minutes and prints the table; ``--write`` also writes
it to bench/PIPELINE.md.
"""

import argparse
import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import uvloop

from bench.process import ROOT, BenchError, can_favour
from bench.table import describe_machine, markdown
from mediad.caller import CallEnded, Caller
from mediad.caller.figures import percentile
from mediad.caller.track import level_dbfs
from tests.data.spoken import recordings

__all__ = ["Answers", "Plan", "measure"]

COLD_LIMIT_S = 0.060
KEPT_LIMIT_S = 0.040
_RESULTS = Path(__file__).with_name("PIPELINE.md")
_RUNS = 3
_FRAME_S = 0.020
_SPEECH_S = 1.0
_LOUD_DBFS = -25.0
_PAUSE_S = 0.3  # after an answer, until the caller speaks again
_ANSWER_S = 10.0
_FORGET_S = 3.0  # what was spoken lately is had without the cache
_WAIT_S = 120.0  # on a machine that is busy with other things
_OUTCOMES = ("miss", "hit", "joined", "alone")


class Plan(NamedTuple):
    """How many callers there are at a time, and how often each of them speaks."""

    calls: int = 20
    turns: int = 10
    end_silence_s: float = 0.5
    """So much silence ends a turn."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What the callers of one run heard."""

    waits_s: tuple[float, ...]
    """From the last sample of a caller's speech to the first of its answer, less the silence that
    ends a turn; sorted, in seconds."""
    unanswered: int
    late_s: float
    """How late the callers' own frames were, p99, in seconds."""
    reads: Mapping[str, int]
    """What became of the texts that were to be spoken: hit and miss of the cache, and so on."""

    @property
    def p50_s(self) -> float:
        return percentile(self.waits_s, 0.50)

    @property
    def p99_s(self) -> float:
        return percentile(self.waits_s, 0.99)


def main() -> None:
    """Parse the options, measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.pipeline", description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"also write {_RESULTS.name}")
    parser.add_argument("--calls", type=int, default=Plan().calls, help="at a time (20)")
    parser.add_argument("--turns", type=int, default=Plan().turns, help="of each call (10)")
    parser.add_argument("--runs", type=int, default=_RUNS, help=f"of each kind ({_RUNS})")
    options = parser.parse_args()
    plan = Plan(options.calls, options.turns)
    runs = []
    try:
        if can_favour():
            # All before other programs, but on no core of their own: mediad's threads would stand
            # in each other's way. What we start inherits it.
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        for number in range(options.runs):
            runs.append(measure(plan))
            print(f"run {number + 1}: {_line(runs[-1][0])}; from the cache {_line(runs[-1][1])}")
    except BenchError as exc:
        sys.exit(f"bench: {exc}")
    except KeyboardInterrupt:
        sys.exit("bench: stopped")
    text = _report(runs, plan)
    print(f"\n{text}")
    if options.write:
        _RESULTS.write_text(text + "\n")
        print(f"\nwritten to {_RESULTS}")


def measure(plan: Plan) -> tuple[Answers, Answers]:
    """Run mediad and its services; return what callers hear of answers that nobody has spoken
    before, and of the same once more.

    Raises:
        BenchError: If one of the programs does not start.
    """
    services = (("-m", "bench.pipeline_services"), r"listen on ([\d.:]+)")
    mediad = (("-m", "mediad", "serve"), r"takes calls on ([\d.:]+), HTTP on ([\d.:]+)")
    with (
        tempfile.TemporaryDirectory(prefix="mediad-bench-") as directory,
        _running(*services, {}) as (url,),
        _running(*mediad, _settings(plan, directory, f"ws://{url}")) as (address, http),
    ):
        return uvloop.run(_measure(plan, address, http))


async def _measure(plan: Plan, address: str, http: str) -> tuple[Answers, Answers]:
    found: list[Answers] = []
    for number in (1, 2):
        if found:
            await asyncio.sleep(_FORGET_S)
        before = await asyncio.to_thread(_reads, http)
        calls = [_talk(address, number, call, plan) for call in range(plan.calls)]
        talks = await asyncio.gather(*calls)
        after = await asyncio.to_thread(_reads, http)
        waits = sorted(chain.from_iterable(talk.waits_s for talk in talks))
        gaps = sorted(chain.from_iterable(talk.gaps_s for talk in talks))
        found.append(
            Answers(
                tuple(waits),
                plan.calls * plan.turns - len(waits),
                percentile(gaps, 0.99) - _FRAME_S,
                {outcome: after[outcome] - before[outcome] for outcome in _OUTCOMES},
            )
        )
    cold, kept = found
    return cold, kept


class _Talk(NamedTuple):
    waits_s: list[float]
    gaps_s: list[float]


async def _talk(address: str, run: int, number: int, plan: Plan) -> _Talk:
    """Have a conversation; it is shorter when an answer does not come."""
    host, _, port = address.rpartition(":")
    # Each call at another moment of mediad's and its own 20 ms.
    await asyncio.sleep(number * 1.003 / plan.calls)
    waits = []
    async with Caller(host, int(port), call_id=UUID(int=run << 16 | number)) as caller:
        try:
            await caller.wait_for_speech(timeout_s=_ANSWER_S)
            for _ in range(plan.turns):
                await caller.wait_for_quiet(quiet_s=_PAUSE_S)
                caller.say(_SPEECH, caller.sent.rate_hz)
                await caller.said()
                said_at = caller.sent.spans[-1].end - _FRAME_S
                answered_at = await caller.wait_for_answer(said_at, timeout_s=_ANSWER_S)
                waits.append(answered_at - said_at - plan.end_silence_s)
        except (CallEnded, TimeoutError):
            pass
        return _Talk(waits, caller.sent.gaps_s())


def _speech() -> bytes:
    """Return a second or so of speech whose last 20 ms, and they alone, are sent last."""
    (spoken, *_) = recordings("the weather is nice today")
    assert spoken.rate_hz == 8000
    size = round(spoken.rate_hz * _FRAME_S) * 2
    end = round(_SPEECH_S / _FRAME_S) * size
    while level_dbfs(spoken.pcm[end - size : end]) < _LOUD_DBFS:
        end += size
    return spoken.pcm[:end]


_SPEECH = _speech()


# The programs


def _settings(plan: Plan, directory: str, services: str) -> dict[str, str]:
    settings = {
        "audiosocket__port": "0",
        "audiosocket__codec": "slin",
        "audiosocket__drain_timeout_s": "0",
        "http__port": "0",
        "ai__link": "pipeline",
        "ai__listen_port": "0",
        "database__directory": directory,
        "pipeline__first_message": "Hello.",
        "pipeline__end_silence_s": str(plan.end_silence_s),
        **{f"{role}__url": services for role in ("stt", "llm", "tts")},
    }
    return {f"MEDIAD_{name.upper()}": value for name, value in settings.items()}


@contextmanager
def _running(
    command: Sequence[str], ready: str, environment: Mapping[str, str]
) -> Iterator[tuple[str, ...]]:
    """Run a program in Python while the block lasts; give what it said when it was ready."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("MEDIAD_")}
    with tempfile.NamedTemporaryFile("r", prefix="mediad-bench-", suffix=".log") as log:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env={**ours, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=os.open(log.name, os.O_WRONLY | os.O_APPEND),
        )
        try:
            yield _wait_until_ready(process, Path(log.name), ready)
        finally:
            process.terminate()
            process.wait(_WAIT_S)


def _wait_until_ready(process: subprocess.Popen[bytes], log: Path, ready: str) -> tuple[str, ...]:
    deadline = time.monotonic() + _WAIT_S
    while time.monotonic() < deadline and process.poll() is None:
        if found := re.search(ready, log.read_text()):
            return found.groups()
        time.sleep(0.05)
    raise BenchError(f"{process.args!r} does not start:\n{log.read_text()}")


def _reads(http: str) -> dict[str, int]:
    with urllib.request.urlopen(f"http://{http}/metrics", timeout=10) as answer:
        text: str = answer.read().decode()
    counters = re.findall(r'^mediad_tts_cache_reads_total{outcome="(\w+)"} ([\d.]+)$', text, re.M)
    found: dict[str, str] = dict(counters)
    return {outcome: int(float(found.get(outcome, 0))) for outcome in _OUTCOMES}


# The table


def _line(answers: Answers) -> str:
    return (
        f"p50 {_ms(answers.p50_s)}, p99 {_ms(answers.p99_s)}, max {_ms(answers.waits_s[-1])} ms, "
        f"{answers.unanswered} unanswered, {json.dumps(answers.reads)}, "
        f"callers late by {_ms(answers.late_s)} ms p99"
    )


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.1f}"


def _report(runs: Sequence[tuple[Answers, Answers]], plan: Plan) -> str:
    # Here nothing is pinned to a core, and nothing was compiled for the measurement.
    machine = [
        line for line in describe_machine((0, 0)) if not line.startswith(("Cores:", "Compiler:"))
    ]
    priority = "real-time" if can_favour() else "the usual"
    return "\n\n".join(
        (
            "# How long a pipeline's caller waits",
            "\n".join(f"- {line}" for line in machine),
            "From the last sample of a caller's speech that is sent to the first sample of the "
            "answer that comes back, less `pipeline.end_silence_s`, all seen by the caller, in "
            "milliseconds. mediad, and services that answer at once, are processes of their own "
            f"with WebSockets between them, all at {priority} priority. {plan.calls} calls at a "
            f"time, {plan.turns} turns each; first with answers that nobody has spoken before, "
            "then with the same from the cache.",
            markdown(_rows(runs)),
        )
    )


def _rows(runs: Sequence[tuple[Answers, Answers]]) -> list[tuple[str, ...]]:
    rows = [("answer", *(f"run {n + 1}" for n in range(len(runs))), "median", "must")]
    kinds = (("spoken anew", COLD_LIMIT_S, 0, "miss"), ("from the cache", KEPT_LIMIT_S, 1, "hit"))
    for name, limit_s, which, outcome in kinds:
        found = [run[which] for run in runs]
        p99_s = statistics.median(answers.p99_s for answers in found)
        judged = f"≤ {_ms(limit_s)}: {'yes' if p99_s <= limit_s else 'NO'}"
        p50_s = statistics.median(answers.p50_s for answers in found)
        rows += [
            (f"{name}, p50", *(_ms(a.p50_s) for a in found), _ms(p50_s), "–"),
            (f"{name}, p99", *(_ms(a.p99_s) for a in found), _ms(p99_s), judged),
            (f"{name}, longest", *(_ms(a.waits_s[-1]) for a in found), "–", "–"),
            (f"{name}, answers", *(str(len(a.waits_s)) for a in found), "–", "–"),
            (f"{name}, unanswered", *(str(a.unanswered) for a in found), "–", "0"),
            (f"{name}, {outcome} of the cache", *(str(a.reads[outcome]) for a in found), "–", "–"),
            (f"{name}, callers' own lateness p99", *(_ms(a.late_s) for a in found), "–", "–"),
        ]
    return rows


if __name__ == "__main__":
    main()
