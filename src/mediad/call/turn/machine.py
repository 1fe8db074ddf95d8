"""The turns of one call: what is heard goes in, what is to be done comes out.

    state      meaning                          leaves when                          next
    silent     nobody speaks                    voice, or a word                     speaking
                                                nobody speaks for long: `Say`        thinking
    speaking   the caller has the floor         silence, or the STT says so:         thinking
                                                `EndOfTurn`
    thinking   first the STT's finals are       no word: the turn is empty           silent
               awaited, then the answer's       its first frame is played            agent
               first frame
    agent      the agent is heard               it has finished                      silent
    over       `GiveUp` was told                never

While the state is thinking or agent, voice is an overlap: the playout is held at once, and
- a word, or 700 ms of voice, makes it a barge-in: the turn is cancelled, the caller has the floor;
- quiet of 250 ms makes it noise: the playout goes on.

A service that fails, or says not even that (`Overdue`), or was lost with what the caller has said
(`WordsLost`), ends the turn; a fallback follows.
"""

from collections.abc import Callable

from mediad.call.turn import actions as act
from mediad.call.turn.actions import Action, Ended, Speech, Why
from mediad.call.turn.caller import Caller
from mediad.call.turn.hold import Hold
from mediad.call.turn.options import EndBy, TurnOptions
from mediad.call.turn.overlap import Overlap
from mediad.call.turn.states import OF_A_TURN, State, Timer

__all__ = ["MAX_GO_ON", "State", "Turns"]

MAX_GO_ON = 2
"""How often in a row an answer that noise has cut short is taken up again."""

_STALE_S = 2.0  # how long after its time-out a final may still come
_POSTPONED_S = 1.0


class Turns:
    """Feed it what happens, in order, and do the actions that each call returns.

    `tick` is to be called when `due` has come; earlier does nothing.
    """

    def __init__(self, options: TurnOptions, now: float) -> None:
        self._options = options
        self.state = State.SILENT
        self._n = 0  # the newest number
        self.turn = 0
        """The newest turn's number."""
        self._is_open = False  # that turn: not ended
        self._speech: Speech | None = None  # what it says, if it is no answer
        self._is_last = False  # the call ends with it
        self._greeted = False
        self._out: list[Action] = []
        self._timers = {Timer.SESSION: now + options.session_timeout_s}
        self._grace_until = now + options.grace_s
        self._caller = Caller()
        self._stale_words = ""  # the interim that was answered
        self._overlap: Overlap | None = None
        self._hold = Hold()
        self._cut_by_noise = False  # the agent was, it seems: no word has come since
        self._may_go_on = False  # it was an answer
        self._go_ons = self._failures = self._no_inputs = 0
        self._texts = 0  # that wait to be said

    # What happens

    def start(self, now: float) -> list[Action]:
        """The call can be heard both ways."""
        if self._options.user_start_first:
            self._be_silent(now)
        elif self._options.has_first_message:
            self._say(Speech.FIRST_MESSAGE, 1, now)
        else:
            self._generate(Why.OPEN, "", now)
        return self._take()

    @property
    def due(self) -> float:
        """When `tick` has something to do."""
        return min(self._timers.values(), default=float("inf"))

    def tick(self, now: float) -> list[Action]:
        """Let time pass."""
        while self._timers:
            timer = min(self._timers, key=self._timers.__getitem__)
            if self._timers[timer] > now:
                break
            del self._timers[timer]
            _HANDLERS[timer](self, now)
        return self._take()

    def on_voice_started(self, now: float) -> list[Action]:
        """The caller has begun to speak."""
        if self.state is not State.OVER and not self._caller.is_voice:
            self._caller.is_voice = True
            if now < self._grace_until:
                self._timers[Timer.GRACE] = self._grace_until
            else:
                self._voice_started(now)
        return self._take()

    def on_voice_stopped(self, now: float, quiet_s: float) -> list[Action]:
        """The caller has been quiet for ``quiet_s``."""
        if self.state is not State.OVER and self._caller.is_voice:
            self._caller.is_voice = False
            if self._timers.pop(Timer.GRACE, None) is None:
                self._voice_stopped(now, now - quiet_s)
        return self._take()

    def on_words(self, text: str, final: bool, now: float) -> list[Action]:
        """The STT service has recognised something."""
        may_be_late = Timer.STALE in self._timers and self._overlap is None
        if not (may_be_late and self._is_agents and not self._awaits_finals):
            self._take_words(text.strip(), final, now)
        elif final and (text := text.strip()):
            self._out.append(act.AddWords(text, self._stale_words))
            self._stale_words = ""
        return self._take()

    def on_typed(self, text: str, now: float) -> list[Action]:
        """The caller has pressed a key, or a text counts as the caller's: certain, and of now."""
        self._caller.has_lost_words = False  # this is answered, whatever else was said
        self._take_words(text.strip(), True, now)
        return self._take()

    def on_stt_done(self, n: int, now: float) -> list[Action]:
        """The STT service has sent all finals of turn ``n``."""
        if n == self.turn:
            self._timers.pop(Timer.STALE, None)
            if self._awaits_finals:
                self._stale_words = self._caller.words.in_place_of_finals
                self._answer(self._caller.words.take(with_interim=False), now)
            self._let_stand()
        return self._take()

    def on_stt_end_of_turn(self, now: float) -> list[Action]:
        """The STT service says that the caller has finished."""
        if self.state is State.SPEAKING and self._options.end_by is not EndBy.SILENCE:
            self._end_turn("stt", now)
        return self._take()

    def on_agent_started(self, n: int, now: float) -> list[Action]:
        """The first frame of turn ``n`` was handed to the caller."""
        if n == self.turn and self.state is State.THINKING:
            self._timers.pop(Timer.ANSWER, None)
            self.state = State.AGENT
        return self._take()

    def on_last_answer(self, n: int) -> None:
        """The agent wants to end the call when turn ``n`` was heard, unless the caller speaks."""
        if n == self.turn and self._is_agents:
            self._is_last = True

    def on_agent_finished(self, n: int, now: float) -> list[Action]:
        """All of turn ``n`` was played; or, before its start: there is nothing to play."""
        if n == self.turn and self._is_last:
            self._end(Ended.FINISHED)
            self._out += self._hold.end()
            self._give_up("hang_up")
        elif n == self.turn and self.state is State.AGENT:
            if self._speech is not Speech.FALLBACK:
                self._failures = 0
            self._go_ons = 0
            self._end(Ended.FINISHED)
            self._after_agent(now)
        elif n == self.turn and self.state is State.THINKING and not self._awaits_finals:
            self._fail(now)
        return self._take()

    def on_failed(self, n: int, now: float) -> list[Action]:
        """A service cannot do its part of turn ``n``."""
        if n == self.turn and self._is_agents:
            self._fail(now)
        return self._take()

    def on_stt_failed(self, n: int, now: float) -> list[Action]:
        """The STT service will not tell, or not to its end, what was said in turn ``n``. That is
        nothing when the turn was answered meanwhile.
        """
        if n == self.turn and self._awaits_finals:
            if not self._caller.is_voice:
                self._caller.words.take(with_interim=True)  # half of it is not answered later
                self._caller.forget_voice()
            self._fail(now)
        return self._take()

    def on_hung_up(self) -> list[Action]:
        """The call is over."""
        self._let_stand()
        return self._take()

    def on_audio_lost(self, before: float) -> None:
        """Nobody will tell what the caller said before then and the STT service has not told: it is
        gone. Another may be there before the turn has ended, which has failed all the same.
        """
        self._caller.lose_words(before)

    def on_text_to_say(self, now: float) -> list[Action]:
        """Somebody has a text, or a file, for the caller: `Say` follows when nobody speaks."""
        if self.state is not State.OVER:
            self._texts += 1
            if self.state is State.SILENT:
                self._be_silent(now)
        return self._take()

    def _take(self) -> list[Action]:
        out, self._out = self._out, []
        return out

    # The caller

    @property
    def _is_agents(self) -> bool:
        return self.state in (State.THINKING, State.AGENT)

    @property
    def _may_interrupt(self) -> bool:
        """Before its first frame an answer may always be stopped: the caller has not finished."""
        is_unheard_answer = self.state is State.THINKING and self._speech is None
        return self._options.interruption_allowed or is_unheard_answer

    @property
    def _awaits_finals(self) -> bool:
        return Timer.FINALS in self._timers

    def _voice_started(self, now: float) -> None:
        self._out.append(act.CallerStarted())
        self._caller.start(now)
        if self.state is State.SILENT:
            self._give_floor(now)
        elif self.state is State.SPEAKING:
            self._timers.pop(Timer.SILENCE, None)
        elif self._may_interrupt:
            self._overlap_started(now)

    def _voice_stopped(self, now: float, ended_at: float) -> None:
        self._out.append(act.CallerStopped())
        self._caller.stop(now, ended_at)
        if self.state is State.SPEAKING:
            self._await_silence(now)
        elif self._is_agents:
            self._out.append(act.AskWords(self._next_number()))
        if self._overlap is not None:
            self._overlap.stop(now)
            self._timers.pop(Timer.FINAL, None)
            self._timers[Timer.RESUME] = ended_at + self._options.resume_after_s

    def _take_words(self, text: str, final: bool, now: float) -> None:
        if not text or self.state is State.OVER:
            return
        if self._timers.pop(Timer.GRACE, None) is not None:
            self._voice_started(now)
        if self._awaits_finals:
            self._caller.words.add(text, final)
            self._timers.setdefault(Timer.PATIENCE, now + self._options.finals_patience_s)
        else:
            self._let_stand()
            self._new_words(text, final, now)

    def _new_words(self, text: str, final: bool, now: float) -> None:
        self._caller.hear(text, final, now)
        if self._is_agents:
            if self._may_interrupt:
                self._barge_in(now)
        elif not self._caller.is_voice:
            self._give_floor(now)

    def _give_floor(self, now: float) -> None:
        self._timers.pop(Timer.NO_INPUT, None)
        self._timers.setdefault(Timer.LENGTH, now + self._options.max_speech_s)
        self.state = State.SPEAKING
        if not self._caller.is_voice:
            self._await_silence(now)

    def _await_silence(self, now: float) -> None:
        options = self._options
        silence_s = options.stt_patience_s if options.end_by is EndBy.STT else options.end_silence_s
        self._timers[Timer.SILENCE] = max(self._caller.ended_at + silence_s, now)

    def _silence(self, now: float) -> None:
        if self._caller.has_spoken(self._options.min_speech_s):
            self._end_turn("silence", now)
        else:
            self._timers.pop(Timer.LENGTH, None)
            self._go_on_or_be_silent(now)

    def _end_turn(self, by: str, now: float) -> None:
        self._timers.pop(Timer.SILENCE, None)
        self._timers.pop(Timer.LENGTH, None)
        self._open_turn()
        if delay_s := self._options.response_delay_s:
            self._out += self._hold.add("delay")
            self._timers[Timer.DELAY] = now + delay_s
        self._caller.end_turn()
        self._out.append(act.EndOfTurn(self.turn, by))
        if by == "stt" and self._caller.words.is_final:
            self._answer(self._caller.words.take(with_interim=False), now)
        else:
            self._timers[Timer.FINALS] = now + self._options.finals_timeout_s
            if self._caller.words:
                self._timers[Timer.PATIENCE] = now + self._options.finals_patience_s

    def _finals_late(self, now: float) -> None:
        self._let_stand()
        self._timers[Timer.STALE] = now + _STALE_S
        self._stale_words = self._caller.words.interim
        self._answer(self._caller.words.take(with_interim=True), now)

    def _let_stand(self) -> None:
        """No final comes for the interim that was answered."""
        if self._stale_words:
            self._out.append(act.WordsStand(self._stale_words))
            self._stale_words = ""

    def _overdue(self, now: float, *, awaits_words: bool) -> None:
        self._out.append(act.Overdue(self.turn, awaits_words))
        self._fail(now)

    # The agent

    def _answer(self, text: str, now: float) -> None:
        self._timers.pop(Timer.PATIENCE, None)
        self._timers.pop(Timer.FINALS, None)
        has_lost_words = self._caller.has_lost_words
        self._caller.forget_voice()
        if has_lost_words:
            self._out.append(act.WordsLost(self.turn))
            self._fail(now)
            return
        if not text:
            self._end(Ended.EMPTY)
            self._out += self._hold.end()
            if self._overlap is not None:
                self._continue(now)
            else:
                self._go_on_or_be_silent(now)
            return
        self._cut_by_noise = False
        self._no_inputs = 0
        if self._options.has_first_message and not self._greeted:
            self._out.append(act.AddWords(text))
            self._say(Speech.FIRST_MESSAGE, 1, now)
        else:
            self._generate(Why.ANSWER, text, now)

    def _go_on_or_be_silent(self, now: float) -> None:
        was_noise, self._cut_by_noise = self._cut_by_noise, False
        if was_noise:
            self._out.append(act.WasNoise())
        if was_noise and self._may_go_on and self._go_ons < MAX_GO_ON:
            self._go_ons += 1
            self._caller.forget_voice()
            self._generate(Why.GO_ON, "", now)
        else:
            self._be_silent(now)

    def _be_silent(self, now: float) -> None:
        self.state = State.SILENT
        self._caller.forget_voice()
        self._timers[Timer.NO_INPUT] = now + self._options.no_input_s
        if self._texts:
            self._texts -= 1
            self._timers.pop(Timer.NO_INPUT)
            self._say(Speech.TEXT, 1, now)

    def _no_input(self, now: float) -> None:
        if self._options.has_first_message and not self._greeted:
            self._say(Speech.FIRST_MESSAGE, 1, now)
        elif self._no_inputs < self._options.max_no_input:
            self._no_inputs += 1
            self._say(Speech.NO_INPUT, self._no_inputs, now)
        else:
            self._give_up("no_input")

    def _say(self, speech: Speech, nth: int, now: float) -> None:
        self._greeted = self._greeted or speech is Speech.FIRST_MESSAGE
        self._begin_answer(speech, now)
        self._out.append(act.Say(self.turn, speech, nth))

    def _generate(self, why: Why, text: str, now: float) -> None:
        self._begin_answer(None, now)
        self._out.append(act.Generate(self.turn, why, text))

    def _begin_answer(self, speech: Speech | None, now: float) -> None:
        self._open_turn()
        self._speech = speech
        options = self._options
        timeout_s = options.answer_timeout_s if speech is None else options.speech_timeout_s
        self._timers[Timer.ANSWER] = now + timeout_s

    def _next_number(self) -> int:
        self._n += 1
        return self._n

    def _open_turn(self) -> None:
        if not self._is_open:
            self.turn = self._next_number()
            self._is_open = True
            self._speech = None
        self.state = State.THINKING

    def _end(self, how: Ended) -> None:
        self._is_open = self._is_last = False
        for timer in OF_A_TURN:
            self._timers.pop(timer, None)
        self._out.append(act.TurnEnded(self.turn, how))

    def _cancel(self, how: Ended) -> None:
        self._hold.forget()
        self._out.append(act.CancelTurn(self.turn, how))
        self._end(how)

    def _after_agent(self, now: float) -> None:
        self._out += self._hold.end()
        if self._overlap is not None or self._caller.words or self._caller.is_voice:
            self._continue(now)
        else:
            self._be_silent(now)

    def _continue(self, now: float) -> None:
        """Give the floor to a caller who has already begun."""
        self._overlap = None
        self._give_floor(now)

    # Overlaps

    def _overlap_started(self, now: float) -> None:
        self._timers.pop(Timer.RESUME, None)
        if self._overlap is None:
            self._overlap = Overlap()
            self._out += self._hold.add("overlap")
        self._overlap.start(now)
        self._timers[Timer.FINAL] = self._overlap.reaches(self._options.final_after_s)

    def _overlap_was_noise(self) -> None:
        if self.state is State.AGENT:
            self._out.append(act.WasNoise())
        self._overlap = None
        self._caller.forget_voice()
        self._out += self._hold.drop("overlap", repeat=self.state is State.AGENT)

    def _barge_in(self, now: float) -> None:
        how = Ended.INTERRUPTED if self.state is State.AGENT else Ended.CONTINUED
        self._cut_by_noise = True  # unless a word comes
        self._may_go_on = self._speech in (None, Speech.FIRST_MESSAGE)
        self._cancel(how)
        self._continue(now)

    def _delay_over(self, now: float) -> None:
        self._out += self._hold.drop("delay", repeat=False)

    # Failures and the end

    def _answer_late(self, now: float) -> None:
        if self._hold:  # it may well be there
            self._timers[Timer.ANSWER] = now + _POSTPONED_S
        else:
            self._overdue(now, awaits_words=False)

    def _fail(self, now: float) -> None:
        was_fallback = self._speech is Speech.FALLBACK
        self._cut_by_noise = False
        self._cancel(Ended.FAILED)
        if was_fallback:
            self._give_up("failures")
        else:
            self._count_failure(now)

    def _count_failure(self, now: float) -> None:
        self._failures += 1
        if self._failures >= self._options.max_failures:
            self._give_up("failures")
        elif self._caller.is_voice:
            self._continue(now)
        else:
            self._overlap = None
            for timer in (Timer.SILENCE, Timer.LENGTH, Timer.NO_INPUT):
                self._timers.pop(timer, None)
            self._say(Speech.FALLBACK, self._failures, now)

    def _give_up(self, reason: str) -> None:
        if self._is_open:
            self._end(Ended.OVER)
        self.state = State.OVER
        self._overlap = None
        self._timers.clear()
        self._out.append(act.GiveUp(reason))


# Not in the instance: it would be a reference cycle, which keeps a call that has ended.
_HANDLERS: dict[Timer, Callable[[Turns, float], None]] = {
    Timer.SESSION: lambda turns, now: turns._give_up("session_timeout"),
    Timer.GRACE: Turns._voice_started,
    Timer.SILENCE: Turns._silence,
    Timer.LENGTH: lambda turns, now: turns._end_turn("length", now),
    Timer.PATIENCE: Turns._finals_late,
    Timer.STALE: lambda turns, now: turns._let_stand(),
    Timer.FINALS: lambda turns, now: turns._overdue(now, awaits_words=True),
    Timer.ANSWER: Turns._answer_late,
    Timer.DELAY: Turns._delay_over,
    Timer.FINAL: Turns._barge_in,
    Timer.RESUME: lambda turns, now: turns._overlap_was_noise(),
    Timer.NO_INPUT: Turns._no_input,
}
