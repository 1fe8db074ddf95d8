"""One call's line and its gate: the compiled core where it was built, else the specifications in
Python.

The environment's ``MEDIAD_CORE`` decides when mediad is built and when it runs: ``require`` fails
without the compiled core, ``auto`` (the default) takes it where it is, ``python`` does not use it.
"""

import os
from typing import TYPE_CHECKING

from mediad.errors import ConfigError
from mediad.line.line import AGENT_RATE_HZ, CallerItem, Counters, Tick

__all__ = ["AGENT_RATE_HZ", "CORE", "CallerItem", "Counters", "Gate", "Line", "PlayoutRoom", "Tick"]

_CHOICES = ("require", "auto", "python")


def _choose_core() -> str:
    choice = os.environ.get("MEDIAD_CORE") or "auto"
    if choice not in _CHOICES:
        raise ConfigError(f"MEDIAD_CORE is {choice!r}; it must be one of {', '.join(_CHOICES)}")
    if choice != "python":
        try:
            import mediad.line._core  # noqa: F401
        except ImportError as exc:
            if choice == "require":
                raise ConfigError(
                    "MEDIAD_CORE=require, but the compiled core cannot be loaded "
                    f"({exc}); build it with a C compiler: MEDIAD_CORE=require pip install ."
                ) from exc
            return "python"
        return "compiled"
    return "python"


CORE = _choose_core()
"""Which line runs: ``compiled`` or ``python``."""

if TYPE_CHECKING or CORE == "python":
    from mediad.line.line import Line
    from mediad.media.playout import PlayoutRoom
    from mediad.media.vad import Gate
else:
    from mediad.line._core import Gate, Line, PlayoutRoom
