"""The bench itself: its generator sees what happens to frames, and a short run of it works. And the
budget of instructions that mediad has for a frame.
"""

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import pytest

from bench.build import FLAGS, Programs, build
from bench.generator import Result, generate
from bench.instructions import BUDGET, count_instructions
from bench.measure import Bench
from bench.process import BenchError, choose_cores, free_port
from bench.targets import Kind, Target, running
from bench.thread_server import receive
from mediad.line import _build
from tests.missing import skip_or_fail
from tests.servers import MissingProgramError, Program, find_program

CALLS = 20
SECONDS = 3
MANY = 100  # so many that mediad looks at their sockets on its grid
MAX_RATIO = 2.2  # of mediad's CPU to the floor's; measured were 1.3 to 1.6
MAX_READS = MAX_WRITES = 2.2  # for a frame to the agent and one back
MAX_OTHERS = 9.0  # other system calls; measured were 5.5 to 6.1
SHORT_CALLS = (2_400, 6_400)  # caches are full after the first
MAX_LEFT_KIB = 0.5  # of each of the others; measured was 0.1


@pytest.fixture(scope="module")
def programs() -> Programs:
    """The C programs, built."""
    if find_spec("mediad.line._core") is None:
        skip_or_fail("the compiled core is not built")
    try:
        choose_cores()
        return build()
    except BenchError as exc:
        skip_or_fail(exc)


@pytest.fixture
def bench(programs: Programs) -> Bench:
    """Measures without a word."""
    return Bench(programs, choose_cores(), SECONDS, runs=1, spare_runs=2, say=lambda _: None)


@pytest.fixture
def strace(monkeypatch: pytest.MonkeyPatch) -> None:
    """strace on PATH, wherever it is."""
    try:
        program = find_program("strace", "strace")
    except MissingProgramError as exc:
        skip_or_fail(exc)
    for name, value in program.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{program.path.parent}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture
def valgrind() -> Program:
    """valgrind, wherever it is."""
    try:
        return find_program("valgrind", "valgrind")
    except MissingProgramError as exc:
        skip_or_fail(exc)


def run_shortly(programs: Programs, kind: Kind) -> Result:
    """Run a few calls for a few seconds."""
    cores = choose_cores()
    with running(kind, programs, free_port(), cores[0]) as target:
        options = ("--calls", str(CALLS), "--seconds", str(SECONDS), "--warm", "0.5")
        return generate(programs, target, cores, kind.mode, *options, seconds=SECONDS)


@pytest.mark.parametrize("kind", [Kind.FLOOR, Kind.MEDIAD])
def test_every_frame_comes_back_once(programs: Programs, kind: Kind) -> None:
    result = run_shortly(programs, kind)
    window = result.window
    assert (result.started, result.failed, result.left_open) == (CALLS, 0, 0)
    names = ("lost", "duplicates", "reordered", "undecoded", "agent_undecoded", "wrong_messages")
    assert {name: window[name] for name in names} == dict.fromkeys(names, 0)
    frames = CALLS * SECONDS * 50
    assert result.counted("sent") == pytest.approx(frames, rel=0.03)
    # Less where the machine stalls.
    assert result.counted("received") == pytest.approx(frames, rel=0.1)
    assert result.uplink.count == pytest.approx(frames, rel=0.03)
    assert 0 < result.uplink.p50 <= result.uplink.p99 <= result.round_trip.max
    assert result.cpu_s > 0
    assert result.rss_kib > 1000


def test_mediad_counts_what_the_callers_saw(programs: Programs) -> None:
    result = run_shortly(programs, Kind.MEDIAD)
    # A stall of the machine may end an utterance for mediad that goes on for the caller.
    assert [line for line in result.disagreements if "underrun" not in line] == []


def find_generator() -> int:
    """Wait for the generator and return its pid."""
    while True:
        children = Path(f"/proc/{os.getpid()}/task").glob("*/children")
        for pid in [int(pid) for each in children for pid in each.read_text().split()]:
            with suppress(FileNotFoundError):
                if Path(f"/proc/{pid}/comm").read_text().startswith("load"):
                    return pid
        time.sleep(0.05)


def stand_still() -> None:
    """Stop callers and agent while they are measured, as a virtual machine is stopped."""
    generator = find_generator()
    time.sleep(2.5)
    os.kill(generator, signal.SIGSTOP)
    time.sleep(0.15)
    os.kill(generator, signal.SIGCONT)


def test_what_breaks_while_the_machine_stands_still_is_told_apart(programs: Programs) -> None:
    with ThreadPoolExecutor(1) as pool:
        standing = pool.submit(stand_still)
        result = run_shortly(programs, Kind.MEDIAD)
        standing.result()
    assert result.standstills >= 1
    assert result.standstill_ms > 100
    assert result.disturbed["underruns"] >= 0.9 * CALLS
    assert result.window["underruns"] <= 0.1 * CALLS
    assert result.broken_by_machine >= result.disturbed["underruns"]


FAULTS = ("drop", "double", "swap", "silence", "noise", "other kind")
FAULTY_FRAME = 40
HEADER_SIZE = 3
MESSAGE_SIZE = HEADER_SIZE + 320


def spoil(message: bytes, fault: str) -> bytes:
    """Return what a server with this fault sends in place of a message."""
    header = message[:HEADER_SIZE]
    return {
        "drop": b"",
        "double": 2 * message,
        "silence": header + bytes(320),
        "noise": header + (2000).to_bytes(2, "little") * 160,
        "other kind": b"\x12" + message[1:],
    }[fault]


def echo_with_a_fault(connection: socket.socket, fault: str) -> None:
    """Echo a call's audio, and do wrong by one frame."""
    with connection:
        receive(connection, HEADER_SIZE + 16)  # the UUID
        number = 0
        held = b""
        while len(message := receive(connection, MESSAGE_SIZE)) == MESSAGE_SIZE:
            number += 1
            if number != FAULTY_FRAME:
                message, held = message + held, b""
            elif fault == "swap":
                message, held = b"", message
            else:
                message = spoil(message, fault)
            connection.sendall(message)


@contextmanager
def faulty_server() -> Iterator[Target]:
    """Serve a call with each of the faults."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()

        def serve(fault: str) -> None:
            connection, _ = server.accept()
            echo_with_a_fault(connection, fault)

        threads = [threading.Thread(target=serve, args=(fault,)) for fault in FAULTS]
        for thread in threads:
            thread.start()
        yield Target(Kind.THREADS, os.getpid(), f"{host}:{port}", "", 0, Path(os.devnull))
        for thread in threads:
            thread.join()


def test_each_fault_is_counted_once(programs: Programs) -> None:
    with faulty_server() as target:
        options = ("--calls", str(len(FAULTS)), "--seconds", "2", "--warm", "0")
        result = generate(programs, target, choose_cores(), "local", *options, seconds=2)
    assert result.failed == 0
    counted = {
        "duplicates": 1,
        "reordered": 1,
        "underruns": 1,
        "underrun_frames": 1,
        "undecoded": 1,
        "wrong_messages": 1,
        "lost": 4,  # dropped, silenced, made noise of, sent as another kind
        "missing": 2,  # dropped, sent as another kind
    }
    assert {name: result.counted(name) for name in counted} == counted


def test_a_target_that_is_not_there_fails_every_call(programs: Programs) -> None:
    target = Target(Kind.FLOOR, os.getpid(), f"127.0.0.1:{free_port()}", "", 0, Path(os.devnull))
    options = ("--calls", "3", "--seconds", "0.1", "--warm", "0")
    result = generate(programs, target, choose_cores(), "calls", *options, seconds=1)
    assert result.failed == 3


def test_flags_are_those_of_the_compiled_core() -> None:
    assert list(FLAGS) == _build._UNIX_FLAGS


def test_a_frame_keeps_to_its_budget_of_instructions(programs: Programs, valgrind: Program) -> None:
    counted = count_instructions(programs, valgrind.path, valgrind.environment)
    print(f"{counted:.0f} instructions for a frame")
    assert counted < BUDGET


@pytest.mark.usefixtures("strace")
def test_a_frame_costs_two_reads_two_writes_and_little_else(bench: Bench) -> None:
    calls = bench.syscalls(Kind.MEDIAD)
    print(calls)
    assert 1 < calls.reads < MAX_READS  # fewer where the machine is busy: then one takes two frames
    assert 1 < calls.writes < MAX_WRITES
    assert calls.others < MAX_OTHERS


def test_many_calls_cost_little_more_than_the_floor(bench: Bench) -> None:
    floor, mediad = bench.steady((Kind.FLOOR, Kind.MEDIAD), MANY).values()
    print(f"floor {floor.cpu_ms:.3f} ms, mediad {mediad.cpu_ms:.3f} ms")
    assert mediad.cpu_ms < MAX_RATIO * floor.cpu_ms


def test_short_calls_leave_no_memory_behind(bench: Bench) -> None:
    first, all_ = SHORT_CALLS
    grown = bench.slope(Kind.MEDIAD, first, all_, per_second=200)
    assert (grown.finished, grown.failed) == (all_, 0)
    left_kib = (grown.after - grown.before) / (all_ - first)
    print(f"{left_kib:.2f} KiB a call")
    assert left_kib < MAX_LEFT_KIB
