"""README's table of faults is that of the cases which are run."""

from tests.faults.cases import CASES
from tests.faults.table import in_readme, table


def test_table_has_every_case_as_it_is_promised() -> None:
    assert in_readme() == table(), "`make test-faults` writes it"


def test_cases_can_be_told_apart() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
