"""What a call hears of its services. Every method is called on the media loop and never waits; none
may raise.

For a request n exactly one of ``on_…_done`` and ``on_failed`` comes, and nothing after it; for one
that was cancelled nothing comes any more, from within ``cancel`` on.
"""

from typing import Literal, NamedTuple, Protocol

from mediad.wire.service import Done, Role

__all__ = ["Failed", "LlmEvents", "ServiceEvents", "SttEvents", "Times", "TtsEvents", "Why"]

Why = Literal["unavailable", "timeout", "lost", "error", "garbage", "flood", "too_much"]
"""How a request failed:

- unavailable: no service could be asked within its budget
- timeout: the service gave no sign of life for ``timeout_s``, or no first output within the budget
- lost: the connection ended within the answer
- error: the service said so
- garbage: the service breaks the protocol
- flood: the answer has no end
- too_much: more is asked than may wait, or than fits into a message
"""


class Times(NamedTuple):
    """How long an answer took, in monotonic seconds."""

    asked_at: float
    head_at: float
    """When everything asked before had its answer; what a service takes is counted from here."""
    first_at: float | None
    """When the first of the answer came, if any came."""
    done_at: float
    tries: int
    """Connections over which it was asked; 0 for speech that the call's own service did not make.
    """
    address: str
    """Of the service that answered, without secrets; empty for speech from elsewhere."""


class Failed(NamedTuple):
    """A request will have no answer, or no more of it."""

    role: Role
    n: int
    why: Why
    message: str
    """For the log; the service's own words in it are short and quoted."""
    has_output: bool
    """Whether some of the answer has come."""


class ServiceEvents(Protocol):
    """What there is of each service."""

    def on_service_open(self, role: Role, connect_s: float) -> None:
        """A service is ready: the first of the call, or another after one was lost."""
        ...

    def on_service_lost(self, role: Role, why: str) -> None:
        """The connection is given up, and another looked for; what was asked is asked again."""
        ...

    def on_failed(self, failed: Failed) -> None:
        """A request has failed; speak the fallback, or ask anew with a larger n."""
        ...


class SttEvents(ServiceEvents, Protocol):
    """What the caller says."""

    def on_audio_dropped(self) -> None:
        """No service is ready, and another frame can be held no more: the oldest is dropped."""
        ...

    def on_interim(self, text: str) -> None:
        """The words so far since the last final; the next interim or final replaces them."""
        ...

    def on_final(self, text: str) -> None:
        """Words that are certain. They may come at any time, also before the turn has ended."""
        ...

    def on_end_of_turn(self) -> None:
        """The service itself finds that the caller's turn is over. Its finals may not be in."""
        ...

    def on_stt_done(self, n: int, times: Times) -> None:
        """All finals of turn n have come, if any."""
        ...


class LlmEvents(ServiceEvents, Protocol):
    """What the agent wants to say."""

    def on_text(self, n: int, delta: str) -> None:
        """More of the answer; the parts are joined as they are."""
        ...

    def on_llm_done(self, done: Done, times: Times) -> None:
        """The answer is complete: ``reason`` is stop, length, or tool_calls, with them in it."""
        ...


class TtsEvents(ServiceEvents, Protocol):
    """What the caller is to hear."""

    def on_audio(self, n: int, message: bytes) -> None:
        """Play this; a frame as `Line.receive_agent` takes it."""
        ...

    def on_word(self, n: int, text: str, offset_ms: int) -> None:
        """This piece of the text begins so far into the audio of n."""
        ...

    def on_tts_done(self, n: int, times: Times) -> None:
        """All audio of n has come."""
        ...
