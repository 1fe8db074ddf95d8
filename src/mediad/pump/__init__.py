"""The compiled way of frames past asyncio: `open_pump` gives one, where it was built.

asyncio connects, accepts and closes sockets, and does TLS. In between, a plain socket's bytes are
read, parsed, sent and ticked by a `Path`, which calls up here only for what is no audio. Without
the pump (``MEDIAD_CORE=python``, not Linux, ``wss://``) the sockets simply stay with asyncio.
"""

import asyncio
import os
from typing import TYPE_CHECKING, Protocol

from mediad.errors import ConfigError
from mediad.line import CORE, CallerItem
from mediad.media.playout import PlayoutEvent

__all__ = ["HAS_PUMP", "AgentOwner", "Call", "CallerOwner", "Path", "Pump", "open_pump"]


def _find_pump() -> bool:
    if CORE == "python":
        return False
    try:
        import mediad.pump._pump  # noqa: F401
    except ImportError as exc:
        if os.environ.get("MEDIAD_CORE") == "require":
            raise ConfigError(
                f"MEDIAD_CORE=require, but the compiled pump cannot be loaded ({exc})"
            ) from exc
        return False
    return True


HAS_PUMP = _find_pump()
"""Whether `open_pump` gives one."""

if TYPE_CHECKING or HAS_PUMP:
    from mediad.pump._pump import Path, Pump
else:
    Path = Pump = type(None)  # there never is one


class Call(Protocol):
    """Whose path it is. Nothing here waits, nor does an owner."""

    def receive(self, items: list[CallerItem]) -> None:
        """Take what the line made of the caller's bytes: not the audio that the agent got."""
        ...

    def tick(self, now: float) -> None:
        """Do all of a tick; called while the path asks for it, or has no caller."""
        ...

    def on_playout(self, events: list[PlayoutEvent], now: float) -> None:
        """Hear of what a tick has played."""
        ...

    def fail(self) -> None:
        """A callback raised, and that was logged: end the call."""
        ...


class CallerOwner(Protocol):
    """Who has the caller's socket from asyncio."""

    def on_path_end(self, error: int) -> None:
        """Take the socket back: it is at its end (0), or broken (an errno)."""
        ...

    def drop_audio(self) -> None:
        """Count 20 ms that the caller's socket did not take."""
        ...


class AgentOwner(Protocol):
    """Who has the agent's socket from asyncio, and does the WebSocket's protocol."""

    def take_frame(self, opcode: int, fin: bool, payload: bytes) -> None:
        """Take a WebSocket frame."""
        ...

    def on_path_end(self) -> None:
        """Take the socket back: it is at its end, or broken."""
        ...

    def on_path_violation(self, code: int) -> None:
        """The agent broke the protocol: close the connection with this code."""
        ...

    def withhold_audio(self) -> None:
        """Count a frame that the agent's socket did not take."""
        ...


def open_pump() -> Pump | None:
    """Return a pump for the running loop, None where it was not built."""
    return Pump(asyncio.get_running_loop()) if HAS_PUMP else None
