"""Speech over the agent, while it is undecided whether it is a barge-in."""

__all__ = ["Overlap"]


class Overlap:
    """When the caller will have spoken for how long, gaps left out.

    The gate opens about as late as it closes, so what it tells is as long as what was said.
    """

    def __init__(self) -> None:
        self._spoken_s = 0.0  # in what has ended
        self._started_at = 0.0

    def start(self, now: float) -> None:
        """The voice is there, or back."""
        self._started_at = now

    def stop(self, now: float) -> None:
        """The voice has paused."""
        self._spoken_s += now - self._started_at

    def reaches(self, spoken_s: float) -> float:
        """While there is voice: when it will have been so much, if it does not pause."""
        return self._started_at + spoken_s - self._spoken_s
