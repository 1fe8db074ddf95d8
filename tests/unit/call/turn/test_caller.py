"""What a caller has said since the last turn."""

from mediad.call.turn.caller import Caller


def test_voice_adds_up_to_more_than_a_noise() -> None:
    caller = Caller()
    caller.start(1.0)
    caller.stop(1.1, 1.05)
    assert not caller.has_spoken(0.15)
    caller.start(1.5)
    caller.stop(1.6, 1.55)
    assert caller.has_spoken(0.15)
    assert caller.ended_at == 1.55
    caller.end_turn()
    assert caller.ended_at < 0.0


def test_a_word_is_more_than_a_noise() -> None:
    caller = Caller()
    caller.hear("no", True, 1.0)
    assert caller.has_spoken(9.0)


def test_words_end_when_the_voice_did_unless_there_was_none() -> None:
    caller = Caller()
    caller.start(1.0)
    caller.stop(2.0, 1.9)
    caller.hear("late", False, 2.5)
    assert caller.ended_at == 1.9
    caller.hear("too soft for the gate", False, 4.0)
    assert caller.ended_at == 4.0
    caller.hear("and so is this", True, 4.5)
    assert caller.ended_at == 4.5
    caller.start(5.0)
    caller.is_voice = True
    caller.hear("but not this", True, 8.0)
    assert caller.ended_at == 4.5
