"""What a pipeline's agent says in one turn, from the first of its text to the last of its sound."""

import math
from collections import deque
from dataclasses import dataclass, field

from mediad.call.turn.answer import Answer
from mediad.call.turn.sentences import Sentences

__all__ = ["Reply"]


@dataclass(slots=True)
class Reply:
    """The reply of turn ``n``. Times are monotonic seconds."""

    n: int
    cutter: Sentences
    answer: Answer = field(default_factory=Answer)
    waiting: deque[str] = field(default_factory=deque)
    """Sentences that are yet to be given to the TTS service."""
    asked_at: float | None = None
    """When the TTS service was asked for the first of them."""
    is_fallback: bool = False
    may_ask: bool = True
    """Whether the TTS service may be asked; else only what was spoken before is heard."""
    is_written: bool = False
    written_at: float = math.inf
    """When the newest of its text came; infinity once it was looked at for that."""
    first_at: float | None = None
    """When the first of its audio came."""
    is_started: bool = False
    dry_since: float = math.inf
    """Since when there is nothing of it to be heard, though it was begun and is not written."""
