"""Pipecat's log, which tells the story of every frame, and greets while it is imported."""

import sys

from loguru import logger

__all__ = ["only_warnings"]


def only_warnings() -> None:
    """Leave the rest out; call it before Pipecat is imported."""
    logger.remove()
    logger.add(sys.stderr, level="WARNING")
