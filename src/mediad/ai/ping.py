"""Whether an agent keeps up with what it is sent: pings, and when they are answered. No socket, no
clock: the owner beats once per interval and says what time it is.

state     audio         leaves when
prompt    is sent       a ping is not answered before the next beat: slow
slow      is withheld   a ping that was sent in this state is answered: prompt
                        a ping is not answered for `LOST_BEATS` beats: lost
lost      the connection is ended

An answer says that everything sent before the ping has been read. So an agent that was slow gets
audio again only when it has none left to read, and hears what is said now.

Beats are counted, and not seconds: when this process did not run for a while, the answers that came
meanwhile are read before the next beat.
"""

__all__ = ["LOST_BEATS", "Pings"]

LOST_BEATS = 5
"""Beats after which an agent that has not answered a ping is given up."""


class Pings:
    """The pings of one connection; one at a time is unanswered."""

    def __init__(self) -> None:
        self.is_slow = False
        """Whether audio is withheld."""
        self._number = 0
        self._unanswered: bytes | None = None  # the payload
        self._sent_at = 0.0  # of that ping
        self._beats = 0  # without its answer
        self._follows_all = False  # it was sent when audio was withheld already

    @property
    def is_lost(self) -> bool:
        """Whether the agent is to be given up."""
        return self._beats >= LOST_BEATS

    def beat(self, now: float) -> bytes | None:
        """Return the payload of the ping to send now, in monotonic seconds; None while one is
        unanswered.
        """
        if self._unanswered is None:
            return self.ping(now)
        self._beats += 1
        self.is_slow = True
        return None

    def ping(self, now: float) -> bytes:
        """Return the payload of a ping that is sent now."""
        self._number += 1
        self._unanswered = payload = self._number.to_bytes(4, "big")
        self._sent_at = now
        self._follows_all = self.is_slow
        return payload

    def answer(self, payload: bytes, now: float) -> float | None:
        """Take a pong; return the round trip in seconds, None when it answers nothing."""
        if payload != self._unanswered:
            return None
        self._unanswered = None
        self._beats = 0
        if self._follows_all:
            self.is_slow = False
        return now - self._sent_at
