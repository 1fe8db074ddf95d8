"""One answer of the agent on its way from text to ear: which sentences were asked for, where their
audio lies, and from that when it begins, when it ends, and what of it was heard.

Places are the line's ``queued_s`` and ``played_s``.
"""

import math

from mediad.call.turn.heard import CHARS_PER_S, Heard, Spoken, heard

__all__ = ["Answer"]

_SOME_S = 0.1  # of a sentence whose end did not come, something is missing


class Answer:
    """Sentences are known by the number under which the TTS service was asked for them."""

    def __init__(self) -> None:
        self._sentences: dict[int, Spoken] = {}
        self._is_written = False

    def add(self, n: int, text: str) -> None:
        """A sentence was given to the TTS service as its request ``n``."""
        self._sentences[n] = Spoken(text, math.inf, math.inf)

    def end(self) -> None:
        """No more sentences come."""
        self._is_written = True

    def on_audio(self, n: int, start_s: float, end_s: float) -> None:
        """Audio of a sentence was queued from here to there."""
        sentence = self._sentences.get(n)
        if sentence is not None:
            sentence.start_s = min(sentence.start_s, start_s)
            sentence.end_s = end_s

    def on_word(self, n: int, text: str, offset_s: float) -> None:
        """A word begins so far into its sentence."""
        sentence = self._sentences.get(n)
        if sentence is not None:
            sentence.add_word(text, offset_s)

    def on_done(self, n: int) -> None:
        """All audio of a sentence was queued; there may be none."""
        sentence = self._sentences.get(n)
        if sentence is None:
            return
        sentence.is_complete = True
        if sentence.end_s == math.inf:
            del self._sentences[n]

    def on_lost(self, n: int, lost_s: float) -> None:
        """So much of a sentence came, and will not be played."""
        sentence = self._sentences.get(n)
        if sentence is not None:
            sentence.lost_s += lost_s

    def give_up(self) -> None:
        """No more audio comes of any sentence, nor are there more of them."""
        for n, sentence in list(self._sentences.items()):
            if not sentence.is_complete and sentence.end_s < math.inf:
                came_s = sentence.end_s - sentence.start_s
                sentence.lost_s += max(len(sentence.text) / CHARS_PER_S - came_s, _SOME_S)
            self.on_done(n)
        self.end()

    def has_started(self, played_s: float) -> bool:
        """Whether its first frame was played."""
        return any(sentence.start_s < played_s for sentence in self._sentences.values())

    def has_finished(self, played_s: float) -> bool:
        """Whether all of it was played; at once, if there is nothing to play."""
        return self._is_written and all(
            sentence.is_complete and sentence.end_s <= played_s
            for sentence in self._sentences.values()
        )

    def heard(self, played_s: float) -> Heard:
        """Return what the caller has heard of it."""
        return heard(list(self._sentences.values()), played_s)
