"""What a test needs and this machine does not have."""

import os
from typing import NoReturn

import pytest

__all__ = ["skip_or_fail"]


def skip_or_fail(reason: object) -> NoReturn:
    """Skip the test; in CI nothing may be missing, and it fails."""
    if os.environ.get("CI"):
        pytest.fail(str(reason))
    pytest.skip(str(reason))
