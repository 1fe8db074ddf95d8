"""How much of an answer the caller has heard, in words: what the history is cut to.

Places in audio are seconds of all audio that was ever queued for this caller: the line's
``queued_s`` and ``played_s``.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["CHARS_PER_S", "MAX_WORDS", "Heard", "Spoken", "heard"]

MAX_WORDS = 1000
"""Offsets kept of one sentence; it has fewer."""

CHARS_PER_S = 14.0
"""Of ordinary speech; of a sentence whose end has not come that is all that is known."""


class Heard(NamedTuple):
    """What was heard."""

    text: str
    estimated: bool
    """Without offsets of words: by the share of the sentence that was played."""


@dataclass(slots=True)
class Spoken:
    """One sentence on its way to the caller."""

    text: str
    start_s: float
    """Where its audio begins."""
    end_s: float
    """Where it ends, as far as it has come."""
    is_complete: bool = False
    """No more audio comes."""
    lost_s: float = 0.0
    """How much of its end is never played: it did not come, or there was no room for it."""
    words: list[tuple[str, float]] = field(default_factory=list)
    """What the TTS service said of it: text and offset in seconds from the sentence's start."""

    def add_word(self, text: str, offset_s: float) -> None:
        """Take one bot-tts-text."""
        if text.strip() and len(self.words) < MAX_WORDS:
            self.words.append((text.strip(), offset_s))


def heard(sentences: list[Spoken], played_s: float) -> Heard:
    """Return what was heard when the playout had handed out ``played_s``.

    The word whose beginning was played counts as heard.
    """
    texts: list[str] = []
    estimated = False
    for sentence in sentences:
        if sentence.start_s >= played_s:
            break
        own_s = min(played_s, sentence.end_s) - sentence.start_s
        if sentence.is_complete and sentence.end_s <= played_s and not sentence.lost_s:
            texts.append(sentence.text)
        elif sentence.words:
            texts.append(_by_offsets(sentence, own_s))
        else:
            texts.append(_by_share(sentence, own_s))
            estimated = True
    return Heard(" ".join(filter(None, texts)), estimated)


def _by_offsets(sentence: Spoken, played_s: float) -> str:
    words = [word for word, offset_s in sentence.words if offset_s < played_s]
    end = 0
    for word in words:
        at = sentence.text.find(word, end)
        if at < 0:  # the service says it in other words: "3" as "three"
            return " ".join(words)
        end = at + len(word)
    return sentence.text[:end].rstrip()


def _by_share(sentence: Spoken, played_s: float) -> str:
    length_s = sentence.end_s - sentence.start_s + sentence.lost_s
    if not sentence.is_complete:
        length_s = max(length_s, len(sentence.text) / CHARS_PER_S)
    if length_s <= 0.0:
        return ""
    text = sentence.text
    count = min(int(len(text) * played_s / length_s), len(text))
    if count == len(text) or text[count].isspace() or " " not in text:
        return text[:count].rstrip()
    return text[: text.rfind(" ", 0, count) + 1].rstrip()
