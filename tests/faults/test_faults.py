"""Every fault of `tests.faults.cases`. They all run before the first result is told, and what was
measured is kept for the table.
"""

import gc
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import uvloop

from tests.faults import results
from tests.faults.cases import CASES, Case, Result
from tests.faults.machine import preloaded
from tests.faults.run import Outcome, run_cases
from tests.missing import skip_or_fail
from tests.servers import MissingProgramError


@pytest.fixture(scope="session")
def outcomes(request: pytest.FixtureRequest) -> dict[str, Outcome]:
    """What came of the cases that are to be tested; they have run together."""
    wanted = {item.name for item in request.session.items}
    cases = [case for case in CASES if f"test_fault[{case.name}]" in wanted]
    try:
        with warnings.catch_warnings():
            # A pool here that drops a connection while it reads the books is nothing of mediad's.
            warnings.simplefilter("ignore", ResourceWarning)
            found = uvloop.run(run_cases(cases))
            gc.collect()
    except MissingProgramError as exc:
        skip_or_fail(exc)
    results.write({name: one for name, one in found.items() if isinstance(one, Result)})
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_fault(case: Case, outcomes: dict[str, Outcome]) -> None:
    outcome = outcomes[case.name]
    if isinstance(outcome, BaseException):
        raise outcome


def test_the_wall_clock_that_is_stepped_is_that_of_a_program() -> None:
    program = "import datetime as d, time; print(time.time(), d.datetime.now(d.UTC).timestamp())"
    with preloaded("wall_clock") as clock:
        clock.set(7200)
        environment = os.environ | {"LD_PRELOAD": clock.path}
        command = (sys.executable, "-c", program)
        out = subprocess.check_output(command, text=True, env=environment)
    for seen in out.split():
        assert float(seen) - time.time() == pytest.approx(7200, abs=10)


def test_the_disk_that_is_full_has_room_for_no_file_but_a_pipe_goes_on(tmp_path: Path) -> None:
    program = """if True:
        import sqlite3, sys
        print("begins", flush=True)
        try:
            with open(sys.argv[1], "w") as file:
                file.write("no room")
        except OSError as exc:
            print(exc.strerror)
        try:
            sqlite3.connect(sys.argv[2]).execute("CREATE TABLE no (room)")
        except sqlite3.Error as exc:
            print(exc.sqlite_errorname)
    """
    with preloaded("full_disk") as disk:
        disk.set(1)
        environment = os.environ | {"LD_PRELOAD": disk.path}
        command = (sys.executable, "-c", program, str(tmp_path / "file"), str(tmp_path / "db"))
        out = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True).stdout
    assert out.splitlines() == ["begins", "No space left on device", "SQLITE_FULL"]
