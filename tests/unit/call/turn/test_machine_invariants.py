"""Whatever happens, in whatever order: what must always hold of the turn machine."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from mediad.call.turn.actions import (
    Action,
    AddWords,
    AskWords,
    CancelTurn,
    Ended,
    EndOfTurn,
    Generate,
    GiveUp,
    PausePlayout,
    ResumePlayout,
    Say,
    TurnEnded,
    WordsLost,
)
from mediad.call.turn.machine import State, Turns
from mediad.call.turn.options import EndBy, TurnOptions
from mediad.call.turn.words import MAX_CHARS

OPTIONS = st.builds(
    TurnOptions,
    user_start_first=st.booleans(),
    has_first_message=st.booleans(),
    interruption_allowed=st.booleans(),
    response_delay_s=st.sampled_from([0.0, 0.5, 2.0]),
    session_timeout_s=st.just(120.0),
    end_by=st.sampled_from(EndBy),
    grace_s=st.sampled_from([0.0, 0.5]),
)
STEPS_S = st.sampled_from([0.0, 0.01, 0.02, 0.1, 0.3, 0.8, 1.1, 3.0, 9.0])


class AnyCall(RuleBasedStateMachine):
    """A call on which everything may happen at any time."""

    @initialize(options=OPTIONS)
    def begin(self, options: TurnOptions) -> None:
        """The call is up."""
        self.now = 0.0
        self.turns = Turns(options, 0.0)
        self.is_voice = False
        self.open_n: int | None = None
        self.last_n = 0
        self.is_held = False
        self.has_floor = False  # the caller, by a barge-in
        self.is_over = False
        self.do(self.turns.start(0.0))

    @rule(step_s=STEPS_S)
    def wait(self, step_s: float) -> None:
        """Time passes as ticks of 20 ms would let it."""
        until = self.now + step_s
        while self.turns.due <= until:
            self.now = max(self.now, self.turns.due)
            self.do(self.turns.tick(self.now))
        assert self.turns.tick(until) == []
        self.now = until

    @rule()
    def voice(self) -> None:
        """The gate opens or closes."""
        self.is_voice = not self.is_voice
        if self.is_voice:
            self.do(self.turns.on_voice_started(self.now))
        else:
            self.do(self.turns.on_voice_stopped(self.now, 0.1))

    @rule(text=st.sampled_from(["", "no", "yes please", "x" * 9000]), final=st.booleans())
    def words(self, text: str, final: bool) -> None:
        """The STT service has something."""
        self.do(self.turns.on_words(text, final, self.now))

    @rule()
    def typed(self) -> None:
        """The caller presses a key."""
        self.do(self.turns.on_typed("5", self.now))

    @rule(back=st.integers(0, 2))
    def done(self, back: int) -> None:
        """The STT service has done with a turn, perhaps an old one."""
        self.do(self.turns.on_stt_done(self.turns.turn - back, self.now))

    @rule()
    def stt_end(self) -> None:
        """The STT service thinks the caller has finished."""
        self.do(self.turns.on_stt_end_of_turn(self.now))

    @rule(back=st.integers(0, 1))
    def heard(self, back: int) -> None:
        """A turn's first frame; none while the playout is held."""
        if not self.is_held:
            self.do(self.turns.on_agent_started(self.turns.turn - back, self.now))

    @rule(back=st.integers(0, 1))
    def finished(self, back: int) -> None:
        """A turn's last frame."""
        self.do(self.turns.on_agent_finished(self.turns.turn - back, self.now))

    @rule(back=st.integers(0, 1))
    def last(self, back: int) -> None:
        """The agent wants to hang up."""
        self.turns.on_last_answer(self.turns.turn - back)

    @rule(back=st.integers(0, 1))
    def failed(self, back: int) -> None:
        """A service fails."""
        self.do(self.turns.on_failed(self.turns.turn - back, self.now))

    @rule(back=st.integers(0, 1))
    def stt_failed(self, back: int) -> None:
        """The STT service does not tell a turn's words."""
        self.do(self.turns.on_stt_failed(self.turns.turn - back, self.now))

    @rule(held_s=st.sampled_from([0.0, 1.0]))
    def stt_lost(self, held_s: float) -> None:
        """The STT service is gone, or still away."""
        self.turns.on_audio_lost(self.now - held_s)

    @rule()
    def text(self) -> None:
        """Somebody has a text for the caller."""
        self.do(self.turns.on_text_to_say(self.now))

    def do(self, actions: list[Action]) -> None:
        """Check each action as it would be done."""
        for action in actions:
            assert not self.is_over, "nothing follows the end"
            match action:
                case AskWords(n):
                    assert n > self.last_n, "numbers rise"
                    self.last_n = n
                case EndOfTurn(n):
                    self.has_floor = False
                    self.open_turn(n)
                case Generate(n) | Say(n):
                    assert not (self.has_floor and self.is_voice), "the caller has the floor"
                    self.has_floor = False
                    if n != self.open_n:
                        self.open_turn(n)
                case PausePlayout():
                    assert not self.is_held
                    self.is_held = True
                case ResumePlayout():
                    assert self.is_held
                    assert not self.has_floor
                    self.is_held = False
                case CancelTurn(n):
                    assert n == self.open_n
                    self.is_held = False
                case TurnEnded(n, how):
                    assert n == self.open_n, "a turn ends once"
                    self.open_n = None
                    self.has_floor = how in (Ended.INTERRUPTED, Ended.CONTINUED)
                case WordsLost(n):
                    assert n == self.open_n
                case AddWords(text):
                    assert text
                case GiveUp():
                    assert self.open_n is None
                    self.is_over = True

    def open_turn(self, n: int) -> None:
        """A new turn may begin when the one before has ended."""
        assert self.open_n is None
        assert n > self.last_n, "numbers rise"
        self.open_n = self.last_n = n

    @invariant()
    def state_fits(self) -> None:
        """The agent's states have a turn, the others have none."""
        is_agents = self.turns.state in (State.THINKING, State.AGENT)
        assert is_agents == (self.open_n is not None)
        assert self.is_over == (self.turns.state is State.OVER)
        assert not self.is_held or is_agents

    @invariant()
    def memory_is_bounded(self) -> None:
        """Nothing that a peer sends piles up."""
        assert len(self.turns._timers) <= 12
        assert len(self.turns._caller.words._finals) <= MAX_CHARS
        assert len(self.turns._caller.words._interim) <= MAX_CHARS

    @invariant()
    def something_is_always_due(self) -> None:
        """No call waits for ever."""
        assert self.is_over or self.turns.due < float("inf")


AnyCall.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAnyCall = AnyCall.TestCase
