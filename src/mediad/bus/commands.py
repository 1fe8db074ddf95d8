"""Commands to calls, down from the control plane to the process that has them. What happens on
calls comes up as events, by `mediad.bus.bus`.

A command is a frozen dataclass of plain values (JSON could carry it) and gets one reply. It names
the customer, so that nobody reaches another one's call. `Commands` carries them within one process.
"""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal

from mediad.errors import CallLost, CommandTimeout

__all__ = [
    "TIMEOUT_S",
    "Command",
    "Commands",
    "Done",
    "Ended",
    "Expect",
    "HangUp",
    "How",
    "Inject",
    "LiveCall",
    "Look",
    "Mute",
    "Play",
    "Reply",
    "Say",
    "Who",
]

TIMEOUT_S = 2.0
"""How long a call's process may take to answer, in seconds."""

Who = Literal["caller", "agent"]


@dataclass(frozen=True, slots=True)
class Expect:
    """A call will come: its AudioSocket will bring this UUID. Replies `Done`.

    Refused as ``max_calls``, ``stopping``, or ``duplicate_uuid``.
    """

    customer_id: str
    direction: str = "inbound"
    source: str = ""
    destination: str = ""
    agent_id: str | None = None
    number_id: str | None = None
    agent_config: Mapping[str, Any] | None = None
    """The agent's, as it stands for the whole call."""
    metadata: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """Tell how a call stands. Replies `LiveCall`."""

    customer_id: str


@dataclass(frozen=True, slots=True)
class How:
    """Tell how an expected call ended, as long as that is remembered: it is known here before it is
    in the database. Replies `Ended`; a live call refuses it as ``call_lives``.
    """

    customer_id: str


@dataclass(frozen=True, slots=True)
class HangUp:
    """End a call with 0x00, so that its dialplan goes on; one that has not come is canceled.
    Replies `Done`.
    """

    customer_id: str


@dataclass(frozen=True, slots=True)
class Say:
    """Speak a text to the caller. Replies `Done`. Refused as ``not_supported`` by a call whose
    agent makes its own speech.
    """

    customer_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Play:
    """Play audio to the caller, after what is queued. Replies `Done`. Refused as ``playout_full``,
    or by a pipeline as ``too_many_texts``.

    Args:
        frame: An audio frame of the contract with agents.
        duration_ms: How long it plays.
    """

    customer_id: str
    frame: bytes
    duration_ms: int


@dataclass(frozen=True, slots=True)
class Inject:
    """Tell the agent a text as if the caller had written it. Replies `Done`."""

    customer_id: str
    text: str
    run_immediately: bool = True
    """Whether it answers at once, and stops what it is saying."""


@dataclass(frozen=True, slots=True)
class Mute:
    """Replace somebody's audio by silence, or no longer. Replies `Done`."""

    customer_id: str
    who: Who
    """caller: the agent hears silence; agent: the caller does."""
    muted: bool = True


Command = Expect | Look | How | HangUp | Say | Play | Inject | Mute


@dataclass(frozen=True, slots=True)
class Done:
    """It is done, or will be without fail."""


@dataclass(frozen=True, slots=True)
class LiveCall:
    """How a call stands."""

    state: Literal["expected", "live", "ending"]
    """expected: its AudioSocket has not come."""
    seconds: float = 0.0
    """Since its time zero."""
    speaking: tuple[Who, ...] = ()
    """Who speaks, as the agent tells it."""
    held_ms: int = 0
    """Audio that waits to be played to the caller."""
    agent: Literal["none", "connecting", "open", "slow", "reconnecting", "closed"] = "none"
    """The connection to the agent."""
    muted: tuple[Who, ...] = ()
    counters: Mapping[str, int] = field(default_factory=dict)
    """Of the line, so far."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a call has ended."""

    status: str
    hangup_by: str
    hangup_cause: str


Reply = Done | LiveCall | Ended

Handler = Callable[[str, Command], Reply]


class Commands:
    """Commands within one process. Made anywhere; `serve` belongs to the loop that has the calls,
    `send` to any other.
    """

    def __init__(self, timeout_s: float = TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._handle: Handler | None = None

    def serve(self, handle: Handler) -> None:
        """Carry out commands on the running loop from now on.

        Args:
            handle: Takes a call's id and a command, never waits, and raises what `send` does.
        """
        self._loop = asyncio.get_running_loop()
        self._handle = handle

    def stop(self) -> None:
        """Carry out no more commands: the calls are lost."""
        self._handle = None

    async def send(self, call_id: str, command: Command) -> Reply:
        """Send a command and return its reply.

        Raises:
            CallLost: If the customer has no such call that lives.
            CommandRefused: If the call cannot do that.
            CommandTimeout: If there is no reply in time. What had not begun then is not done.
        """
        if self._loop is None:
            raise CallLost(f"call {call_id}: no process has it")
        reply: Future[Reply] = Future()
        try:
            self._loop.call_soon_threadsafe(self._carry_out, call_id, command, reply)
        except RuntimeError as exc:  # the loop has just ended
            raise CallLost(f"call {call_id}: its process ends") from exc
        try:
            async with asyncio.timeout(self._timeout_s):
                return await asyncio.wrap_future(reply)
        except TimeoutError as exc:
            raise CommandTimeout(f"call {call_id} did not answer in time") from exc

    def _carry_out(self, call_id: str, command: Command, reply: Future[Reply]) -> None:
        if not reply.set_running_or_notify_cancel():
            return
        try:
            if self._handle is None:
                raise CallLost(f"call {call_id}: its process ends")
            reply.set_result(self._handle(call_id, command))
        except Exception as exc:  # whatever it is, it is for who asked
            reply.set_exception(exc)
