"""Cut a language model's text into sentences while it is being written.

Libraries that do this want the whole text, a download, or to pull from a generator; here text is
pushed, and a sentence leaves with the first character that shows its end. Joined again, the pieces
are the text, but for white space around them and pieces without a letter or digit.

A mark of `.!?…` ends a sentence if white space and something that can begin a sentence follow; the
marks of Chinese, Japanese and Hindi need nothing after them. A full stop does not end one after an
abbreviation, an initial, the number of a list's item or, where ordinals are written so, a number.
When in doubt it waits: a sentence too long is heard as it should, one cut in two is not. But not
for ever: whoever has waited calls `pause`.
"""

__all__ = ["FIRST_MAX_CHARS", "MAX_CHARS", "Sentences", "cut"]

FIRST_MAX_CHARS = 80
"""The first piece may end at a clause from here on: until it comes the caller hears nothing."""

MAX_CHARS = 240
"""A longer sentence is cut at a clause, else at a space, else here."""

_ENDS = frozenset(".!?…")
_ENDS_AT_ONCE = frozenset("。！？｡।॥؟۔")
_CLAUSES = frozenset(",;:–—")
_CLAUSES_AT_ONCE = frozenset("、，；：،؛")
_CLOSING = frozenset("\"'”’»)]」』）】*_")
_OPENING = frozenset("\"'“‘«‹([「『（【¿¡-–—•*#_")
_OPEN_QUOTES = {"「": "」", "『": "』"}

# Abbreviations of English, German, French, Spanish, Italian, Portuguese and Dutch, lower case,
# without the last full stop. None is a word that ends sentences in another of these.
_ABBREVIATIONS = frozenset(
    "adj adm adv approx apt ave bldg blvd capt cf cie cmdr col corp cpl dept dr dra ej esq est "
    "exmo ext fig ft gen gov hon hr hrsg inc inkl kap lic lt ltd ltda maj messrs min mlle mme mr "
    "mrs ms mt nr pag prof proff rep rev sen sgt sig sra srta sr jr st sta ste tel ud uds usd vgl "
    "vol vs zzgl zit bspw bzgl evtl ggf gem geb ing lfd mag mio mrd pfc sog str bv dhr drs mevr "
    "e.g i.e z.b d.h u.a o.ä s.o s.u p.ej p.ex n.b p.s".split()
)
_MAY_END = frozenset("a.m p.m etc usw bzw ca co al ecc enz u.s.w".split())
_BEFORE_NUMBERS = frozenset("no nos nº art op pp p s abs vers sec ch".split())
_ORDINALS = frozenset("de da nb nn no fi et cs sk pl hu hr sl sr tr".split())
_LONGEST_ABBREVIATION = 8


class Sentences:
    """Feed it deltas; it returns each sentence as soon as it is complete.

    Args:
        language: ISO 639, as in ``de-AT``.
    """

    def __init__(self, language: str) -> None:
        self._has_ordinals = language.partition("-")[0] in _ORDINALS
        self._text = ""
        self._at = 0  # up to here no end was found
        self._max_chars = FIRST_MAX_CHARS

    def add(self, delta: str) -> list[str]:
        """Take more text; return the sentences that it completes."""
        self._text += delta
        pieces: list[str] = []
        while (end := self._find_end()) or (end := self._too_long()):
            self._cut(end, pieces)
        return pieces

    def pause(self) -> list[str]:
        """No more has come for a while: return what is left, if it looks like a whole sentence."""
        text = self._text.rstrip()
        at = len(text.rstrip("".join(_CLOSING))) - 1
        pieces: list[str] = []
        if at < 0 or text[at] not in _ENDS or not self._is_end(at, "A"):
            return pieces
        if text[at - 1].isdecimal() and text == self._text:  # the 3. of 3.50
            return pieces
        self._cut(len(self._text), pieces)
        return pieces

    def finish(self) -> list[str]:
        """The text has ended: return what is left."""
        pieces: list[str] = []
        self._cut(len(self._text), pieces)
        self._max_chars = FIRST_MAX_CHARS
        return pieces

    def _cut(self, end: int, pieces: list[str]) -> None:
        piece = self._text[:end].strip()
        self._text = self._text[end:]
        self._at = 0
        if any(map(str.isalnum, piece)):
            pieces.append(piece)
            self._max_chars = MAX_CHARS

    def _find_end(self) -> int:
        """Return where the first sentence ends; 0 if that is not to be seen yet."""
        text = self._text
        for at in range(self._at, len(text)):
            mark = text[at]
            if mark == "\n" and text[:at].strip():
                return at
            if mark in _ENDS_AT_ONCE and not _is_quote_open(text[:at]):
                return _after_closing(text, at + 1)
            if mark in _ENDS:
                end = _after_closing(text, at + 1)
                begin = _next_begin(text, end)
                if begin is None:  # what follows is not here yet
                    self._at = at
                    return 0
                if begin > end and self._is_end(at, text[begin]):
                    return end
        self._at = len(text)
        return 0

    def _is_end(self, at: int, follows: str) -> bool:
        """Whether the mark ends a sentence before this character, white space between them."""
        text = self._text
        if text[at] == "." and text[at - 1 : at] != ".":
            return self._is_full_stop(text[:at], follows)
        return _can_begin(follows)

    def _is_full_stop(self, before: str, follows: str) -> bool:
        word = before.split()[-1].strip("".join(_OPENING)) if before.strip() else ""
        if not word or not _can_begin(follows):
            return False
        if word.isdecimal():
            is_item = word == before.strip()
            return not is_item and not (self._has_ordinals and len(word) <= 2)
        if len(word) > _LONGEST_ABBREVIATION:
            return True
        lower = word.lower()
        if lower in _MAY_END:
            return True
        if lower in _BEFORE_NUMBERS:
            return not follows.isdecimal() and len(word) > 1
        is_initial = word[-1].isupper() and (len(word) == 1 or word[-2:-1] == ".") and word != "I"
        return lower not in _ABBREVIATIONS and not is_initial

    def _too_long(self) -> int:
        """Return where to cut a text without an end; 0 if it is not too long."""
        if len(self._text) <= self._max_chars:
            return 0
        text = self._text[: self._max_chars]
        for at in range(len(text) - 1, len(text) // 3, -1):
            is_clause = text[at] in _CLAUSES and text[at + 1 : at + 2] == " "
            if is_clause or text[at] in _CLAUSES_AT_ONCE:
                return at + 1
        if self._max_chars < MAX_CHARS:  # a first piece is cut for a clause only
            self._max_chars = MAX_CHARS
            return 0
        return max(text.rfind(" ", 1), 0) or len(text)


def cut(text: str, language: str) -> list[str]:
    """Return the sentences of a text that is all there: at least one, also of marks alone."""
    sentences = Sentences(language)
    return [*sentences.add(text), *sentences.finish()] or [text]


def _after_closing(text: str, at: int) -> int:
    while at < len(text) and (text[at] in _CLOSING or text[at] in _ENDS):
        at += 1
    if text[at + 1 : at + 2] == "»" and text.count("«", 0, at) > text.count("»", 0, at):
        return at + 2  # French puts a space before it
    return at


def _can_begin(character: str) -> bool:
    """Whether a sentence may begin so. Caseless letters, digits and pictures may."""
    return not character.islower() and (
        character in _OPENING or character not in _CLOSING | _CLAUSES | _ENDS
    )


def _next_begin(text: str, at: int) -> int | None:
    """Return where the next word begins; None if it is not here yet."""
    while at < len(text) and text[at].isspace():
        if text[at] == "\n":
            return at  # an end of its own
        at += 1
    return at if at < len(text) else None


def _is_quote_open(text: str) -> bool:
    return any(text.count(opening) > text.count(_OPEN_QUOTES[opening]) for opening in _OPEN_QUOTES)
