"""What the caller has said since the last turn, as the STT service tells it."""

__all__ = ["MAX_CHARS", "Words"]

MAX_CHARS = 16_384
"""More words than that of one turn are dropped."""


class Words:
    """Finals one after the other, and the interim that the next one will replace."""

    def __init__(self) -> None:
        self._finals = ""
        self._interim = ""

    def __bool__(self) -> bool:
        return bool(self._finals or self._interim)

    @property
    def is_final(self) -> bool:
        """Whether nothing is left to become final."""
        return bool(self._finals) and not self._interim

    @property
    def interim(self) -> str:
        """What may still change."""
        return self._interim

    @property
    def in_place_of_finals(self) -> str:
        """What may still change, if there is nothing else."""
        return "" if self._finals else self._interim

    def add(self, text: str, final: bool) -> None:
        """Take what was recognised; ``text`` is not empty."""
        if final:
            self._finals = f"{self._finals} {text}".strip()[:MAX_CHARS]
            self._interim = ""
        else:
            self._interim = text[:MAX_CHARS]

    def take(self, *, with_interim: bool) -> str:
        """Return the text and forget it. The interim counts if asked for, or in place of none."""
        text = self._finals
        if with_interim or not text:
            text = f"{text} {self._interim}".strip()
        self._finals = self._interim = ""
        return text
