"""How much speech may be asked for before it is heard. Pure.

A long answer is written far sooner than it is heard. What waits for its turn does so as text: the
playout holds so much audio and refuses what is more, and most of it may be cut off by a barge-in.
How long a sentence will be is estimated from its text, until its audio has come.
"""

from collections.abc import Collection
from dataclasses import dataclass

from mediad.call.turn.heard import CHARS_PER_S

__all__ = ["MAX_AHEAD_S", "MAX_COMING", "Ahead", "Coming"]

MAX_AHEAD_S = 20.0
"""Audio that waits to be played, or may come, in seconds."""

MAX_COMING = 8
"""Sentences that the TTS service has not finished."""

_SHARE = 0.75  # of the playout: an estimate is no measure
_PAUSE_S = 0.3  # around a sentence
_DRY_S = 0.5  # so much is left for a service to begin in


@dataclass(slots=True)
class Coming:
    """A sentence that was asked for, and is not all there."""

    text: str
    length_s: float
    """As estimated."""
    came_s: float = 0.0
    is_cut: bool = False
    """The playout was full: the rest of it is not played."""

    @property
    def left_s(self) -> float:
        """How much is yet to come, as far as that can be told."""
        return max(self.length_s - self.came_s, 0.0)


class Ahead:
    """One call's.

    Args:
        playout_max_s: What the playout holds, in seconds.
        rate: How fast the voice speaks, 1.0 being its own pace.
    """

    def __init__(self, playout_max_s: float, rate: float) -> None:
        self._max_s = min(MAX_AHEAD_S, playout_max_s * _SHARE)
        self._s_per_char = 1 / (CHARS_PER_S * rate)
        self._chars = 0  # of what was spoken
        self._spoken_s = 0.0

    def length_s(self, text: str) -> float:
        """Estimate how long a text is when it is spoken."""
        pace = max(self._s_per_char, self._spoken_s / max(self._chars, 1))
        return len(text) * pace + _PAUSE_S

    def learn(self, text: str, spoken_s: float) -> None:
        """A text was so long: this voice may be slower than others."""
        self._chars += len(text)
        self._spoken_s += spoken_s

    def has_room(self, text: str, held_s: float, coming: Collection[Coming]) -> bool:
        """Tell whether a text may be asked for now.

        Args:
            text: It.
            held_s: What waits in the playout.
            coming: What was asked for before it.
        """
        if not coming and held_s < _DRY_S:  # it does not get better, however long the text is
            return True
        ahead_s = held_s + sum(one.left_s for one in coming)
        return len(coming) < MAX_COMING and ahead_s + self.length_s(text) <= self._max_s
