"""What the tests need of the other side: an AudioSocket server and the agent behind it.

The tests know only these two protocols; the fixture ``server`` in conftest.py says who plays them.
"""

from typing import Protocol

PLAY_RATE_HZ = 16_000


class AgentCall(Protocol):
    """One call, as the agent sees it."""

    @property
    def heard_rate_hz(self) -> int:
        """The rate of what heard() returns."""

    @property
    def dtmf(self) -> str:
        """The keys that the caller has pressed, oldest first."""

    def heard(self) -> bytes:
        """Return all that the agent has heard so far, s16le mono."""

    async def play(self, pcm: bytes) -> None:
        """Say this to the caller (s16le mono at PLAY_RATE_HZ); may return before it was heard."""

    async def hang_up(self) -> None:
        """End the call from the agent's side: Asterisk gets 0x00."""

    async def wait_ended(self) -> None:
        """Return once the call is over for the agent; at once if it already is."""


class Server(Protocol):
    """An AudioSocket server with an agent behind it."""

    @property
    def host(self) -> str:
        """Where Asterisk connects to."""

    @property
    def port(self) -> int:
        """Where Asterisk connects to."""

    async def wait_call(self, call_id: str) -> AgentCall:
        """Return the call with this UUID, once its agent is there."""
