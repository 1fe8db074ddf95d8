"""Every fault of `tests.faults.cases`. They all run before the first result is told."""

import gc
import os
import subprocess
import sys
import time
import warnings

import pytest
import uvloop

from tests.faults.cases import CASES, Case
from tests.faults.machine import wall_clock
from tests.faults.run import Failures, run_cases
from tests.missing import skip_or_fail
from tests.servers import MissingProgramError


@pytest.fixture(scope="session")
def failures(request: pytest.FixtureRequest) -> Failures:
    """What came of the cases that are to be tested; they have run together."""
    wanted = {item.name for item in request.session.items}
    cases = [case for case in CASES if f"test_fault[{case.name}]" in wanted]
    try:
        with warnings.catch_warnings():
            # A pool here that drops a connection while it reads the books is nothing of mediad's.
            warnings.simplefilter("ignore", ResourceWarning)
            found = uvloop.run(run_cases(cases))
            gc.collect()
            return found
    except MissingProgramError as exc:
        skip_or_fail(exc)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_fault(case: Case, failures: Failures) -> None:
    failure = failures[case.name]
    if failure is not None:
        raise failure


def test_the_wall_clock_that_is_stepped_is_that_of_a_program() -> None:
    program = "import datetime as d, time; print(time.time(), d.datetime.now(d.UTC).timestamp())"
    with wall_clock() as clock:
        clock.step(7200)
        environment = os.environ | {"LD_PRELOAD": clock.library}
        command = (sys.executable, "-c", program)
        out = subprocess.check_output(command, text=True, env=environment)
    for seen in out.split():
        assert float(seen) - time.time() == pytest.approx(7200, abs=10)
