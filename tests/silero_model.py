"""Silero's model, which comes with mediad[agent]."""

from pathlib import Path

from mediad.ai.silero import find_model
from tests.missing import skip_or_fail

__all__ = ["silero_model"]


def silero_model() -> Path:
    """Return the model's file; without it the test is skipped."""
    found = find_model()
    if found is None:
        skip_or_fail("Silero's model is not installed: pip install -e '.[agent,dev]'")
    return found
