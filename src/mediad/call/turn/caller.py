"""What a caller has said since the last turn: the voice, as the gate tells it, and the words."""

from mediad.call.turn.words import Words

__all__ = ["Caller"]

_NEVER = float("-inf")
_NOT_YET = float("inf")
_RECENT_S = 1.5  # words this long after a voice are of it


class Caller:
    """One call's. Times are monotonic seconds."""

    def __init__(self) -> None:
        self.words = Words()
        self.is_voice = False
        """Whether the gate is open."""
        self.ended_at = _NEVER
        """When the last voice ended that no turn has ended; or the last word came, without one."""
        self.spoken_s = 0.0
        """How much voice there was in this turn."""
        self.has_lost_words = False
        """Whether some of what was said in this turn will never be told."""
        self._since = 0.0
        self._untold_since = _NOT_YET  # when the first voice began that no final has followed
        self._is_soft = False  # words come, and no voice: the gate does not hear this caller

    def start(self, now: float) -> None:
        """The voice counts from now on."""
        self._is_soft = False
        self._since = now
        self._untold_since = min(self._untold_since, now)

    def stop(self, now: float, ended_at: float) -> None:
        """The gate finds now that it ended then."""
        self.ended_at = ended_at
        self.spoken_s += now - self._since

    def hear(self, text: str, final: bool, now: float) -> None:
        """Take words of this turn."""
        self.words.add(text, final)
        if final and not self.is_voice:
            self._untold_since = _NOT_YET
        if not self.is_voice and (self._is_soft or now - self.ended_at > _RECENT_S):
            self._is_soft = True
            self.ended_at = now

    def has_spoken(self, min_s: float) -> bool:
        """Tell whether it was more than a noise: a word, or voice for so long."""
        return bool(self.words) or self.spoken_s >= min_s

    def lose_words(self, before: float) -> None:
        """Nobody will tell what was said before then and since the last final, if anything was."""
        if self._untold_since <= before or self.words.interim:
            self.has_lost_words = True

    def forget_voice(self) -> None:
        """What has ended of it has its answer, or was nothing."""
        self._untold_since = self._since if self.is_voice else _NOT_YET
        self.spoken_s = 0.0
        self.has_lost_words = False

    def end_turn(self) -> None:
        """What comes now is of the next turn; the words are yet to be taken."""
        self._is_soft = False
        self.ended_at = _NEVER
