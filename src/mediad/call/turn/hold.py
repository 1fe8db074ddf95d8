"""Why the playout is held; it goes on when no reason is left."""

from mediad.call.turn.actions import Action, PausePlayout, ResumePlayout

__all__ = ["Hold"]


class Hold:
    """One call's. What changes the playout is returned."""

    def __init__(self) -> None:
        self._reasons: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._reasons)

    def add(self, why: str) -> list[Action]:
        """There is a reason."""
        is_first = not self._reasons
        self._reasons.add(why)
        return [PausePlayout()] if is_first else []

    def drop(self, why: str, *, repeat: bool) -> list[Action]:
        """There is this reason no more; ``repeat`` is the playout's, should it go on."""
        is_last = self._reasons == {why}
        self._reasons.discard(why)
        return [ResumePlayout(repeat)] if is_last else []

    def end(self) -> list[Action]:
        """There is none."""
        was_held = bool(self._reasons)
        self._reasons.clear()
        return [ResumePlayout(repeat=False)] if was_held else []

    def forget(self) -> None:
        """A flush has ended it."""
        self._reasons.clear()
