"""README's table of faults is that of a run in which each case has kept its promise."""

import pytest

from tests.faults.cases import CASES, NOTHING_S, Result, broken_promises
from tests.faults.table import in_readme, measured, row, table

GOOD = Result(silence_ms=120, end="goes on", others_silence_ms=200, lost=0, made=10)


def test_table_has_every_case_once() -> None:
    rows = in_readme().splitlines()[2:]
    assert [row.split("|")[1].strip() for row in rows] == [case.name for case in CASES]


def test_every_figure_keeps_its_promise_and_no_other_call_was_disturbed() -> None:
    rows = in_readme().splitlines(keepends=True)[2:]
    for case, line in zip(CASES, rows, strict=True):
        result = measured(line)
        assert line == row(case, result)
        assert not broken_promises(case, result), case.name
        if result.others_silence_ms is None:
            assert case.where == "mediad itself"
        else:
            assert result.others_silence_ms <= 1000 * NOTHING_S, case.name


@pytest.mark.parametrize(
    ("result", "broken"),
    [
        (GOOD, 0),
        (GOOD._replace(silence_ms=201), 1),
        (GOOD._replace(silence_ms=None), 1),
        (GOOD._replace(others_silence_ms=201), 1),
        (GOOD._replace(end="system, normal_unspecified"), 1),
        (GOOD._replace(lost=1), 1),
        (GOOD._replace(made=0), 1),
        (GOOD._replace(silence_ms=999, lost=1), 2),
    ],
)
def test_what_breaks_a_promise(result: Result, broken: int) -> None:
    assert len(broken_promises(CASES[-1], result)) == broken


def test_table_needs_a_result_of_every_case() -> None:
    found = {case.name: GOOD for case in CASES}
    assert measured(table(found).splitlines()[-1]) == GOOD
    del found[CASES[3].name]
    with pytest.raises(KeyError, match=CASES[3].name):
        table(found)


def test_cases_can_be_told_apart() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
